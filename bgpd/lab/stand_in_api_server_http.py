"""The HTTP side of the stand-in API server: requests to the store, answers as the real one words them.

Watches are chunked streams of one JSON object a line, with bookmarks; their selectors turn a change that
makes an object match, or match no longer, into ADDED and DELETED, as the real server does.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from bgpd.lab.stand_in_api_server_faults import Faults, Instead, Load
from bgpd.lab.stand_in_api_server_json import Json, child, text
from bgpd.lab.stand_in_api_server_kinds import Kind, SelectorError, field_matcher, label_matcher
from bgpd.lab.stand_in_api_server_store import Change, Refusal, Selection, Store, Stored

_PATCHES = {
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/json-patch+json": "json",
    "application/apply-patch+yaml": "apply",
}
_VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.0+podbgp-stand-in"}


@dataclass(eq=False)
class Watcher:
    """One open watch."""

    request: web.Request
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    end: bool = False
    expire: bool = False


@dataclass(frozen=True)
class _Target:
    """What a URL names."""

    kind: Kind
    namespace: str
    name: str
    subresource: str


class Api:
    """Runs on the server's loop only."""

    def __init__(self, store: Store, faults: Faults, load: Load, *, bookmark_every: float) -> None:
        self._store, self._faults, self._load = store, faults, load
        self._bookmark_every = bookmark_every
        self.watchers: set[Watcher] = set()

    def wake(self) -> None:
        for watcher in self.watchers:
            watcher.woken.set()

    def cut(self) -> None:
        for watcher in self.watchers:
            if watcher.request.transport is not None:
                watcher.request.transport.abort()
        self.wake()

    def end(self) -> None:
        for watcher in self.watchers:
            watcher.end = True
        self.wake()

    def expire(self) -> None:
        for watcher in self.watchers:
            watcher.expire = True
        self.wake()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            if self._faults.delay:
                await asyncio.sleep(self._faults.delay)
            while self._faults.hanging:  # noqa: ASYNC110 - another thread changes it
                await asyncio.sleep(0.02)
            instead = self._faults.take(str(request.rel_url))
            if instead is not None:
                return await _instead(request, instead)
            return await self._answer(request)
        except Refusal as refusal:
            return _refused(refusal)
        except (SelectorError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refused(Refusal(400, "BadRequest", str(error)))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in ("/readyz", "/livez", "/healthz"):
            return web.Response(text="ok")
        discovered = self._discovery(request.path.rstrip("/"))
        if discovered is not None:
            return web.json_response(discovered)
        target = self._target(request.path)
        watching = request.query.get("watch") in ("1", "true") and not target.name
        read = "watch" if watching else "get" if target.name else "list"
        verbs = {"GET": read, "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        verb = verbs.get(request.method, "")
        self._load.asked(verb, target.kind.plural, str(request.rel_url))
        if verb == "watch":
            return await self._watch(request, target)
        answer = await self._call(verb, request, target)
        self._load.sent[verb, target.kind.plural] += len(answer[1])
        return web.Response(body=answer[1], status=answer[0], content_type="application/json")

    async def _call(self, verb: str, request: web.Request, target: _Target) -> tuple[int, bytes]:
        """(status, body) of everything but a watch."""
        store, kind, space, name = self._store, target.kind, target.namespace, target.name
        if verb == "list":
            return 200, self._list(request, target)
        if verb == "get":
            return 200, store.get(kind, space, name).data
        dry = request.query.get("dryRun") == "All"
        raw = await request.read()
        body: object = msgspec.json.decode(raw) if raw else {}
        if verb == "delete" and raw:  # the options in the body are all the options
            dry = child({"": body}, "").get("dryRun") == ["All"]
        if verb == "create" and target.subresource in ("binding", "eviction"):
            self._on_pod(target, child({"": body}, ""), dry=dry)
            return 201, _status(201, "Success", "", "")
        if verb == "create" and not name:
            return 201, store.create(kind, space, child({"": body}, ""), dry=dry).data
        if verb == "update" and name:
            value = child({"": body}, "")
            return 200, store.update(kind, space, name, value, subresource=target.subresource, dry=dry).data
        if verb == "patch" and name:
            how = _PATCHES.get(request.content_type)
            if how is None:
                raise Refusal(415, "UnsupportedMediaType", f"{request.content_type} is no patch")
            changed = store.patch(kind, space, name, body, how, subresource=target.subresource, dry=dry)
            return 200, changed.data
        if verb == "delete" and name:
            return 200, self._delete(request, target, child({"": body}, ""), dry=dry).data
        raise Refusal(405, "MethodNotAllowed", f"the server does not allow {request.method} here")

    def _on_pod(self, target: _Target, body: Json, *, dry: bool) -> None:
        """What a scheduler and a drain do."""
        kind, space, name = target.kind, target.namespace, target.name
        if target.subresource == "eviction":
            self._store.delete(kind, space, name, dry=dry)
            return
        at = text(self._store.get(kind, space, name).value(), "spec", "nodeName")
        if at:
            raise Refusal(409, "Conflict", f'pod "{name}" is already assigned to node "{at}"')
        patch = {"spec": {"nodeName": text(body, "target", "name")}}
        self._store.patch(kind, space, name, patch, "merge", dry=dry)

    def _delete(self, request: web.Request, target: _Target, options: Json, *, dry: bool) -> Stored:
        conditions = child(options, "preconditions")
        grace = options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
        return self._store.delete(
            target.kind, target.namespace, target.name, uid=text(conditions, "uid"), dry=dry,
            version=text(conditions, "resourceVersion"),
            grace=int(grace) if isinstance(grace, int | str) else None,
        )  # fmt: skip

    def _list(self, request: web.Request, target: _Target) -> bytes:
        query, kind = request.query, target.kind
        wanted = query.get("resourceVersion", "")
        if wanted.isdigit() and int(wanted) > self._store.revision:
            raise Refusal(504, "Timeout", f"Too large resource version: {wanted}", retry_after=1)
        exactly = query.get("resourceVersionMatch") == "Exact" and not query.get("continue")
        if wanted.isdigit() and exactly and int(wanted) < self._store.compacted:
            raise Refusal(410, "Expired", "The resourceVersion for the provided list is too old.")
        limit = int(query["limit"]) if query.get("limit", "").isdigit() else 0
        selection = _selection(request, target)
        found = self._store.page(kind, selection, limit, query.get("continue", ""))
        revision, objects, resume, remaining = found
        metadata: Json = {"resourceVersion": str(revision)}
        if resume:
            metadata["continue"] = resume
            if not selection.labels and not selection.fields:
                metadata["remainingItemCount"] = remaining
        items = b",".join(stored.data if kind.custom else stored.item for stored in objects)
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata}
        return msgspec.json.encode(head)[:-1] + b',"items":[' + items + b"]}"

    # -- watches ----------------------------------------------------------------------------------

    async def _watch(self, request: web.Request, target: _Target) -> web.StreamResponse:
        query, kind = request.query, target.kind
        selection = _selection(request, target)
        since = query.get("resourceVersion", "")
        begin: list[bytes] = []
        if since in ("", "0"):
            revision, objects = self._store.matching(kind, selection)
            begin = [_line("ADDED", stored) for stored in objects]
        elif since.isdigit():
            revision = int(since)
            if self._faults.gone_by_status:
                self._store.changes(kind, revision)
        else:
            raise Refusal(400, "BadRequest", f"invalid resource version {since!r}")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"".join(begin) or b"\n")
        watcher = Watcher(request)
        self.watchers.add(watcher)
        try:
            await self._stream(watcher, response, target, selection, revision)
        except ConnectionError:
            return response  # the client left, or was cut
        finally:
            self.watchers.discard(watcher)
        return response

    async def _stream(
        self,
        watcher: Watcher,
        response: web.StreamResponse,
        target: _Target,
        selection: Selection,
        revision: int,
    ) -> None:
        query, kind = watcher.request.query, target.kind
        seconds = query.get("timeoutSeconds", "")
        end = time.monotonic() + (float(seconds) if seconds.isdigit() else 1800.0)
        bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
        every = self._bookmark_every
        next_bookmark = min(time.monotonic() + every, max(end - 2.0, time.monotonic()))
        while not watcher.end and time.monotonic() < end:
            if watcher.request.transport is None:
                return  # the client has left; a cancellation can be lost in wait_for of Python 3.11
            watcher.woken.clear()
            if self._faults.hanging:
                await asyncio.sleep(0.02)
                continue
            lines, revision, gone = self._news(kind, selection, revision, expired=watcher.expire)
            if not lines and bookmarks and time.monotonic() >= next_bookmark:
                if revision <= self._store.revision:
                    revision = self._store.revision
                    lines = [_bookmark(kind, revision)]
                next_bookmark = time.monotonic() + every
            if lines:
                data = b"".join(lines)
                self._load.sent["watch", kind.plural] += len(data)
                await response.write(data)
            if gone:
                break
            wait = min(end, next_bookmark if bookmarks else end) - time.monotonic()
            try:
                await asyncio.wait_for(watcher.woken.wait(), max(0.001, wait))
            except TimeoutError:
                continue
        await response.write_eof()

    def _news(
        self, kind: Kind, selection: Selection, revision: int, *, expired: bool
    ) -> tuple[list[bytes], int, bool]:
        """(lines, the version after them, whether that was the end)."""
        try:
            changes = self._store.changes(kind, -1 if expired else revision)
        except Refusal as refusal:
            status = _status(refusal.code, "Failure", refusal.reason, refusal.message)
            return [b'{"type":"ERROR","object":' + status + b"}\n"], revision, True
        lines = [line for change in changes if (line := _event(change, selection))]
        return lines, changes[-1].revision if changes else revision, False

    # -- URLs -------------------------------------------------------------------------------------

    def _target(self, path: str) -> _Target:
        parts = [part for part in path.split("/") if part]
        missing = Refusal(404, "NotFound", "the server could not find the requested resource")
        if parts[:2] == ["api", "v1"]:
            group, version, rest = "", "v1", parts[2:]
        elif parts[:1] == ["apis"] and len(parts) >= 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise missing
        namespace = ""
        if len(rest) >= 3 and rest[0] == "namespaces" and (group, version, rest[2]) in self._store.kinds:
            namespace, rest = rest[1], rest[2:]
        kind = self._store.kinds.get((group, version, rest[0] if rest else ""))
        name, subresource = (*rest[1:3], "", "")[:2]
        known = subresource in _subresources(kind)
        if kind is None or len(rest) > 3 or not known or (kind.namespaced and name and not namespace):
            raise missing
        return _Target(kind, namespace, name, subresource)

    def _discovery(self, path: str) -> Json | None:
        kinds = list(self._store.kinds.values())
        groups = sorted({(kind.group, kind.version) for kind in kinds if kind.group})
        if path == "/version":
            return dict(_VERSION)
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            named = [_group(group, version) for group, version in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
        for group, version in groups:
            if path == f"/apis/{group}":
                return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
        served = [kind for kind in kinds if kind.root == path]
        if not served:
            return None
        resources = [_resource(kind) for kind in served]
        resources += [_resource(kind, "/status") for kind in served if kind.has_status]
        version = served[0].api_version
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": resources,
        }


def _subresources(kind: Kind | None) -> set[str]:
    status = {"status"} if kind is not None and kind.has_status else set()
    return {"", *status, *(("binding", "eviction") if kind is not None and kind.kind == "Pod" else ())}


def _selection(request: web.Request, target: _Target) -> Selection:
    fields = field_matcher(request.query.get("fieldSelector", ""))
    labels = label_matcher(request.query.get("labelSelector", ""))
    return Selection(target.namespace, tuple(labels), tuple(fields))


def _event(change: Change, selection: Selection) -> bytes:
    was, is_now = selection.match(change.before), selection.match(change.now)
    if is_now and change.now is not None:
        return _line("MODIFIED" if was else "ADDED", change.now)
    left = change.gone or change.now
    return _line("DELETED", left) if was and left is not None else b""


def _line(kind: str, stored: Stored) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + stored.data + b"}\n"


def _bookmark(kind: Kind, revision: int) -> bytes:
    metadata = {"resourceVersion": str(revision), "creationTimestamp": None}
    value = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return msgspec.json.encode({"type": "BOOKMARK", "object": value}) + b"\n"


def _group(group: str, version: str) -> Json:
    one = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [one], "preferredVersion": one}


def _resource(kind: Kind, subresource: str = "") -> Json:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "name": kind.plural + subresource, "singularName": kind.kind.lower(), "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": ["get", "patch", "update"] if subresource else verbs,
        **({"shortNames": list(kind.short)} if kind.short and not subresource else {}),
    }  # fmt: skip


def _status(code: int, status: str, reason: str, message: str) -> bytes:
    return msgspec.json.encode({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status, "message": message,
        "reason": reason, "code": code,
    })  # fmt: skip


def _refused(refusal: Refusal) -> web.Response:
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    body = _status(refusal.code, "Failure", refusal.reason, refusal.message)
    return web.Response(body=body, status=refusal.code, content_type="application/json", headers=headers)


async def _instead(request: web.Request, instead: Instead) -> web.StreamResponse:
    headers = {} if instead.retry_after is None else {"Retry-After": str(instead.retry_after)}
    headers["Content-Type"] = instead.content_type
    response = web.StreamResponse(status=instead.status, headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(instead.body or b" ")
    while instead.endless:
        await response.write(b"x" * 65536)
    if instead.cut and request.transport is not None:
        await asyncio.sleep(0.02)
        request.transport.abort()
        return response
    await response.write_eof()
    return response
