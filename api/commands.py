"""What each command of `podbgp` does: ask the daemon, show the answer.

`cli.py` has the words and options; this module has what they need: gRPC and rich, which are slow to load,
so it is imported only once a command line is known to be sound.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
from rich.console import RenderableType

from api import document, document_node, render, render_node, render_peer
from api.client import Client, ClientError, InvalidRequestError
from api.document import Document
from api.layout import make_console
from routes.view import RouteQuery, Table

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
MARK = "-- that is all for now; changes follow, Ctrl-C ends --"


class Commands:
    """The commands, talking to the daemon at `api` and answering as `output` says."""

    def __init__(self, api: str, output: str) -> None:
        self._api = api
        self._output = output
        self._console = make_console()

    @contextmanager
    def _client(self) -> Iterator[Client]:
        """A client whose errors end the program with a sentence."""
        try:
            with Client(self._api) as client:
                yield client
        except InvalidRequestError as error:
            _fail(str(error), EXIT_USAGE)
        except ClientError as error:
            _fail(str(error), EXIT_FAILED)
        except KeyboardInterrupt:  # how a watch is meant to end
            sys.exit(EXIT_INTERRUPTED)

    def peers(self, name: str, *, everyone: bool = False) -> None:
        """All peers, or everything about one."""
        with self._client() as client:
            statuses = client.peers(name)
        now = time.time()
        if name:
            self._show(document.peer_document(statuses[0]), lambda: render_peer.peer(statuses[0], now))
        else:
            documents = [document.peer_document(status) for status in statuses]
            self._show(documents, lambda: render_peer.peers(statuses, now, everyone=everyone))

    def routes(self, query: RouteQuery, limit: int) -> None:
        """The routes of one table."""
        with self._client() as client:
            paths, entries, _ = client.page(query, limit)
        if self._output == "table":
            self._print(render.fib(entries) if query.table is Table.FIB else render.paths(paths))
            return
        documents = [document.path_document(path) for path in paths]
        documents += [document.fib_document(entry) for entry in entries]
        self._write(documents)

    def route(self, target: str) -> None:
        """Why a destination is reached as it is."""
        with self._client() as client:
            value = client.explain(target)
        self._show(document.explanation_document(value), lambda: render.explanation(value))

    def status(self) -> None:
        """The daemon as a whole."""
        with self._client() as client:
            value = client.status()
        self._show(document.status_document(value), lambda: render.status(value, time.time()))

    def node(self) -> None:
        """The daemon's Kubernetes Node."""
        with self._client() as client:
            value = client.node()
        self._show(document_node.node_document(value), lambda: render_node.node(value))

    def service(self, namespace: str, name: str, limit: int) -> None:
        """Whether and why this node announces each address of Services."""
        with self._client() as client:
            page = client.services(namespace, name, limit)
        documents = [document_node.verdict_document(verdict) for verdict in page.verdicts]
        if page.note and self._output != "table":  # it is no verdict, and should not be missed
            click.echo(f"podbgp: {page.note}", err=True)
        self._show(documents, lambda: render_node.verdicts(page.verdicts, page.note, one=bool(name)))

    def service_paths(self, limit: int) -> None:
        """What this node announces for Services."""
        with self._client() as client:
            paths, _ = client.service_paths(limit)
        documents = [document_node.service_path_document(path) for path in paths]
        self._show(documents, lambda: render_node.service_paths(paths))

    def shutdown(self, flush: bool, message: str) -> None:
        """Leave for good."""
        with self._client() as client:
            report = client.shutdown(flush, message)
        self._show(document.shutdown_document(report), lambda: render.shutdown(report))
        if report.errors:
            sys.exit(EXIT_FAILED)

    def watch_routes(self, query: RouteQuery) -> None:
        """Routes: the snapshot, a mark, then changes."""
        with self._client() as client:
            for event in client.watch_routes(query):
                if self._output == "table":
                    lines = [render.route_change(change, query.table, _clock()) for change in event.changes]
                    self._print([*lines, MARK] if event.end_of_snapshot else lines)
                else:
                    documents = [document.change_document(change) for change in event.changes]
                    self._write_events(documents, event.end_of_snapshot)

    def watch_peers(self, name: str) -> None:
        """Peers: the snapshot, a mark, then changes."""
        with self._client() as client:
            for event in client.watch_peers(name):
                if self._output == "table":
                    lines = [render_peer.peer_change(peer, time.time(), _clock()) for peer in event.peers]
                    lines += [render_peer.peer_removed(removed, _clock()) for removed in event.removed]
                    self._print([*lines, MARK] if event.end_of_snapshot else lines)
                else:
                    documents = [{"event": "peer"} | document.peer_document(peer) for peer in event.peers]
                    documents += [{"event": "peer_removed", "name": removed} for removed in event.removed]
                    self._write_events(documents, event.end_of_snapshot)

    def _show(
        self, documents: Document | list[Document], parts: Callable[[], Iterable[RenderableType]]
    ) -> None:
        if self._output == "table":
            self._print(parts())
        else:
            self._write(documents)

    def _print(self, parts: Iterable[RenderableType]) -> None:
        for part in parts:
            self._console.print(part, end="\n" if isinstance(part, str) else "")

    def _write(self, documents: Document | list[Document]) -> None:
        """One JSON document, or with `jsonl` one for each line."""
        if self._output == "json":
            click.echo(json.dumps(documents, indent=2))
            return
        for one in documents if isinstance(documents, list) else [documents]:
            click.echo(json.dumps(one))

    def _write_events(self, documents: list[Document], end_of_snapshot: bool) -> None:
        if end_of_snapshot:
            documents.append({"event": "end_of_snapshot"})
        for one in documents:
            click.echo(json.dumps(one))


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _fail(text: str, code: int) -> NoReturn:
    click.echo(f"podbgp: {text}", err=True)
    sys.exit(code)
