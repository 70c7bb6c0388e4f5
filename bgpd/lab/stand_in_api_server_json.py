"""JSON of the stand-in API server: reading it without trusting its shape, and the four kinds of patch.

RFC 7386 (merge), RFC 6902 (json), and Kubernetes' strategic merge, in which lists of conditions, addresses,
ports, finalizers and owners are merged by the key that the real API declares for them.  It declares none for
a Node's taints: a patch replaces them all.
"""

from __future__ import annotations

import copy

Json = dict[str, object]

# Of the fields that podbgp or its lab touches: k8s.io/api's patchMergeKey; None: a set of plain values.
_MERGE_KEYS: dict[str, str | None] = {
    "conditions": "type", "addresses": "type", "ports": "port", "containers": "name",
    "ownerReferences": "uid", "finalizers": None, "podCIDRs": None, "volumes": "name",
}  # fmt: skip


class PatchError(ValueError):
    """The patch can't be applied; the text says why."""


def child(value: object, *path: str) -> Json:
    """The object at a path, or an empty one."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def at_path(value: object, *path: str) -> object:
    """Whatever is at a path; None where nothing is."""
    return child(value, *path[:-1]).get(path[-1])


def text(value: object, *path: str) -> str:
    """The string at a path, or an empty one."""
    found = at_path(value, *path)
    return found if isinstance(found, str) else ""


def merged(target: object, patch: object) -> object:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result: Json = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def strategic(target: object, patch: object, field: str = "") -> object:
    """Kubernetes' own: as a merge, but lists that have a merge key merge by it."""
    if isinstance(patch, list) and field in _MERGE_KEYS:
        return _merged_list(target if isinstance(target, list) else [], patch, _MERGE_KEYS[field])
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    result: Json = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name, gone = key.partition("/")[2], value if isinstance(value, list) else []
            kept = result.get(name)
            result[name] = [item for item in kept if item not in gone] if isinstance(kept, list) else []
        elif key.startswith("$setElementOrder/") or key == "$retainKeys":
            continue  # order carries no meaning in the lists above
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, key)
    return result


def _merged_list(target: list[object], patch: list[object], merge_key: str | None) -> list[object]:
    if merge_key is None:
        return [*target, *(item for item in patch if item not in target)]
    result = [dict(item) for item in target if isinstance(item, dict)]
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        result = []
    for item in patch:
        if not isinstance(item, dict) or merge_key not in item:
            continue
        at = next((n for n, had in enumerate(result) if had.get(merge_key) == item[merge_key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(dict(item))
        else:
            result[at] = dict(child({"": strategic(result[at], item)}, ""))
    return list(result)


def json_patched(target: object, operations: object) -> object:
    """RFC 6902."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    result = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict):
            raise PatchError(f"{operation!r} is no operation")
        result = _operated(result, operation)
    return result


def _operated(result: object, operation: Json) -> object:
    kind, path = text(operation, "op"), _pointer(text(operation, "path"))
    if kind in ("move", "copy"):
        source = _pointer(text(operation, "from"))
        value = copy.deepcopy(_at(result, source))
        if kind == "move":
            _remove(result, source)
        return _added(result, path, value)
    if kind == "add":
        return _added(result, path, copy.deepcopy(operation.get("value")))
    if kind == "remove":
        _remove(result, path)
        return result
    found = _at(result, path)
    if kind == "test":
        if found != operation.get("value"):
            raise PatchError(f"test failed at {text(operation, 'path')}")
        return result
    if kind != "replace":
        raise PatchError(f"operation {kind!r} is none of add, remove, replace, move, copy, test")
    if path:
        _remove(result, path)
    return _added(result, path, copy.deepcopy(operation.get("value")))


def _pointer(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise PatchError(f"path {path!r} does not begin with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _at(value: object, path: list[str]) -> object:
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise PatchError(f"nothing at /{'/'.join(path)}")
    return value


def _added(root: object, path: list[str], value: object) -> object:
    if not path:
        return value
    parent, last = _at(root, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list) and (last == "-" or (last.isdigit() and int(last) <= len(parent))):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        raise PatchError(f"nothing can be added at /{'/'.join(path)}")
    return root


def _remove(root: object, path: list[str]) -> None:
    _at(root, path)
    parent = _at(root, path[:-1])
    if isinstance(parent, dict):
        del parent[path[-1]]
    elif isinstance(parent, list):
        del parent[int(path[-1])]
