"""What may change while the daemon runs, and what may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bgpd.config import Config, FibConfig, PeerConfig, SpeakerConfig
from bgpd.errors import ConfigError
from bgpd.reload import plan_reload
from routes.path import PeerKind, PeerName
from routes.prefix import parse_address


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
