"""Talking to an API server: the one module that knows the official kubernetes package.

The package gives us configuration (kubeconfig, or the pod's service account with its rotating token), TLS,
proxies and the transport.  Its models are never used: for 5,000 Nodes they cost 13 times the memory of the
raw JSON, which msgspec decodes straight into the few fields that we read.

Every call blocks, so it belongs in a thread.  Owns: connections, deadlines, bounds on what is read, the
translation of every failure into `KubeError`.  Must never: retry on its own (who calls knows what is stale by
then; urllib3 would repeat 429 and 503 silently), follow redirects (a token would go with them), wait without
a bound, or look at $KUBECONFIG (which may name someone's live cluster).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, NoReturn, Protocol, cast
from urllib.parse import urlencode, urlsplit

import msgspec
import urllib3
import yaml
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.connection import HTTPConnection

from bgpd.errors import ConfigError
from bgpd.kube.errors import (
    Conflict,
    Gone,
    Invalid,
    KubeError,
    Nonsense,
    NotFound,
    Refused,
    Unavailable,
    error_for,
)
from bgpd.kube.sockets import Sockets, tracked
from bgpd.version import version

__all__ = [
    "Conflict", "Gone", "Invalid", "KubeClient", "KubeError", "Nonsense", "NotFound", "Page", "PatchKind",
    "Query", "Refused", "Unavailable",
]  # fmt: skip

Query = Mapping[str, str | int | bool]
PatchKind = Literal["merge", "strategic", "json", "apply"]

_PATCH_TYPES: dict[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}
_JSON = "application/json"
_READ = 1 << 16
_ERROR_BYTES = 1 << 16  # what is read of an error's body
_MOST_PAGES = 4096
# The package's loader indexes what it finds in the file before it looks at its shape.
_MALFORMED = (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)
_MOST_RESTARTS = 3
# In every API server's certificate, also where the address that reaches it is not (a load balancer's).
_SERVICE_NAME = "kubernetes.default.svc"


class Page(NamedTuple):
    """One page of a list.  `first`: forget the pages before it (a list begins, or began again midway)."""

    body: bytes
    first: bool


class _Answer(Protocol):
    """What is used of urllib3's response."""

    status: int
    reason: str | None
    headers: Mapping[str, str]
    connection: HTTPConnection | None

    def read1(self, amt: int) -> bytes: ...

    def close(self) -> None: ...


class _ListMeta(msgspec.Struct, frozen=True):
    resume: str = msgspec.field(default="", name="continue")


class _ListHead(msgspec.Struct, frozen=True):
    metadata: _ListMeta | None = None


class _StatusDetails(msgspec.Struct, frozen=True):
    retry: float | None = msgspec.field(default=None, name="retryAfterSeconds")


class _Status(msgspec.Struct, frozen=True):
    message: str = ""
    reason: str = ""
    details: _StatusDetails | None = None


_LIST_HEAD = msgspec.json.Decoder(_ListHead)
_STATUS = msgspec.json.Decoder(_Status)


class KubeClient:
    """One API server.  Calls may come from several threads; `close`, from any thread, ends all of them."""

    def __init__(
        self, transport: RESTClientObject, configuration: Configuration, server: str, *,
        timeout: float, max_response: int, max_line: int,
    ) -> None:  # fmt: skip
        self._pools = transport.pool_manager
        self._configuration = configuration
        self.server = server.rstrip("/")
        self._timeout, self._max_response, self._max_line = timeout, max_response, max_line
        self._sockets = Sockets()
        self._pools.pool_classes_by_scheme = {
            scheme: tracked(kind, self._sockets)
            for scheme, kind in self._pools.pool_classes_by_scheme.items()
        }

    def sibling(self) -> KubeClient:
        """The same API server over connections of its own, which `close` ends alone."""
        transport = _transport(self._configuration, self.server)
        return KubeClient(
            transport, self._configuration, self.server,
            timeout=self._timeout, max_response=self._max_response, max_line=self._max_line,
        )  # fmt: skip

    @classmethod
    def load(
        cls, kubeconfig: str | None = None, *, server: str | None = None,
        timeout: float = 20.0, max_response: int = 64 << 20, max_line: int = 8 << 20,
    ) -> KubeClient:  # fmt: skip
        """The cluster of a kubeconfig file, or (None) the one that this pod runs in.

        `server` replaces the address, for nodes where the API server's ClusterIP does not work yet because
        kube-proxy is not up: https://ADDRESS:6443 of a control plane node or of a load balancer before them.
        """
        configuration = Configuration()
        configuration.retries = False
        configuration.keep_alive = True
        configuration.connection_pool_maxsize = 32
        try:
            if kubeconfig is None:
                load_incluster_config(configuration)
            else:
                load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
        except _MALFORMED as error:
            where = "kubeconfig " + kubeconfig if kubeconfig is not None else "this pod's service account"
            raise ConfigError(
                f"{where} gives no way to the API server: {error} "
                "(valid: --kubeconfig FILE, or running in a pod with a service account)"
            ) from error
        if server is not None:
            if urlsplit(server).scheme not in ("http", "https") or not urlsplit(server).hostname:
                raise ConfigError(
                    f"API server {server!r} is not valid: give a URL such as https://192.0.2.1:6443"
                )
            if kubeconfig is None:
                configuration.tls_server_name = _SERVICE_NAME
        # The package's token refresh sets configuration.host back, so the address is kept here.
        address = server if server is not None else str(configuration.host)
        try:
            transport = _transport(configuration, address)
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            raise ConfigError(
                f"API server {address}: TLS or proxy settings are not valid: {error}"
            ) from error
        return cls(
            transport, configuration, address, timeout=timeout, max_response=max_response, max_line=max_line
        )

    def close(self) -> None:
        """End every call that is under way with `Unavailable`, and refuse new ones."""
        self._sockets.end()
        self._pools.clear()

    @property
    def closed(self) -> bool:
        return self._sockets.ended

    def get(self, path: str, **query: str | int | bool) -> bytes:
        return self._call("GET", path, query)

    def text(self, path: str) -> str:
        """An answer that is not JSON, such as /readyz."""
        return self._call("GET", path, {}, accept="*/*").decode(errors="replace")

    def pages(self, path: str, query: Query | None = None, limit: int = 500) -> Iterator[Page]:
        """A list in pages; one whose history is compacted away midway starts over with `first` set."""
        for _ in range(_MOST_RESTARTS):
            try:
                yield from self._pages(path, dict(query or {}), limit)
            except Gone:
                continue
            return
        raise Gone(410, "Expired", f"the list expired {_MOST_RESTARTS} times before its end", where=path)

    def _pages(self, path: str, query: dict[str, str | int | bool], limit: int) -> Iterator[Page]:
        seen: set[str] = set()
        query["limit"] = limit
        for _ in range(_MOST_PAGES):
            body = self._call("GET", path, query)
            yield Page(body, first=not seen)
            try:
                head = _LIST_HEAD.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Nonsense(200, "NotAList", str(error), where=path) from error
            resume = head.metadata.resume if head.metadata is not None else ""
            if not resume:
                return
            if resume in seen:
                raise Nonsense(200, "EndlessList", "a continue token came twice", where=path)
            seen.add(resume)
            query["continue"] = resume
            query.pop("resourceVersion", None)  # the token carries it; both together are refused
            query.pop("resourceVersionMatch", None)
        raise Nonsense(200, "EndlessList", f"more than {_MOST_PAGES} pages", where=path)

    def watch(
        self, path: str, query: Query | None = None, timeout: float = 300.0, idle: float = 90.0
    ) -> Iterator[bytes]:
        """The lines of one watch; see `stream`."""
        for lines in self.stream(path, query, timeout, idle):
            yield from lines

    def stream(
        self, path: str, query: Query | None = None, timeout: float = 300.0, idle: float = 90.0
    ) -> Iterator[list[bytes]]:
        """The lines of one watch, those together that came together; none, first, when the server accepts it.

        Ends when the server ends it in good order, usually after `timeout` seconds.  Everything else raises
        `KubeError`, also when nothing was heard for `idle` seconds.
        """
        asked: dict[str, str | int | bool] = {**(query or {}), "watch": True, "timeoutSeconds": int(timeout)}
        answer = self._open("GET", path, asked, read=self._timeout)
        sock = answer.connection.sock if answer.connection is not None else None
        if sock is not None:  # not known of an answer that ends its connection: the shorter timeout stays
            sock.settimeout(min(idle, timeout + 15.0))
        rest = b""
        try:
            yield []
            while data := self._read(answer, path):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > self._max_line:
                    message = f"a watch event of more than {self._max_line} bytes"
                    raise Nonsense(200, "EndlessLine", message, where=path)
                if lines:
                    yield [line for line in lines if line.strip()]
            if rest.strip():
                raise Nonsense(200, "CutShort", "the watch ended in the middle of an event", where=path)
        finally:
            answer.close()

    def create(self, path: str, body: object, *, dry_run: bool = False) -> bytes:
        return self._send("POST", path, body, dry_run=dry_run)

    def replace(self, path: str, body: object, *, subresource: str = "", dry_run: bool = False) -> bytes:
        return self._send("PUT", _below(path, subresource), body, dry_run=dry_run)

    def patch(
        self, path: str, body: object, kind: PatchKind = "merge", *,
        subresource: str = "", dry_run: bool = False, manager: str = "podbgp", force: bool = False,
    ) -> bytes:  # fmt: skip
        """Change an object.  Custom resources know no `strategic`; `apply` names its `manager`."""
        query: dict[str, str | int | bool] = {"fieldManager": manager} if kind == "apply" else {}
        if force:
            query["force"] = True
        return self._send(
            "PATCH",
            _below(path, subresource),
            body,
            query=query,
            content_type=_PATCH_TYPES[kind],
            dry_run=dry_run,
        )

    def delete(
        self, path: str, *, uid: str = "", resource_version: str = "",
        grace: int | None = None, dry_run: bool = False,
    ) -> bytes:  # fmt: skip
        """Delete an object; with `uid`, only if it still is that one (`Conflict` otherwise)."""
        conditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, object] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if any(conditions.values()):
            options["preconditions"] = {name: value for name, value in conditions.items() if value}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if dry_run:
            options["dryRun"] = ["All"]  # a DELETE with a body ignores the query: it would delete
        return self._send("DELETE", path, options)

    def _send(
        self, method: str, path: str, body: object, *,
        query: Query | None = None, content_type: str = _JSON, dry_run: bool = False,
    ) -> bytes:  # fmt: skip
        data = bytes(body) if isinstance(body, bytes | bytearray) else msgspec.json.encode(body)
        asked = {**(query or {}), **({"dryRun": "All"} if dry_run else {})}
        return self._call(method, path, asked, data=data, content_type=content_type)

    def _call(
        self, method: str, path: str, query: Query, *,
        data: bytes | None = None, content_type: str = "", accept: str = _JSON,
    ) -> bytes:  # fmt: skip
        deadline = time.monotonic() + 3 * self._timeout
        answer = self._open(
            method, path, query, read=self._timeout, data=data, content_type=content_type, accept=accept
        )
        parts: list[bytes] = []
        size = 0
        try:
            while part := self._read(answer, path):
                parts.append(part)
                size += len(part)
                if size > self._max_response:
                    message = f"an answer of more than {self._max_response} bytes"
                    raise Nonsense(answer.status, "TooLong", message, where=path)
                if time.monotonic() > deadline:
                    raise Unavailable(0, "Timeout", f"after {size} bytes of the answer", where=path)
        except KubeError:
            answer.close()
            raise
        return b"".join(parts)

    def _open(
        self, method: str, path: str, query: Query, *,
        read: float, data: bytes | None = None, content_type: str = "", accept: str = _JSON,
    ) -> _Answer:  # fmt: skip
        if self.closed:
            raise Unavailable(0, "Closed", "the client is closed", where=path)
        url = self.server + path + _query(query)
        try:
            answer = cast(
                _Answer,
                self._pools.request(
                    method, url, body=data, headers=self._headers(content_type, accept),
                    timeout=urllib3.Timeout(connect=min(5.0, self._timeout), read=read),
                    retries=False, redirect=False, preload_content=False,
                ),
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._no_answer(error, path)
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, path)
        kind = answer.headers.get("Content-Type", _JSON)
        if accept == _JSON and "json" not in kind:
            answer.close()
            raise Nonsense(answer.status, "NotJSON", f"the answer is {kind[:80]!r}", where=path)
        return answer

    def _headers(self, content_type: str, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": f"podbgp/{version()}"}
        if content_type:
            headers["Content-Type"] = content_type
        try:
            for setting in self._configuration.auth_settings().values():
                headers[setting["key"]] = str(setting["value"]).strip()
        except (ConfigException, OSError, ValueError, KeyError) as error:
            raise Refused(0, "NoCredentials", f"the credentials can't be refreshed: {error}") from error
        return headers

    def _read(self, answer: _Answer, path: str) -> bytes:
        try:
            return answer.read1(_READ)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            answer.close()
            self._no_answer(error, path)

    def _no_answer(self, error: Exception, path: str) -> NoReturn:
        if self.closed:
            raise Unavailable(0, "Closed", "the client was closed", where=path) from error
        if isinstance(error, urllib3.exceptions.TimeoutError):
            raise Unavailable(0, "Timeout", _sentence(error), where=path) from error
        if isinstance(error, urllib3.exceptions.SSLError | ssl.SSLError):
            raise Unavailable(0, "TLS", _sentence(error), where=path) from error
        raise Unavailable(0, "NoAnswer", _sentence(error), where=path) from error

    def _refusal(self, answer: _Answer, path: str) -> KubeError:
        """The error of an answer that is not 2xx; its body is a Status, or whatever a proxy wrote."""
        body = b""
        try:
            while len(body) < _ERROR_BYTES and (part := self._read(answer, path)):
                body += part
        except KubeError:
            body = b""
        finally:
            answer.close()
        try:
            status = _STATUS.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            status = _Status(message=body[:200].decode(errors="replace"))
        wait = _seconds(answer.headers.get("Retry-After", ""))
        if wait is None and status.details is not None:
            wait = status.details.retry
        reason = status.reason or (answer.reason or "")
        return error_for(answer.status, reason, status.message[:1000], where=path, retry_after=wait)


def _transport(configuration: Configuration, server: str) -> RESTClientObject:
    """Connections to `server`; $NO_PROXY is for the address that is really used."""
    configuration.host = server
    return RESTClientObject(configuration)


def _below(path: str, subresource: str) -> str:
    return f"{path}/{subresource}" if subresource else path


def _query(query: Query) -> str:
    def text(value: str | int | bool) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return "?" + urlencode([(name, text(value)) for name, value in query.items()]) if query else ""


def _seconds(text: str) -> float | None:
    """Retry-After in seconds; API servers never send its other form, a date."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _sentence(error: Exception) -> str:
    return str(error)[:300] or type(error).__name__
