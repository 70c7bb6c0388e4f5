"""Policies that an operator writes: which paths are taken or told, and with which attributes.

A policy is a list of rules that are asked in order, and what holds when none decides.  A rule whose
conditions all hold changes attributes and accepts, rejects, or goes on to the next rule, which sees the
changes.  Several policies stand in a row and each must accept: so they narrow and modify, and none can admit
what a fixed rule or another policy refuses.  There are no regular expressions: what a condition costs is
bounded by its length, whatever a peer sends.

`judge` is the definition.  A hot path asks `compile_policies`, which remembers the outcome for the last
attributes and each set of prefix conditions that hold; a property test holds the two equal.

Pure.  Where prepending and LOCAL_PREF mean something (RFC 4271 sections 5.1.2 and 5.1.5) the export side
knows: here they are only noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple, TypeVar

from routes.path import AsPath, PathAttributes, SegmentKind
from routes.prefix import Prefix

T = TypeVar("T")

MOST_REMEMBERED = 1024
"""Outcomes that are remembered for one attributes object: one for each set of prefix conditions that hold."""


class Action(Enum):
    """What a rule does once its conditions hold."""

    ACCEPT = "accept"
    REJECT = "reject"
    CONTINUE = "continue"
    """Change attributes, and ask the next rule."""


class PrefixRange(NamedTuple):
    """`prefix` and what is more specific, with a length from `ge` to `le`."""

    prefix: Prefix
    ge: int
    le: int

    def holds(self, nlri: Prefix) -> bool:
        """Whether the range has the prefix."""
        return self.ge <= nlri.length <= self.le and self.prefix.contains(nlri)


@dataclass(frozen=True, slots=True)
class AsPathMatch:
    """Conditions on the AS_PATH; what is empty or None is no condition."""

    contains: tuple[int, ...] = ()
    """Any of these AS numbers, anywhere."""
    originated_by: tuple[int, ...] = ()
    """Any of these at the end; a path that ends in an AS_SET has no known origin."""
    neighbor: tuple[int, ...] = ()
    """Any of these at the beginning."""
    min_length: int | None = None
    max_length: int | None = None
    """As the decision process counts: an AS_SET is 1 (RFC 4271 section 9.1.2.2)."""

    def holds(self, as_path: AsPath) -> bool:
        """Whether all conditions hold."""
        if self.contains and not any(as_path.count(asn) for asn in self.contains):
            return False
        if self.originated_by and origin_as(as_path) not in self.originated_by:
            return False
        if self.neighbor and as_path.neighbor_as not in self.neighbor:
            return False
        if self.min_length is not None and as_path.length < self.min_length:
            return False
        return self.max_length is None or as_path.length <= self.max_length


NO_AS_PATH_MATCH = AsPathMatch()


def origin_as(as_path: AsPath) -> int:
    """The AS that the path began in; 0 when it is our own, or not known."""
    last = as_path.segments[-1] if as_path.segments else None
    return last.asns[-1] if last is not None and last.kind is SegmentKind.SEQUENCE and last.asns else 0


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The conditions of a rule, all of which must hold; what is empty is no condition."""

    prefixes: tuple[PrefixRange, ...] = ()
    """Any of these."""
    as_path: AsPathMatch = NO_AS_PATH_MATCH
    communities: tuple[int, ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    """Any of these, or of `communities`."""

    def holds(self, nlri: Prefix, attributes: PathAttributes) -> bool:
        """Whether all conditions hold."""
        if self.prefixes and not any(each.holds(nlri) for each in self.prefixes):
            return False
        if not self.as_path.holds(attributes.as_path):
            return False
        if not self.communities and not self.large_communities:
            return True
        return not (
            set(self.communities).isdisjoint(attributes.communities)
            and set(self.large_communities).isdisjoint(attributes.large_communities)
        )


@dataclass(frozen=True, slots=True)
class RouteSet:
    """What a rule changes; what is None stays as it is."""

    local_pref: int | None = None
    """Told to iBGP peers alone."""
    med: int | None = None
    prepend: int | None = None
    """How often our own AS is prepended in addition; only towards eBGP."""
    add_communities: tuple[int, ...] = ()
    add_large_communities: tuple[tuple[int, int, int], ...] = ()
    remove_communities: tuple[int, ...] = ()
    remove_large_communities: tuple[tuple[int, int, int], ...] = ()

    def applied(self, attributes: PathAttributes) -> PathAttributes:
        """The attributes after the changes, which remove first; the same object when nothing changes."""
        if self.local_pref is not None and self.local_pref != attributes.local_pref:
            attributes = attributes._replace(local_pref=self.local_pref)
        if self.med is not None and self.med != attributes.med:
            attributes = attributes._replace(med=self.med)
        communities = _changed(attributes.communities, self.remove_communities, self.add_communities)
        large = _changed(
            attributes.large_communities, self.remove_large_communities, self.add_large_communities
        )
        if communities != attributes.communities or large != attributes.large_communities:
            attributes = attributes._replace(communities=communities, large_communities=large)
        return attributes


def _changed(present: tuple[T, ...], removed: tuple[T, ...], added: tuple[T, ...]) -> tuple[T, ...]:
    if removed:
        present = tuple(each for each in present if each not in removed)
    return (*present, *(each for each in added if each not in present)) if added else present


NO_CONDITIONS = RouteMatch()
NO_CHANGES = RouteSet()


@dataclass(frozen=True, slots=True)
class RouteRule:
    """One rule of a policy."""

    name: str
    action: Action
    match: RouteMatch = NO_CONDITIONS
    set: RouteSet = NO_CHANGES


@dataclass(frozen=True)
class RoutePolicy:
    """A named list of rules."""

    name: str
    rules: tuple[RouteRule, ...] = ()
    default: Action = Action.REJECT
    """What holds when no rule decides; never CONTINUE."""

    def __hash__(self) -> int:
        """Of the name alone: policies are parts of keys, and may be long."""
        return hash(self.name)

    @cached_property
    def prefix_tests(self) -> tuple[Callable[[Prefix], bool], ...]:
        """A quick test for the prefix condition of each rule that has one, made once for all peers."""
        return tuple(prefix_test(rule.match.prefixes) for rule in self.rules if rule.match.prefixes)


Policies = tuple[RoutePolicy, ...]


class Outcome(NamedTuple):
    """What a row of policies makes of a path."""

    accepted: bool
    attributes: PathAttributes
    """After the changes; the same object when there are none."""
    rule: str
    """The one that decided: `policy NAME rule NAME`, or `policy NAME default`."""
    text: str
    """A sentence for a person, with every rule that had a say."""
    local_pref: int | None = None
    med: int | None = None
    prepend: int | None = None
    """What rules set, for the export side, which knows where it means something."""


def judge(policies: Iterable[RoutePolicy], nlri: Prefix, attributes: PathAttributes) -> Outcome:
    """What a row of policies makes of a path; each must accept."""
    told = Outcome(True, attributes, "", "")
    heard: list[str] = []
    for policy in policies:
        action, rule = policy.default, f"policy {policy.name} default"
        for each in policy.rules:
            if not each.match.holds(nlri, told.attributes):
                continue
            name, changes = f"policy {policy.name} rule {each.name}", each.set
            if each.action is Action.REJECT:
                return told._replace(accepted=False, rule=name, text=f"{name} rejects it")
            heard.append(name)
            told = told._replace(
                attributes=changes.applied(told.attributes),
                local_pref=told.local_pref if changes.local_pref is None else changes.local_pref,
                med=told.med if changes.med is None else changes.med,
                prepend=told.prepend if changes.prepend is None else changes.prepend,
            )
            if each.action is Action.ACCEPT:
                action, rule = each.action, name
                break
        if action is Action.REJECT:
            text = f"no rule of policy {policy.name} accepts it, and its default is to reject"
            return told._replace(accepted=False, rule=rule, text=text)
        if not heard or heard[-1] != rule:
            heard.append(rule)
        told = told._replace(rule=rule)
    return told._replace(text=", ".join(heard))


def prefix_test(ranges: Iterable[PrefixRange]) -> Callable[[Prefix], bool]:
    """Whether any of the ranges has a prefix, for a price that grows with their kinds, not their number."""
    kinds: dict[tuple[int, int, int, int], set[int]] = {}
    for prefix, ge, le in ranges:
        size = len(prefix.address)
        network = int.from_bytes(prefix.address, "big") >> (size * 8 - prefix.length)
        kinds.setdefault((size, size * 8 - prefix.length, max(ge, prefix.length), le), set()).add(network)
    tests = [(*kind, networks) for kind, networks in kinds.items()]

    def holds(nlri: Prefix) -> bool:
        address, length = nlri
        size, value = len(address), int.from_bytes(address, "big")
        return any(
            size == its_size and ge <= length <= le and value >> shift in networks
            for its_size, shift, ge, le, networks in tests
        )

    return holds


def compile_policies(
    policies: Sequence[RoutePolicy], finish: Callable[[Outcome], T]
) -> Callable[[Prefix, PathAttributes], T]:
    """`finish(judge(policies, ...))`, remembered.

    Of a prefix the outcome depends on which prefix conditions hold, and on nothing else.  Outcomes are
    remembered for the last attributes object, so that a decoder which shares equal ones, or an UPDATE split
    in many, has each judged once, and equal outcomes are one object.
    """
    tests = [test for policy in policies for test in policy.prefix_tests]
    last: PathAttributes | None = None
    known: dict[int, T] = {}

    def outcome(nlri: Prefix, attributes: PathAttributes) -> T:
        nonlocal last
        if attributes is not last:
            last = attributes
            known.clear()
        holding = 0
        for test in tests:
            holding = holding << 1 | test(nlri)
        found = known.get(holding)
        if found is None and holding not in known:
            if len(known) >= MOST_REMEMBERED:
                known.clear()
            found = known[holding] = finish(judge(policies, nlri, attributes))
        return found  # type: ignore[return-value]  # None only where `finish` gave it

    return outcome
