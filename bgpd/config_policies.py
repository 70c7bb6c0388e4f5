"""`[[policies]]`: rules for what is taken from peers and told to them, and which peers they are for.

What would do nothing is said here: a rule that rejects and sets, one that goes on and sets nothing, an empty
condition, a name that no policy has, a policy that nobody uses, and a change that has no meaning towards the
peers that it is used for.  The last two are warnings, because one policy may serve several peers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import NamedTuple, TypeVar

from bgpd import config_values as values
from bgpd.config_export import MOST_PREPENDED
from bgpd.config_table import Table
from routes.path import PeerKind
from routes.route_policy import NO_AS_PATH_MATCH as ANY_PATH
from routes.route_policy import (
    Action,
    AsPathMatch,
    RouteMatch,
    RoutePolicy,
    RouteRule,
    RouteSet,
)

T = TypeVar("T")

MOST_POLICIES = 1_000
MOST_RULES = 128
MOST_PREFIXES = 1_000
MOST_NUMBERS = 64
MOST_NAMES = 16
_LONGEST_PATH = 255
_BIGGEST = 4294967295
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

Known = Mapping[str, RoutePolicy]
"""The policies of a file, by name."""


class PolicyNames(NamedTuple):
    """The policies of one peer, or of one range of clients."""

    imports: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()


def read_policies(tables: list[Table]) -> tuple[RoutePolicy, ...]:
    """All policies of a file."""
    policies = [_policy(table) for table in tables]
    first: dict[str, int] = {}
    for at, (table, policy) in enumerate(zip(tables, policies, strict=True)):
        if table.sound("name") and first.setdefault(policy.name, at) != at:
            table.wrong("name", f"is the same as policies[{first[policy.name]}].name")
        if at == MOST_POLICIES:
            table.wrong("name", f"is one too many: there may be {MOST_POLICIES} policies")
            break
    return tuple(policies)


def warn_of_unused(tables: list[Table], policies: Iterable[RoutePolicy], used: Container[str]) -> None:
    """A policy that nobody names does nothing."""
    for table, policy in zip(tables, policies, strict=True):
        if policy.name not in used and table.sound("name"):
            table.doubtful("name", "is used by no import_policies or export_policies")


def read_policy_names(table: Table, known: Known, kind: PeerKind) -> PolicyNames:
    """`import_policies` and `export_policies` of a peer or range."""
    imports = _names(table, "import_policies", known)
    exports = _names(table, "export_policies", known)
    for at, name in enumerate(imports):
        if _sets(known[name], _prepend):
            table.doubtful("import_policies", "sets prepend, which means nothing for what is received", at)
    for at, name in enumerate(exports):
        external = kind is PeerKind.EBGP
        if table.sound("asn") and _sets(known[name], _local_pref if external else _prepend):
            what = "local_pref, which stays inside the AS, and this peer is an eBGP one"
            if not external:
                what = "prepend, which is for eBGP peers, and this one is an iBGP peer"
            table.doubtful("export_policies", f"sets {what}", at)
    return PolicyNames(imports, exports)


def _names(table: Table, key: str, known: Known) -> tuple[str, ...]:
    there = f"there are {', '.join(known)}" if known else "the file has no [[policies]]"

    def parse(value: object) -> str:
        name = values.text(value)
        if name not in known:
            raise values.UnfitError(f"is no policy of this file: {there}")
        return name

    names = table.distinct(key, parse)
    if len(names) > MOST_NAMES:
        table.wrong(key, f"must have at most {MOST_NAMES} policies")
    return names


def _prepend(changes: RouteSet) -> int | None:
    return changes.prepend


def _local_pref(changes: RouteSet) -> int | None:
    return changes.local_pref


def _sets(policy: RoutePolicy, of: Callable[[RouteSet], int | None]) -> bool:
    return any(of(rule.set) is not None for rule in policy.rules)


def _policy(table: Table) -> RoutePolicy:
    default = RoutePolicy("").default.value
    tables = table.tables("rules")
    rules = [_rule(each) for each in tables]
    first: dict[str, int] = {}
    for at, (each, rule) in enumerate(zip(tables, rules, strict=True)):
        if each.sound("name") and first.setdefault(rule.name, at) != at:
            each.wrong("name", f"is the same as rules[{first[rule.name]}].name")
        if at == MOST_RULES:
            each.wrong("name", f"is one too many: a policy may have {MOST_RULES} rules")
            break
    return RoutePolicy(
        name=table.required("name", _name, ""),
        rules=tuple(rules),
        default=Action(table.optional("default", values.choice("accept", "reject"), default)),
    )


def _name(value: object) -> str:
    written = values.text(value)
    if not _NAME.fullmatch(written):
        raise values.UnfitError(
            "must be a name of 1 to 63 letters, digits, dots, hyphens and underscores, the first of them a "
            "letter or digit"
        )
    return written


def _rule(table: Table) -> RouteRule:
    actions = values.choice(*(action.value for action in Action))
    rule = RouteRule(
        name=table.required("name", _name, ""),
        action=Action(table.required("action", actions, Action.ACCEPT.value)),
        match=_match(table.table("match")) if "match" in table else _nothing(table, "match", RouteMatch()),
        set=_set(table.table("set")) if "set" in table else _nothing(table, "set", RouteSet()),
    )
    if not table.sound("action", "match", "set"):
        return rule
    if "match" in table and rule.match == RouteMatch():
        table.wrong("match", "must have a condition; leave it out to match every path")
    if "set" in table and rule.set == RouteSet():
        table.wrong("set", "must change something")
    if rule.action is Action.REJECT and "set" in table:
        table.wrong("set", "does nothing: a rejected path goes nowhere")
    if rule.action is Action.CONTINUE and "set" not in table:
        table.wrong("action", "must have something to set, or the rule does nothing")
    return rule


def _nothing(table: Table, key: str, nothing: T) -> T:
    """A key that is known and absent."""
    table.known.append(key)
    return nothing


def _match(table: Table) -> RouteMatch:
    communities = _listed(table, "communities", values.community)
    return RouteMatch(
        prefixes=_listed(table, "prefixes", values.prefix_range, MOST_PREFIXES),
        as_path=_as_path(table.table("as_path"))
        if "as_path" in table
        else _nothing(table, "as_path", ANY_PATH),
        communities=values.standard(communities),
        large_communities=values.large(communities),
    )


def _as_path(table: Table) -> AsPathMatch:
    length = values.integer(0, _LONGEST_PATH)
    match = AsPathMatch(
        contains=_listed(table, "contains", values.asn),
        originated_by=_listed(table, "originated_by", values.asn),
        neighbor=_listed(table, "neighbor", values.asn),
        min_length=table.optional("min_length", values.maybe(length), None),
        max_length=table.optional("max_length", values.maybe(length), None),
    )
    if (
        match.min_length is not None
        and match.max_length is not None
        and match.min_length > match.max_length
        and table.sound("min_length", "max_length")
    ):
        table.wrong("max_length", f"must be at least min_length ({match.min_length})")
    return match


def _set(table: Table) -> RouteSet:
    number = values.maybe(values.integer(0, _BIGGEST))
    added = _listed(table, "add_communities", values.community)
    removed = _listed(table, "remove_communities", values.community)
    for each in set(added).intersection(removed):
        table.wrong("remove_communities", "removes what add_communities adds", removed.index(each))
    return RouteSet(
        local_pref=table.optional("local_pref", number, None),
        med=table.optional("med", number, None),
        prepend=table.optional("prepend", values.maybe(values.integer(1, MOST_PREPENDED)), None),
        add_communities=values.standard(added),
        add_large_communities=values.large(added),
        remove_communities=values.standard(removed),
        remove_large_communities=values.large(removed),
    )


def _listed(table: Table, key: str, parse: values.Parse[T], most: int = MOST_NUMBERS) -> tuple[T, ...]:
    items = table.distinct(key, parse)
    if len(items) > most:
        table.wrong(key, f"must have at most {most} values")
    if key in table and not items and table.sound(key):
        table.wrong(key, "must not be empty: leave it out instead")
    return items
