"""What the stand-in API server holds: objects, resource versions, and the history that watches read.

One number grows with each change of any object, as etcd's revision does.  History can be forgotten
(compaction) and the number set back (an API server restored from an older backup): the two ways in which a
watcher's version becomes worthless.  Safe for several threads; never touches a socket.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import copy
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from bgpd.lab.stand_in_api_server_allocations import Allocations
from bgpd.lab.stand_in_api_server_json import Json, PatchError, child, json_patched, merged, strategic, text
from bgpd.lab.stand_in_api_server_kinds import KINDS, Kind, Wants, defined_kind, fields_of, problem_with
from bgpd.lab.stand_in_api_server_schema import completed, problem_in

_MOST_HISTORY = 50_000
_MOST_SNAPSHOTS = 32
Key = tuple[str, str]  # namespace, name
Check = Callable[[Kind, Json, Json | None], str]


class Refusal(Exception):  # noqa: N818 - an answer, as Kubernetes' Status is
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str, retry_after: int | None = None) -> None:
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of an object.  `data` begins with kind and apiVersion, which `item` leaves out."""

    key: Key
    revision: int
    data: bytes
    labels: dict[str, str]
    fields: dict[str, str]
    prefix: int
    owners: tuple[str, ...] = ()

    @property
    def item(self) -> bytes:
        return b"{" + self.data[self.prefix :]

    def value(self) -> Json:
        return child({"": msgspec.json.decode(self.data)}, "")


@dataclass(frozen=True, slots=True)
class Change:
    revision: int
    now: Stored | None
    before: Stored | None
    gone: Stored | None = None  # of a deletion: the last state, with the deletion's version


@dataclass(frozen=True)
class Selection:
    """What a list or watch asks for."""

    namespace: str = ""
    labels: tuple[Wants, ...] = ()
    fields: tuple[tuple[str, bool, str], ...] = ()

    def match(self, stored: Stored | None) -> bool:
        return (
            stored is not None
            and self.namespace in ("", stored.key[0])
            and all(wants.match(stored.labels) for wants in self.labels)
            and all((stored.fields.get(name, "") == value) == equal for name, equal, value in self.fields)
        )


@dataclass
class _Table:
    objects: dict[Key, Stored] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)


class Store:
    """Everything below is atomic; `on_change` is called after each change, with the lock held."""

    def __init__(
        self,
        *,
        pod_cidrs: tuple[str, ...] = (),
        service_cidr: str = "10.96.0.0/16",
        collect_garbage: bool = False,
        check: Check | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.revision = 1
        self.compacted = 0
        self.kinds = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
        self.on_change: Callable[[], None] = lambda: None
        self._check, self._collects = check, collect_garbage
        self._schemas: dict[Kind, Json] = {}
        self._tables: dict[Kind, _Table] = {}
        self._snapshots: OrderedDict[str, tuple[int, list[Stored]]] = OrderedDict()
        self._allocations = Allocations(pod_cidrs, service_cidr)
        for name in ("default", "kube-system", "podbgp-system"):
            self.create(self.kind_named("Namespace"), "", {"metadata": {"name": name}})

    def kind_named(self, name: str, group: str | None = None) -> Kind:
        for kind in self.kinds.values():
            if kind.kind == name and group in (None, kind.group):
                return kind
        raise Refusal(404, "NotFound", f"no kind {name!r} is served")

    # -- reading ----------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str) -> Stored:
        with self.lock:
            stored = self._table(kind).objects.get((namespace, name))
        if stored is None:
            group = f".{kind.group}" if kind.group else ""
            raise Refusal(404, "NotFound", f'{kind.plural}{group} "{name}" not found')
        return stored

    def matching(self, kind: Kind, selection: Selection) -> tuple[int, list[Stored]]:
        with self.lock:
            objects = self._table(kind).objects
            found = [objects[key] for key in sorted(objects) if selection.match(objects[key])]
            return self.revision, found

    def page(
        self, kind: Kind, selection: Selection, limit: int, token: str
    ) -> tuple[int, list[Stored], str, int]:
        """(version, objects, continue token, how many remain); all pages show the version of the first."""
        with self.lock:
            if token:
                revision, rest = self._resumed(token)
            else:
                revision, rest = self.matching(kind, selection)
            if not limit or len(rest) <= limit:
                return revision, rest, "", 0
            token = base64.urlsafe_b64encode(f"{revision}/{uuid.uuid4()}".encode()).decode()
            self._snapshots[token] = (revision, rest[limit:])
            while len(self._snapshots) > _MOST_SNAPSHOTS:
                self._snapshots.popitem(last=False)
            return revision, rest[:limit], token, len(rest) - limit

    def _resumed(self, token: str) -> tuple[int, list[Stored]]:
        found = self._snapshots.get(token)
        if found is None or found[0] < self.compacted:
            try:
                base64.urlsafe_b64decode(token)
            except (binascii.Error, ValueError):
                raise Refusal(400, "BadRequest", "continue key is not valid") from None
            raise Refusal(410, "Expired", "The provided continue parameter is too old")
        return found

    def changes(self, kind: Kind, since: int) -> list[Change]:
        with self.lock:
            if since < self.compacted:
                raise Refusal(410, "Expired", f"too old resource version: {since} ({self.compacted})")
            history = self._table(kind).history
            return history[bisect.bisect_right(history, since, key=lambda change: change.revision) :]

    # -- writing ----------------------------------------------------------------------------------

    def create(self, kind: Kind, namespace: str, value: Json, *, dry: bool = False) -> Stored:
        with self.lock:
            value = copy.deepcopy(value)
            metadata = self._new_metadata(kind, namespace, value)
            key = (namespace, text(metadata, "name"))
            if key in self._table(kind).objects:
                raise Refusal(409, "AlreadyExists", f'{kind.plural} "{key[1]}" already exists')
            if kind.has_status and not kind.keeps_status:
                value.pop("status", None)
            if kind.generation:
                metadata["generation"] = 1
            self._complete(kind, value)
            self._verify(kind, value, None)
            if kind.kind == "CustomResourceDefinition":
                value["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
            stored = self._store(kind, key, value, dry=dry)
            if kind.kind == "CustomResourceDefinition" and not dry:
                self._define(value)
            if kind.kind == "Node" and not text(value, "spec", "podCIDR") and not dry:
                self._give_pod_cidrs(kind, key)
            return stored

    def update(
        self, kind: Kind, namespace: str, name: str, value: Json, *, subresource: str = "", dry: bool = False
    ) -> Stored:
        """A PUT: the whole object, or with `subresource` status nothing but its status."""
        with self.lock:
            before = self.get(kind, namespace, name)
            old, value = before.value(), copy.deepcopy(value)
            _check_kind(kind, value)
            had, metadata = child(old, "metadata"), child(value, "metadata")
            version, uid = text(metadata, "resourceVersion"), text(metadata, "uid")
            if not version and not kind.blind:
                message = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
                raise Refusal(422, "Invalid", message)
            if version and version != text(had, "resourceVersion"):
                message = "the object has been modified; please apply your changes to the latest version"
                raise Refusal(
                    409, "Conflict", f'Operation cannot be fulfilled on {kind.plural} "{name}": {message}'
                )
            if uid and uid != text(had, "uid"):
                raise Refusal(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
            if text(metadata, "name") not in ("", name):
                raise Refusal(400, "BadRequest", "the name of the object does not match the name on the URL")
            return self._replace(kind, before, old, value, subresource, dry=dry)

    def patch(
        self, kind: Kind, namespace: str, name: str, patch: object, patch_type: str, *,
        subresource: str = "", dry: bool = False,
    ) -> Stored:  # fmt: skip
        with self.lock:
            if patch_type == "apply" and (namespace, name) not in self._table(kind).objects:
                return self.create(kind, namespace, child({"": patch}, ""), dry=dry)
            before = self.get(kind, namespace, name)
            if patch_type == "strategic" and kind.custom:
                message = "the body of the request was in an unknown format - accepted media types include: "
                raise Refusal(415, "UnsupportedMediaType", message + "application/json-patch+json, ...")
            how: dict[str, Callable[[object, object], object]] = {
                "json": json_patched,
                "strategic": strategic,
            }
            try:
                value = child({"": how.get(patch_type, merged)(before.value(), patch)}, "")
            except PatchError as error:
                raise Refusal(422, "Invalid", str(error)) from error
            return self.update(kind, namespace, name, value, subresource=subresource, dry=dry)

    def delete(
        self, kind: Kind, namespace: str, name: str, *,
        uid: str = "", version: str = "", grace: int | None = None, dry: bool = False,
    ) -> Stored:  # fmt: skip
        with self.lock:
            before = self.get(kind, namespace, name)
            value = before.value()
            metadata = child(value, "metadata")
            for what, wanted in (("uid", uid), ("resourceVersion", version)):
                if wanted and wanted != text(metadata, what):
                    message = f"Precondition failed: {what} in precondition: {wanted}, in object meta: "
                    raise Refusal(409, "Conflict", message + text(metadata, what))
            waits = kind.kind == "Pod" and text(value, "spec", "nodeName") and grace != 0
            if not metadata.get("finalizers") and not waits:
                return self._remove(kind, before, dry=dry)
            if text(metadata, "deletionTimestamp"):
                return before
            metadata["deletionTimestamp"] = _now()
            metadata["deletionGracePeriodSeconds"] = (30 if grace is None else grace) if waits else 0
            return self._store(kind, before.key, value, dry=dry)

    def compact(self) -> None:
        """Forget all history: versions before this moment are gone."""
        with self.lock:
            self.compacted = self.revision
            self._snapshots.clear()
            for table in self._tables.values():
                table.history.clear()

    def rewind(self, revision: int) -> None:
        """Be a server whose etcd was restored from an older backup: the same objects, smaller versions."""
        with self.lock:
            self.compact()
            self.revision = self.compacted = revision
            for table in self._tables.values():
                for key, stored in list(table.objects.items()):
                    if stored.revision > revision:
                        value = stored.value()
                        child(value, "metadata")["resourceVersion"] = str(revision)
                        table.objects[key] = replace(
                            stored, revision=revision, data=msgspec.json.encode(value)
                        )

    # -- inside -----------------------------------------------------------------------------------

    def _table(self, kind: Kind) -> _Table:
        return self._tables.setdefault(kind, _Table())

    def _new_metadata(self, kind: Kind, namespace: str, value: Json) -> Json:
        _check_kind(kind, value)
        if kind.namespaced and ("", namespace) not in self._table(self.kind_named("Namespace")).objects:
            raise Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        metadata = dict(child(value, "metadata"))
        value["metadata"] = metadata
        if not text(metadata, "name") and text(metadata, "generateName"):
            metadata["name"] = text(metadata, "generateName") + uuid.uuid4().hex[:5]
        if text(metadata, "resourceVersion"):
            raise Refusal(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if kind.namespaced:
            metadata["namespace"] = namespace
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        for key in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(key, None)
        return metadata

    def _verify(self, kind: Kind, value: Json, before: Json | None) -> None:
        problem = problem_with(kind, value, before) or problem_in(self._schemas.get(kind, {}), value)
        if not problem and self._check is not None:
            problem = self._check(kind, value, before)
        if problem:
            name = text(value, "metadata", "name")
            raise Refusal(422, "Invalid", f'{kind.kind}.{kind.group} "{name}" is invalid: {problem}')

    def _replace(
        self, kind: Kind, before: Stored, old: Json, value: Json, subresource: str, *, dry: bool
    ) -> Stored:
        if subresource == "status":
            value = {**old, "status": value.get("status", {})}
        else:
            if kind.has_status:
                value.pop("status", None)
                value |= {"status": old["status"]} if "status" in old else {}
            fixed = ("uid", "name", "namespace", "creationTimestamp", "deletionTimestamp", "generation",
                     "deletionGracePeriodSeconds")  # fmt: skip
            had = child(old, "metadata")
            kept = {name: had[name] for name in fixed if name in had}
            value["metadata"] = {**child(value, "metadata"), **kept}
            self._complete(kind, value)
        self._verify(kind, value, old)
        metadata = child(value, "metadata")
        metadata["resourceVersion"] = text(old, "metadata", "resourceVersion")
        value |= {"kind": kind.kind, "apiVersion": kind.api_version}
        if value == old:
            return before
        if kind.generation and _spec(value) != _spec(old):
            generation = child(old, "metadata").get("generation")
            metadata["generation"] = (generation if isinstance(generation, int) else 0) + 1
        if text(metadata, "deletionTimestamp") and not metadata.get("finalizers") and kind.kind != "Pod":
            return self._remove(kind, before, dry=dry)
        return self._store(kind, before.key, value, dry=dry)

    def _store(self, kind: Kind, key: Key, value: Json, *, dry: bool) -> Stored:
        revision = self.revision if dry else self.revision + 1
        stored = _stored(kind, key, value, revision)
        if not dry:
            table = self._table(kind)
            before = table.objects.get(key)
            table.objects[key] = stored
            self._record(table, Change(revision, stored, before))
        return stored

    def _remove(self, kind: Kind, before: Stored, *, dry: bool) -> Stored:
        gone = _stored(kind, before.key, before.value(), self.revision + 1)
        if not dry:
            table = self._table(kind)
            del table.objects[before.key]
            if kind.kind == "Node":
                self._allocations.give_back(_pod_cidrs(before.value()))
            self._record(table, Change(gone.revision, None, before, gone))
            if self._collects:
                self._remove_owned(text(gone.value(), "metadata", "uid"))
        return gone

    def _remove_owned(self, uid: str) -> None:
        """As kube-controller-manager's garbage collector does with what has lost its owner."""
        for kind, table in list(self._tables.items()):
            for stored in [one for one in table.objects.values() if one.owners == (uid,)]:
                self._remove(kind, stored, dry=False)

    def _record(self, table: _Table, change: Change) -> None:
        self.revision = change.revision
        table.history.append(change)
        if len(table.history) > _MOST_HISTORY:
            half = table.history[: _MOST_HISTORY // 2]
            self.compacted = max(self.compacted, half[-1].revision)
            del table.history[: len(half)]
        self.on_change()

    def _define(self, definition: Json) -> None:
        """Serve what the definition defines; a kind of podbgp's own is served already and gets a schema."""
        found = defined_kind(definition)
        if found is not None:
            defined, schema = found
            kind = self.kinds.setdefault((defined.group, defined.version, defined.plural), defined)
            self._schemas[kind] = schema

    def _complete(self, kind: Kind, value: Json) -> None:
        """The defaults, and what the API server allocates, of a Service, a Pod and a custom resource."""
        if kind in self._schemas:
            whole = child({"": completed(self._schemas[kind], value)}, "")
            value.clear()
            value.update(whole)
        if kind.kind == "Pod":
            value.setdefault("status", {"phase": "Pending"})
        if kind.kind == "Service":
            self._allocations.complete_service(child(value, "spec"))

    def _give_pod_cidrs(self, kind: Kind, key: Key) -> None:
        """As kube-controller-manager's nodeipam does: a /24 (IPv6: a /64) of each range, in a second step."""
        cidrs = self._allocations.pod_cidrs()
        if not cidrs:
            return  # nodeipam reports CIDRNotAvailable and leaves the Node as it is
        value = self.get(kind, *key).value()
        value["spec"] = {**child(value, "spec"), "podCIDR": cidrs[0], "podCIDRs": cidrs}
        self._store(kind, key, value, dry=False)


def _check_kind(kind: Kind, value: Json) -> None:
    """An object says what it is; of built-in kinds it need not."""
    for what, wanted in (("kind", kind.kind), ("apiVersion", kind.api_version)):
        if text(value, what) != wanted and (kind.custom or text(value, what)):
            raise Refusal(400, "BadRequest", f"{what} {text(value, what)!r} does not match {wanted!r}")


def _stored(kind: Kind, key: Key, value: Json, revision: int) -> Stored:
    metadata = child(value, "metadata")
    metadata["resourceVersion"] = str(revision)
    rest = {name: part for name, part in value.items() if name not in ("kind", "apiVersion")}
    whole = {"kind": kind.kind, "apiVersion": kind.api_version, **rest}
    prefix = msgspec.json.encode({"kind": kind.kind, "apiVersion": kind.api_version})
    labels = {name: str(text) for name, text in child(metadata, "labels").items()}
    found = metadata.get("ownerReferences")
    owners = tuple(text(owner, "uid") for owner in found) if isinstance(found, list) else ()
    data = msgspec.json.encode(whole)
    return Stored(key, revision, data, labels, fields_of(kind, value), len(prefix), owners)


def _spec(value: Json) -> Json:
    return {name: part for name, part in value.items() if name not in ("metadata", "status")}


def _pod_cidrs(node: Json) -> list[str]:
    found = child(node, "spec").get("podCIDRs")
    return [str(cidr) for cidr in found] if isinstance(found, list) else []


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
