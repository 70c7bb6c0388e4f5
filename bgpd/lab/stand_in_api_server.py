"""A stand-in for the Kubernetes API server: the real HTTP API, served from memory, with faults on demand.

It is a stand-in and says so wherever it is used: for what the real one (built by `make kube`) can't show at
will, and for the lab where no real one was built.  tests/kube/test_conformance.py runs the same checks
against both.  It serves plain HTTP on an address that it is given; it checks no tokens and no roles, and must
never be reachable from outside the lab.

    python -m bgpd.lab.stand_in_api_server --listen 127.0.0.1:8001 [--pod-cidrs 10.244.0.0/16,fd00::/48]
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Self

import click
from aiohttp import web

from bgpd.lab.stand_in_api_server_faults import Faults, Instead, Load
from bgpd.lab.stand_in_api_server_http import Api
from bgpd.lab.stand_in_api_server_json import Json, text
from bgpd.lab.stand_in_api_server_kinds import Kind
from bgpd.lab.stand_in_api_server_store import Check, Refusal, Selection, Store, Stored

__all__ = ["Faults", "Instead", "StandInApiServer"]

ATTACHED_AFTER = 5
"""Turns of the loop in which a connection that was accepted just now has become the server's."""
OpenSocket = Callable[[int, int], socket.socket]
"""A socket of a family and a kind: in another network namespace, `netns.open_socket` opens it."""


class StandInApiServer:
    """The server in a thread of its own.  Every method may be called from any other thread."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        pod_cidrs: tuple[str, ...] = (),
        service_cidr: str = "10.96.0.0/16",
        collect_garbage: bool = False,
        bookmark_every: float = 60.0,
        check: Check | None = None,
        open_socket: OpenSocket = socket.socket,
    ) -> None:
        self.host, self.port = host, port
        self._open_socket = open_socket
        self.store = Store(
            pod_cidrs=pod_cidrs, service_cidr=service_cidr, collect_garbage=collect_garbage, check=check
        )
        self.faults, self.load = Faults(), Load()
        self._api = Api(self.store, self.faults, self.load, bookmark_every=bookmark_every)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="stand-in API server", daemon=True
        )
        self._runner: web.AppRunner | None = None
        self._listening: socket.socket

    def __enter__(self) -> Self:
        self._thread.start()
        self.store.on_change = lambda: self._from_outside(self._api.wake)
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()
        self.store.on_change = lambda: None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def kubeconfig(self, path: Path) -> str:
        """Write a kubeconfig for this server; answers its name."""
        path.write_text(json.dumps(kubeconfig_for(self.url)))
        return str(path)

    # -- faults that take the server itself ---------------------------------------------------------

    def up(self) -> None:
        """Listen, at the port that it had before, if it does not."""
        self._wait(self._up())

    def down(self) -> None:
        """Stop listening and cut every connection."""
        self._wait(self._down())

    def restart(self, *, revision: int | None = None) -> None:
        """Come back at once, with `revision` as a server that was restored from an older backup."""
        self.down()
        if revision is not None:
            self.store.rewind(revision)
        self.up()

    def cut_streams(self) -> None:
        """Cut every watch in the middle, and go on serving."""
        self._from_outside(self._api.cut)

    def end_streams(self) -> None:
        """End every watch in good order, before its time."""
        self._from_outside(self._api.end)

    def hang(self) -> None:
        """Accept connections, say nothing: to new requests, and on watches."""
        self.faults.hanging = True

    def resume(self) -> None:
        self.faults.hanging = False
        self._from_outside(self._api.wake)

    def forget_history(self) -> None:
        self.store.compact()

    def expire_watches(self) -> None:
        """Compact, and tell every watcher so: a 410 inside the stream."""
        self.store.compact()
        self._from_outside(self._api.expire)

    @property
    def watches(self) -> int:
        return len(self._api.watchers)

    # -- what kubectl would do ----------------------------------------------------------------------

    def create(self, value: Json, namespace: str = "") -> Json:
        kind = self._kind(value)
        namespace = namespace or text(value, "metadata", "namespace")
        return self._now(kind, self.store.create(kind, self._space(kind, namespace), value))

    def create_many(self, values: list[Json]) -> None:
        for value in values:
            self.create(value)

    def get(self, kind: str, name: str, namespace: str = "") -> Json:
        found = self.store.kind_named(kind)
        return self.store.get(found, self._space(found, namespace), name).value()

    def list(self, kind: str) -> list[Json]:
        return [stored.value() for stored in self.store.matching(self.store.kind_named(kind), Selection())[1]]

    def patch(
        self, kind: str, name: str, patch: object, *, namespace: str = "", subresource: str = "",
        patch_type: str = "merge",
    ) -> Json:  # fmt: skip
        found = self.store.kind_named(kind)
        space = self._space(found, namespace)
        return self.store.patch(found, space, name, patch, patch_type, subresource=subresource).value()

    def delete(self, kind: str, name: str, namespace: str = "", *, grace: int | None = 0) -> None:
        found = self.store.kind_named(kind)
        self.store.delete(found, self._space(found, namespace), name, grace=grace)

    # -- inside -------------------------------------------------------------------------------------

    def _kind(self, value: Json) -> Kind:
        return self.store.kind_named(text(value, "kind"), text(value, "apiVersion").rpartition("/")[0])

    @staticmethod
    def _space(kind: Kind, namespace: str) -> str:
        return (namespace or "default") if kind.namespaced else ""

    def _now(self, kind: Kind, stored: Stored) -> Json:
        """As it is now: nodeipam may have written to it already."""
        try:
            return self.store.get(kind, *stored.key).value()
        except Refusal:
            return stored.value()

    async def _up(self) -> None:
        if self._runner is not None:
            return
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._api.handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.0)
        await self._runner.setup()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = self._open_socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.host, self.port))
        self.port = int(sock.getsockname()[1])
        self._listening = sock
        await web.SockSite(self._runner, sock, backlog=1024).start()

    async def _down(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None or runner.server is None:
            return
        self._loop.remove_reader(self._listening)  # asyncio leaks what it accepts in the turn of a close
        for _ in range(ATTACHED_AFTER):
            await asyncio.sleep(0)
        for site in list(runner.sites):
            await site.stop()
        for connection in runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()  # a mere close waits for who does not read
        self._api.wake()
        await runner.cleanup()

    def _wait(self, doing: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(doing, self._loop).result(20)

    def _from_outside(self, what: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)


def kubeconfig_for(url: str) -> Json:
    """A kubeconfig without credentials: the stand-in asks for none."""
    name = "podbgp-stand-in"
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": url}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }  # fmt: skip


@click.command()
@click.option("--listen", default="127.0.0.1:8001", show_default=True, help="HOST:PORT")
@click.option("--pod-cidrs", default="", help="Give Nodes podCIDRs out of these ranges, as nodeipam does.")
@click.option("--service-cidr", default="10.96.0.0/16", show_default=True)
@click.option("--collect-garbage", is_flag=True, help="Delete what has lost its owner, as controllers do.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Write a kubeconfig to this file.")
def main(
    listen: str, pod_cidrs: str, service_cidr: str, kubeconfig: Path | None, *, collect_garbage: bool
) -> None:
    """Serve the Kubernetes API from memory: a stand-in for labs and tests, without authentication."""
    host, _, port = listen.rpartition(":")
    server = StandInApiServer(
        host=host.strip("[]"),
        port=int(port),
        pod_cidrs=tuple(filter(None, pod_cidrs.split(","))),
        service_cidr=service_cidr,
        collect_garbage=collect_garbage,
    )
    with server:
        if kubeconfig is not None:
            server.kubeconfig(kubeconfig)
        click.echo(f"stand-in API server ready at {server.url}")
        threading.Event().wait()


if __name__ == "__main__":
    main()
