"""A custom resource as the controller sees it: the value, or what is wrong with it, and what was said of it.

Agents keep the last good value of an object that became invalid; the controller has to say so on the object,
and for that needs its name and its conditions also where the rest can't be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from bgpd.kube import custom_fields as fields
from bgpd.kube import custom_wire as wire
from bgpd.kube.custom_values import Condition
from bgpd.kube.watch import Resource

T = TypeVar("T")

_MOST_CONDITIONS = 16


class _Object(wire.Wire):
    metadata: wire.Meta
    status: msgspec.Raw = msgspec.Raw(b"{}")


_OBJECT = msgspec.json.Decoder(_Object)
_STATUS = msgspec.json.Decoder(wire.Status)


@dataclass(frozen=True, slots=True)
class Reviewed(Generic[T]):
    """One object; `value` is None where `problem` says why."""

    name: str
    uid: str
    generation: int
    value: T | None
    problem: str = ""
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()

    namespace = ""


def reviewed(resource: Resource[T]) -> Resource[Reviewed[T]]:
    """The same resource, of which also invalid objects are delivered."""
    return Resource(resource.path, resource.kind, review(resource.decode))


def review(decode: Callable[[bytes], T]) -> Callable[[bytes], Reviewed[T]]:
    """A decoder that answers for every object that has a name."""

    def read(raw: bytes) -> Reviewed[T]:
        found = _OBJECT.decode(raw)
        meta = found.metadata
        generation, conditions = _status(found.status)
        try:
            value, problem = decode(raw), ""
        except ValueError as error:
            return Reviewed(meta.name, meta.uid, meta.generation, None, str(error), generation, conditions)
        return Reviewed(meta.name, meta.uid, meta.generation, value, problem, generation, conditions)

    return read


def _status(raw: msgspec.Raw) -> tuple[int, tuple[Condition, ...]]:
    """What was said before; nothing where it can't be read, so that it is said again."""
    try:
        status = _STATUS.decode(raw)
        conditions = [_condition(each) for each in status.conditions[:_MOST_CONDITIONS]]
    except ValueError:
        return 0, ()
    return status.observed_generation, tuple(conditions)


def _condition(each: wire.Condition) -> Condition:
    moment = fields.moment(each.last_transition_time)
    return Condition(each.type, each.status, each.reason, each.message, moment, each.observed_generation)
