"""What two OPENs mean together, and what NOTIFICATIONs say to a person."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bgpd.bgp.message import Notification, Open
from bgpd.bgp.negotiate import Endpoints, agree, offer, refused
from bgpd.bgp.notifications import Cease, Code, cease, describe, hard_reset, unwrapped
from bgpd.config import PeerConfig, SpeakerConfig
from routes.path import PeerKind, PeerName
from routes.peer import Capabilities, GracefulRestart, Negotiated
from routes.prefix import Family, parse_address

V4, V6 = frozenset({Family.IPV4}), frozenset({Family.IPV6})
BOTH = V4 | V6
US, PEER = parse_address("192.0.2.11"), parse_address("192.0.2.1")
SPEAKER = SpeakerConfig(asn=65000, router_id=11)
CONFIG = PeerConfig(PeerName("192.0.2.1"), PEER, asn=65001, kind=PeerKind.EBGP, add_path=True)
FULL = Capabilities(
    families=BOTH,
    four_octet_asn=65001,
    route_refresh=True,
    enhanced_route_refresh=True,
    extended_message=True,
    extended_next_hop=V4,
    add_path_send=BOTH,
    add_path_receive=BOTH,
    graceful_restart=GracefulRestart(60, families=((Family.IPV4, True),)),
)


def ours(config: PeerConfig = CONFIG, speaker: SpeakerConfig = SPEAKER) -> Open:
    return offer(config, speaker, restarting=False, forwarding=frozenset(), plain=False)


def negotiated(
    theirs: Capabilities, config: PeerConfig = CONFIG, speaker: SpeakerConfig = SPEAKER
) -> Negotiated:
    mine, other = ours(config, speaker), Open(65001, 30, 1, theirs)
    assert refused(config, mine, other) is None
    return agree(config, mine, other, Endpoints(US, 1, PEER, 179))


def test_with_a_full_peer_everything_that_we_offer_is_agreed() -> None:
    session = negotiated(FULL)
    assert session.families == BOTH
    assert session.hold_time == 30
    assert (session.four_octet, session.extended_message) == (True, True)
    assert (session.route_refresh, session.enhanced_route_refresh) == (True, True)
    assert session.extended_next_hop == V4
    assert session.add_path_receive == BOTH
    assert session.add_path_send == frozenset()
    assert session.graceful_restart == FULL.graceful_restart


def test_a_bare_open_is_ipv4_alone() -> None:
    session = negotiated(Capabilities())
    assert session.families == V4
    assert session.four_octet is False
    assert session.graceful_restart is None
    assert session.extended_next_hop == session.add_path_receive == frozenset()


@pytest.mark.parametrize(
    ("config", "speaker", "theirs", "field", "value"),
    [
        (replace(CONFIG, add_path=False), SPEAKER, FULL, "add_path_receive", frozenset()),
        (CONFIG, SPEAKER, replace(FULL, add_path_send=frozenset()), "add_path_receive", frozenset()),
        (CONFIG, SPEAKER, replace(FULL, families=V6), "add_path_receive", V6),
        (CONFIG, SPEAKER, replace(FULL, families=V6), "extended_next_hop", frozenset()),
        (replace(CONFIG, extended_next_hop=False), SPEAKER, FULL, "extended_next_hop", frozenset()),
        (replace(CONFIG, families=(Family.IPV6,)), SPEAKER, FULL, "families", V6),
        (replace(CONFIG, graceful_restart=False), SPEAKER, FULL, "graceful_restart", None),
        (CONFIG, replace(SPEAKER, graceful_restart=False), FULL, "graceful_restart", None),
        (CONFIG, SPEAKER, replace(FULL, extended_message=False), "extended_message", False),
        (replace(CONFIG, hold_time=0), SPEAKER, FULL, "hold_time", 0),
    ],
)
def test_only_what_both_sides_offer_is_agreed(
    config: PeerConfig, speaker: SpeakerConfig, theirs: Capabilities, field: str, value: object
) -> None:
    assert getattr(negotiated(theirs, config, speaker), field) == value


@pytest.mark.parametrize(
    ("notification", "text"),
    [
        (Notification(2, 2), "OPEN Message Error/Bad Peer AS (2/2)"),
        (Notification(4), "Hold Timer Expired (4/0)"),
        (Notification(99, 7), "unknown code/unknown subcode (99/7)"),
        (
            cease(Cease.ADMIN_SHUTDOWN, "new kernel"),
            'Cease/Administrative Shutdown (6/2): "new kernel"',
        ),
        (
            hard_reset(cease(Cease.ADMIN_SHUTDOWN, "x")),
            'Cease/Administrative Shutdown (6/2), as a hard reset: "x"',
        ),
        (Notification(6, 9), "Cease/Hard Reset (6/9)"),
        (
            Notification(6, 2, b"\x09a\nb\x1b[31m\xff"),
            'Cease/Administrative Shutdown (6/2): "a b [31m\ufffd"',
        ),
        (Notification(6, 2, b"\xff"), "Cease/Administrative Shutdown (6/2)"),
        (Notification(6, 4, b"\xffshort"), 'Cease/Administrative Reset (6/4): "short"'),
    ],
)
def test_a_notification_is_a_sentence_and_never_raw_text(notification: Notification, text: str) -> None:
    assert describe(notification) == text
    assert text.isprintable()


def test_a_long_shutdown_text_is_cut_between_characters() -> None:
    notification = cease(Cease.ADMIN_SHUTDOWN, "ü" * 200)
    assert notification.data[0] == len(notification.data) - 1 == 254
    assert notification.data[1:].decode() == "ü" * 127


def test_a_hard_reset_carries_the_notification_that_it_wraps() -> None:
    inner = Notification(Code.CEASE, Cease.MAX_PREFIXES, b"\0\1\1\0\0\0\5")
    assert unwrapped(hard_reset(inner)) == inner
