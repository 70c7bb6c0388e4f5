"""Conditions of a status: what is to be said, and what of it is new.

A condition keeps the time of its last transition for as long as its status stays (meta/v1 Condition); nothing
is written where only the time of looking differs.  Pure: the time comes as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from bgpd.kube.custom_values import Condition

LONGEST_MESSAGE = 1024
"""Of what we write; the API takes 32 times as much, and nobody reads it."""


@dataclass(frozen=True, slots=True)
class Say:
    """A condition as it should be."""

    type: str
    good: bool | None
    """Status True or False; None is Unknown."""
    reason: str
    """One word in CamelCase."""
    message: str = ""

    @property
    def status(self) -> str:
        return "Unknown" if self.good is None else str(self.good)


def merged(
    old: Iterable[Condition], wanted: Iterable[Say], now: datetime, generation: int
) -> tuple[Condition, ...]:
    """All that is wanted, in its order; times of those whose status stays are kept."""
    before = {condition.type: condition for condition in old}
    found = []
    for say in wanted:
        last = before.get(say.type)
        kept = last is not None and last.status == say.status
        moment = last.last_transition if kept and last is not None else now.replace(microsecond=0)
        message = bounded(say.message)
        found.append(Condition(say.type, say.status, say.reason, message, moment, generation))
    return tuple(found)


def bounded(text: str) -> str:
    """A message of a length that can be read, and that the API takes."""
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 4]} ..."


def condition_json(condition: Condition) -> dict[str, object]:
    """A condition as the API has it."""
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message or condition.reason,  # 1.20 takes an empty string for null
        "lastTransitionTime": moment_json(condition.last_transition),
        "observedGeneration": condition.observed_generation,
    }


def moment_json(moment: datetime) -> str:
    """A time as the API writes it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
