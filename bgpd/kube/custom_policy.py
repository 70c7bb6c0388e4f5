"""BGPPolicy: rules on what is accepted and announced, with their matches and changes."""

from __future__ import annotations

from bgpd import config_values as values
from bgpd.config_export import MOST_PREPENDED
from bgpd.config_values import Community
from bgpd.kube import custom_fields as fields
from bgpd.kube import custom_shared as shared
from bgpd.kube import custom_wire as wire
from bgpd.kube.custom_fields import Place
from bgpd.kube.custom_values import BgpPolicy
from routes.route_policy import (
    NO_CHANGES,
    NO_CONDITIONS,
    Action,
    AsPathMatch,
    PrefixRange,
    RouteMatch,
    RoutePolicy,
    RouteRule,
    RouteSet,
)

_MOST_RULES = 128
_MOST_PREFIXES = 128
_MOST_NUMBERS = 64
_MOST_COMMUNITIES = 32
_LONGEST_PATH = 255
_ACTIONS = {"Accept": Action.ACCEPT, "Reject": Action.REJECT, "Continue": Action.CONTINUE}
_DEFAULTS = ("Accept", "Reject")


def decode_policy(raw: bytes) -> BgpPolicy:
    form = shared.read(raw, wire.POLICY, "BGPPolicy")
    at, spec = shared.place("BGPPolicy", form.metadata), form.spec
    at.count("rules", spec.rules, _MOST_RULES)
    rules = tuple(_rule(at.inside(f"rules[{number}]"), rule) for number, rule in enumerate(spec.rules))
    at.each("rules", [rule.name for rule in rules], values.text, _MOST_RULES)
    return BgpPolicy(
        name=at.name,
        uid=form.metadata.uid,
        generation=form.metadata.generation,
        policy=RoutePolicy(
            at.name, rules, _ACTIONS[at.one("default", spec.default, values.choice(*_DEFAULTS))]
        ),
        status=shared.status_of(at, form.status),
    )


def _rule(at: Place, written: wire.Rule) -> RouteRule:
    action = _ACTIONS[at.one("action", written.action, values.choice(*_ACTIONS))]
    if action is Action.REJECT and written.set is not None:
        at.wrong("action", written.action, "has nothing to set: a rejected path goes nowhere")
    if action is Action.CONTINUE and written.set is None:
        at.wrong("action", written.action, "must set something, or the rule does nothing")
    return RouteRule(
        name=at.one("name", written.name, fields.namespace_name),
        action=action,
        match=NO_CONDITIONS if written.match is None else _match(at.inside("match"), written.match),
        set=NO_CHANGES if written.set is None else _set(at.inside("set"), written.set),
    )


def _match(at: Place, written: wire.Match) -> RouteMatch:
    if written == wire.Match():
        at.wrong("", {}, "must have a condition; leave match out to match every path")
    path = wire.AsPath() if written.as_path is None else written.as_path
    inner = at.inside("asPath")
    if written.as_path == wire.AsPath():
        at.wrong("asPath", {}, "must have a condition")
    shortest = inner.maybe("minLength", path.min_length, values.integer(0, _LONGEST_PATH)) or 0
    longest = inner.maybe("maxLength", path.max_length, values.integer(0, _LONGEST_PATH))
    if longest is not None and shortest > longest:
        inner.wrong("minLength", shortest, f"must not be above maxLength, {longest}")
    prefixes = _ranges(at, written.prefixes)
    as_path = AsPathMatch(
        contains=inner.maybe_each("contains", path.contains, values.asn, _MOST_NUMBERS),
        originated_by=inner.maybe_each("originatedBy", path.originated_by, values.asn, _MOST_NUMBERS),
        neighbor=inner.maybe_each("neighbor", path.neighbor, values.asn, _MOST_NUMBERS),
        min_length=shortest or None,
        max_length=longest,
    )
    communities = _communities(at, "communities", written.communities)
    return RouteMatch(prefixes, as_path, values.standard(communities), values.large(communities))


def _ranges(at: Place, written: list[wire.PrefixRange] | None) -> tuple[PrefixRange, ...]:
    if written is None:
        return ()
    at.count("prefixes", written, _MOST_PREFIXES, 1)
    return tuple(_range(at.inside(f"prefixes[{number}]"), each) for number, each in enumerate(written))


def _range(at: Place, written: wire.PrefixRange) -> PrefixRange:
    """Without `ge` and `le` the prefix alone, with `ge` alone everything from there on."""
    prefix = at.one("prefix", written.prefix, fields.prefix)
    longest = len(prefix.address) * 8
    ge = at.maybe("ge", written.ge, values.integer(prefix.length, longest))
    low = prefix.length if ge is None else ge
    le = at.maybe("le", written.le, values.integer(low, longest))
    if le is None:
        le = prefix.length if ge is None else longest
    return PrefixRange(prefix, low, le)


def _set(at: Place, written: wire.Set) -> RouteSet:
    if written == wire.Set():
        at.wrong("", {}, "must change something")
    number = values.integer(0, shared.BIGGEST)
    local_pref = at.maybe("localPref", written.local_pref, number)
    med = at.maybe("med", written.med, number)
    prepend = at.maybe("prepend", written.prepend, values.integer(1, MOST_PREPENDED))
    added = _communities(at, "addCommunities", written.add_communities)
    removed = _communities(at, "removeCommunities", written.remove_communities)
    return RouteSet(
        local_pref=local_pref,
        med=med,
        prepend=prepend,
        add_communities=values.standard(added),
        add_large_communities=values.large(added),
        remove_communities=values.standard(removed),
        remove_large_communities=values.large(removed),
    )


def _communities(at: Place, field: str, written: list[str] | None) -> tuple[Community, ...]:
    return at.maybe_each(field, written, shared.community, _MOST_COMMUNITIES)
