"""A BGPPolicy as the core understands it.  Pure, and nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.config_values import Community
from bgpd.kube.custom_values import Action as WrittenAction
from bgpd.kube.custom_values import BgpPolicy, Changes, Match, PolicyRule
from routes.route_policy import (
    Action,
    AsPathMatch,
    PrefixRange,
    RouteMatch,
    RoutePolicy,
    RouteRule,
    RouteSet,
)

_ACTIONS = {
    WrittenAction.ACCEPT: Action.ACCEPT,
    WrittenAction.REJECT: Action.REJECT,
    WrittenAction.CONTINUE: Action.CONTINUE,
}


def route_policy(policy: BgpPolicy) -> RoutePolicy:
    """The policy that paths are judged by."""
    return RoutePolicy(policy.name, tuple(map(_rule, policy.rules)), _ACTIONS[policy.default])


def _rule(rule: PolicyRule) -> RouteRule:
    return RouteRule(rule.name, _ACTIONS[rule.action], _match(rule.match), _changes(rule.changes))


def _match(match: Match) -> RouteMatch:
    return RouteMatch(
        prefixes=tuple(PrefixRange(*each) for each in match.prefixes),
        as_path=AsPathMatch(
            contains=match.contains,
            originated_by=match.originated_by,
            neighbor=match.neighbor,
            min_length=match.min_length or None,
            max_length=match.max_length,
        ),
        communities=standard(match.communities),
        large_communities=large(match.communities),
    )


def _changes(changes: Changes) -> RouteSet:
    return RouteSet(
        local_pref=changes.local_pref,
        med=changes.med,
        prepend=changes.prepend or None,
        add_communities=standard(changes.add_communities),
        add_large_communities=large(changes.add_communities),
        remove_communities=standard(changes.remove_communities),
        remove_large_communities=large(changes.remove_communities),
    )


def standard(communities: Iterable[Community]) -> tuple[int, ...]:
    """Those of RFC 1997."""
    return tuple(each for each in communities if isinstance(each, int))


def large(communities: Iterable[Community]) -> tuple[tuple[int, int, int], ...]:
    """Those of RFC 8092."""
    return tuple(each for each in communities if not isinstance(each, int))
