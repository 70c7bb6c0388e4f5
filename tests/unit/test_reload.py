"""What may change while the daemon runs, and what may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bgpd.config import ClientRange, Config, FibConfig, PeerConfig, ReflectorConfig, SpeakerConfig
from bgpd.errors import ConfigError
from bgpd.reload import plan_reload
from routes.path import PeerKind, PeerName
from routes.prefix import Prefix, parse_address
from routes.route_policy import RoutePolicy


def peer(text: str, hold_time: int = 90) -> PeerConfig:
    name, address = PeerName(text), parse_address(text)
    return PeerConfig(name=name, address=address, asn=65000, kind=PeerKind.IBGP, hold_time=hold_time)


A, B = peer("192.0.2.1"), peer("192.0.2.2")
OLD = Config(path="agent.toml", speaker=SpeakerConfig(65000, 1), peers=(A, B))


def test_only_what_changed_is_touched() -> None:
    changed = peer("192.0.2.2", hold_time=30)
    added = peer("192.0.2.3")
    plan = plan_reload(OLD, replace(OLD, peers=(changed, added)))
    assert plan.removed == (A.name,)
    assert plan.added == (added,)
    assert plan.changed == (changed,)


def test_the_same_file_means_nothing_to_do() -> None:
    plan = plan_reload(OLD, replace(OLD))
    assert (plan.removed, plan.added, plan.changed) == ((), (), ())


@pytest.mark.parametrize(
    ("new", "key"),
    [
        (replace(OLD, speaker=SpeakerConfig(65001, 1)), "speaker.asn"),
        (replace(OLD, speaker=SpeakerConfig(65000, 2)), "speaker.router_id"),
        (replace(OLD, fib=FibConfig(table=100)), "fib.table"),
        (replace(OLD, api_listen="unix:///run/other.sock"), "api.listen"),
    ],
)
def test_who_we_are_needs_a_restart(new: Config, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        plan_reload(OLD, new)


def test_soft_fib_settings_change_live() -> None:
    assert plan_reload(OLD, replace(OLD, fib=FibConfig(multipath=2, hold_time=1.0))).changed == ()


NODES = ClientRange(Prefix.parse("192.0.2.0/24"), 65000)
REFLECTOR = replace(OLD, reflector=ReflectorConfig(1, (NODES,)))


@pytest.mark.parametrize(
    "new",
    [
        ReflectorConfig(1, ()),
        ReflectorConfig(1, (replace(NODES, max_sessions=3),)),
        ReflectorConfig(1, (NODES,), aggregates=(Prefix.parse("10.244.0.0/16"),)),
        ReflectorConfig(1, (NODES,), deferral_time=5.0),
        ReflectorConfig(1, (replace(NODES, members=frozenset((A.address,))),)),
    ],
)
def test_ranges_and_aggregates_change_live_and_touch_no_peer(new: ReflectorConfig) -> None:
    plan = plan_reload(REFLECTOR, replace(REFLECTOR, reflector=new))
    assert (plan.removed, plan.added, plan.changed) == ((), (), ())


@pytest.mark.parametrize(
    ("new", "key"),
    [
        (ReflectorConfig(2, (NODES,)), "reflector.cluster_id: can't change"),
        (ReflectorConfig(1, (NODES,), state_file=""), "reflector.state_file: can't change"),
        (ReflectorConfig(2, (), state_file=""), "reflector.cluster_id, reflector.state_file: can't change"),
    ],
)
def test_for_whom_it_reflects_needs_a_restart(new: ReflectorConfig, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        plan_reload(REFLECTOR, replace(REFLECTOR, reflector=new))


def test_a_daemon_keeps_its_role() -> None:
    with pytest.raises(ConfigError, match=r"has \[reflector\], and this daemon runs the agent role"):
        plan_reload(OLD, REFLECTOR)
    with pytest.raises(ConfigError, match=r"has no \[reflector\], and this daemon runs the reflector role"):
        plan_reload(REFLECTOR, OLD)


def test_policies_change_live_and_touch_no_peer_but_those_that_name_others() -> None:
    policies = (RoutePolicy("p"), RoutePolicy("q"))
    plan = plan_reload(OLD, replace(OLD, policies=policies))
    assert (plan.removed, plan.added, plan.changed) == ((), (), ())
    named = replace(A, export_policies=("p",))
    assert plan_reload(OLD, replace(OLD, policies=policies, peers=(named, B))).changed == (named,)


def test_a_policy_that_is_not_there_is_refused_as_a_whole() -> None:
    new = replace(OLD, peers=(replace(A, import_policies=("gone",)), B))
    with pytest.raises(ConfigError, match="there is no policy 'gone'"):
        plan_reload(OLD, new)
    clients = ReflectorConfig(1, (replace(NODES, export_policies=("gone",)),))
    with pytest.raises(ConfigError, match="there is no policy 'gone'"):
        plan_reload(REFLECTOR, replace(REFLECTOR, reflector=clients))
