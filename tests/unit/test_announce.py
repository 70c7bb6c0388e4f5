"""What an agent tells its peers, read back from the bytes that it sends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import process_time
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bgpd.announce import OwnPrefixes
from bgpd.bgp.codec import Decoder
from bgpd.bgp.message import EndOfRib, Malformed, RefreshKind, RouteRefresh, Update
from routes.adj_rib_out import judge_own
from routes.own_next_hop import ConfiguredNextHops
from routes.own_path import OwnPath
from routes.path import GRACEFUL_SHUTDOWN, PathAttributes, PeerKind, PeerName
from routes.peer import Negotiated
from routes.prefix import Address, Family, Prefix, format_address, parse_address
from routes.route_policy import Action, PrefixRange, RouteMatch, RoutePolicy, RouteRule, RouteSet

LINK = 2
POD, POD6, MORE = (
    Prefix.parse("10.244.1.0/24"),
    Prefix.parse("fd00:10:244:1::/64"),
    Prefix.parse("10.9.0.0/24"),
)
TOR = PeerName("192.0.2.2")
BOTH = frozenset(Family)
SESSION = Negotiated(
    PeerKind.EBGP, 65001, 64601, 2, parse_address("192.0.2.1"), parse_address("192.0.2.2"), LINK, 90, BOTH
)
IBGP = replace(SESSION, kind=PeerKind.IBGP, local_asn=65000, peer_asn=65000)


class Node:
    """Where addresses are; one link."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    def interface_of(self, address: Address) -> int:
        return LINK if format_address(address) in self.addresses else 0

    def addresses_on(self, ifindex: int) -> tuple[Address, ...]:
        return tuple(map(parse_address, self.addresses)) if ifindex == LINK else ()


@dataclass
class Peer:
    """A session, and what was sent over it."""

    negotiated: Negotiated | None = SESSION
    name: PeerName = TOR
    sent: bytearray = field(default_factory=bytearray)

    def send(self, data: bytes) -> None:
        self.sent += data

    def told(self) -> list[object]:
        """What it reads since the last time, each in a word or two."""
        assert self.negotiated is not None
        decoder = Decoder()
        # What is read is what we sent: so the peer's numbers are ours, and its link-local addresses too.
        decoder.negotiated = replace(
            self.negotiated, peer_asn=self.negotiated.local_asn, local_asn=self.negotiated.peer_asn
        )
        messages = decoder.feed(bytes(self.sent))
        self.sent.clear()
        return [said for message in messages for said in _words(message)]


class Announce(NamedTuple):
    prefix: str
    next_hop: str


class Withdraw(NamedTuple):
    prefix: str


def _words(message: object) -> list[object]:
    assert not isinstance(message, Malformed), message
    if isinstance(message, Update):
        assert not message.error
        hop = format_address(message.attributes.next_hop) if message.attributes is not None else ""
        withdrawn: list[object] = [Withdraw(str(nlri)) for nlri in message.withdrawn]
        return withdrawn + [Announce(str(nlri), hop) for nlri in message.announced]
    return [message]


def own(*prefixes: Prefix) -> list[OwnPath]:
    return [OwnPath(nlri) for nlri in prefixes]


END4, END6 = EndOfRib(Family.IPV4), EndOfRib(Family.IPV6)
OURS = [Announce(str(POD), "192.0.2.1"), Announce(str(POD6), "2001:db8::1")]


def agent(*addresses: str, configured: ConfiguredNextHops | None = None) -> tuple[OwnPrefixes, Node]:
    node = Node(*(addresses or ("192.0.2.1", "2001:db8::1")))
    out = OwnPrefixes(node, configured or ConfiguredNextHops())
    out.originate(own(POD, POD6))
    return out, node


def up(out: OwnPrefixes, negotiated: Negotiated = SESSION, name: PeerName = TOR) -> Peer:
    peer = Peer(negotiated, name)
    out.session_up(peer, negotiated)
    return peer


def test_a_new_session_gets_everything_and_end_of_rib_at_once() -> None:
    out, _ = agent()
    assert up(out).told() == [OURS[0], END4, OURS[1], END6]


@pytest.mark.parametrize(
    ("negotiated", "local_pref", "as_path"), [(SESSION, None, "65001"), (IBGP, 100, "")], ids=["eBGP", "iBGP"]
)
def test_attributes_are_those_of_the_kind_of_peer(
    negotiated: Negotiated, local_pref: int | None, as_path: str
) -> None:
    out, _ = agent()
    peer = up(out, negotiated)
    decoder = Decoder()
    decoder.negotiated = replace(negotiated, peer_asn=negotiated.local_asn, local_asn=negotiated.peer_asn)
    update = next(m for m in decoder.feed(bytes(peer.sent)) if isinstance(m, Update))
    assert update.attributes is not None
    assert (update.attributes.local_pref, str(update.attributes.as_path)) == (local_pref, as_path)


def test_without_prefixes_there_is_still_an_end_of_rib() -> None:
    out, _ = agent()
    out.originate([])
    assert up(out).told() == [END4, END6]


def test_only_negotiated_families_are_spoken_of() -> None:
    out, _ = agent()
    peer = up(out, replace(SESSION, families=frozenset({Family.IPV6})))
    assert peer.told() == [OURS[1], END6]
    out.originate([])
    assert peer.told() == [Withdraw(str(POD6))]


def test_a_prefix_more_and_a_prefix_less() -> None:
    out, _ = agent()
    advertised: list[Prefix] = []
    out.on_advertised = advertised.extend
    peers = [up(out), up(out, IBGP, PeerName("192.0.2.3"))]
    for peer in peers:
        peer.told()
    advertised.clear()
    out.originate(own(MORE, POD6))
    for peer in peers:
        assert peer.told() == [Withdraw(str(POD)), Announce(str(MORE), "192.0.2.1")]
    assert set(advertised) == {POD, MORE}
    out.originate(own(MORE, POD6))
    assert [peer.told() for peer in peers] == [[], []]


def test_a_peer_that_is_gone_is_told_nothing() -> None:
    out, _ = agent()
    peer = up(out)
    out.session_down(TOR)
    peer.sent.clear()
    out.originate(own(MORE))
    out.addresses_changed()
    out.refresh(TOR, Family.IPV4)
    assert peer.sent == b""
    assert (out.advertised(TOR, Family.IPV4), out.not_announced(TOR), out.targets()) == (0, (), [])


def test_a_session_that_is_closing_is_told_nothing() -> None:
    """Between the loss of the session and the word of it there is a moment without a negotiation."""
    out, _ = agent()
    peer = up(out)
    peer.told()
    peer.negotiated = None
    out.originate(own(MORE))
    assert peer.sent == b""


@pytest.mark.parametrize("enhanced", [True, False])
def test_a_refresh_gets_one_family_again_with_marks_where_they_are_known(enhanced: bool) -> None:
    out, _ = agent()
    peer = up(out, replace(SESSION, route_refresh=True, enhanced_route_refresh=enhanced))
    peer.told()
    out.refresh(TOR, Family.IPV6)
    marks: list[object] = [
        RouteRefresh(Family.IPV6, kind) for kind in (RefreshKind.BEGIN, RefreshKind.END) if enhanced
    ]
    assert peer.told() == [*marks[:1], OURS[1], *marks[1:]]


def test_a_refresh_of_a_family_that_was_not_negotiated_is_not_answered() -> None:
    out, _ = agent()
    peer = up(out, replace(SESSION, families=frozenset({Family.IPV4})))
    peer.told()
    out.refresh(TOR, Family.IPV6)
    assert peer.sent == b""


# -- next hops --


def test_a_family_without_a_next_hop_is_not_announced_and_the_reason_is_told() -> None:
    out, node = agent("192.0.2.1")
    with capture_logs() as logs:
        peer = up(out)
    assert peer.told() == [OURS[0], END4, END6]
    ((family, reason),) = out.not_announced(TOR)
    assert family is Family.IPV6
    assert reason.startswith("the link of 192.0.2.1 has no ipv6 address: give the link one, or set")
    assert [line["event"] for line in logs] == ["family not announced"]
    assert (out.advertised(TOR, Family.IPV4), out.advertised(TOR, Family.IPV6)) == (1, 0)
    node.addresses.append("2001:db8::1")
    out.addresses_changed()
    assert peer.told() == [OURS[1]]
    assert (out.advertised(TOR, Family.IPV6), out.not_announced(TOR)) == (1, ())


def test_a_next_hop_that_goes_withdraws_its_family() -> None:
    out, node = agent()
    peer = up(out)
    peer.told()
    node.addresses.remove("2001:db8::1")
    out.addresses_changed()
    assert peer.told() == [Withdraw(str(POD6))]
    assert out.advertised(TOR, Family.IPV6) == 0
    out.addresses_changed()
    assert peer.told() == []


def test_another_next_hop_is_announced_over_the_old_one() -> None:
    out, node = agent()
    peer = up(out)
    peer.told()
    node.addresses[1] = "2001:db8::7"
    out.addresses_changed()
    assert peer.told() == [Announce(str(POD6), "2001:db8::7")]


def test_a_configured_next_hop_wins_and_changes_at_a_reload() -> None:
    out, _ = agent(configured=ConfiguredNextHops(ipv4=parse_address("198.51.100.1")))
    peer = up(out)
    assert Announce(str(POD), "198.51.100.1") in peer.told()
    out.configured = ConfiguredNextHops(ipv4=parse_address("198.51.100.2"))
    out.originate(own(POD, POD6, MORE))
    assert peer.told() == [Announce(str(POD), "198.51.100.2"), Announce(str(MORE), "198.51.100.2")]


def test_ipv4_goes_over_ipv6_where_the_peer_can_take_it() -> None:
    """RFC 8950: there is no IPv4 address on the link at all."""
    session = replace(
        SESSION, local_address=parse_address("2001:db8::1"), peer_address=parse_address("2001:db8::2")
    )
    out, _ = agent("2001:db8::1")
    extended = replace(session, extended_next_hop=frozenset({Family.IPV4}))
    assert up(out, extended).told() == [Announce(str(POD), "2001:db8::1"), END4, OURS[1], END6]
    assert up(out, session, PeerName("2001:db8::3")).told() == [END4, OURS[1], END6]


def test_targets_say_with_which_next_hop_each_peer_was_told() -> None:
    out, _ = agent("192.0.2.1")
    up(out)
    (target,) = out.targets()
    assert (target.peer, target.session) == (TOR, SESSION)
    assert target.next_hops[Family.IPV4].address == parse_address("192.0.2.1")
    assert target.next_hops[Family.IPV6].address is None


# -- attributes, policies, drain --


def announced(peer: Peer) -> dict[Prefix, PathAttributes]:
    """What the peer is told now."""
    held: dict[Prefix, PathAttributes] = {}
    hold(peer, held)
    return held


def hold(peer: Peer, held: dict[Prefix, PathAttributes]) -> None:
    """Have the peer believe what it is told."""
    assert peer.negotiated is not None
    decoder = Decoder()
    decoder.negotiated = replace(
        peer.negotiated, peer_asn=peer.negotiated.local_asn, local_asn=peer.negotiated.peer_asn
    )
    for message in decoder.feed(bytes(peer.sent)):
        if isinstance(message, Update):
            for nlri in message.withdrawn:
                del held[nlri]
            if message.attributes is not None:
                held.update(dict.fromkeys(message.announced, message.attributes))
    peer.sent.clear()


MARKED = OwnPath(
    MORE, unreachable=False, communities=(7,), large_communities=((1, 2, 3),), local_pref=50, med=9
)


def test_paths_have_the_attributes_that_they_were_given() -> None:
    out, _ = agent()
    out.originate([OwnPath(POD), MARKED])
    inside, outside = announced(up(out, IBGP)), announced(up(out, name=PeerName("192.0.2.3")))
    assert (inside[POD].local_pref, inside[POD].med, inside[POD].communities) == (100, None, ())
    told = inside[MORE]
    assert (told.local_pref, told.med, told.communities, told.large_communities) == (
        50,
        9,
        (7,),
        ((1, 2, 3),),
    )
    assert (outside[MORE].local_pref, outside[MORE].med, outside[MORE].communities) == (None, 9, (7,))


def test_other_attributes_announce_a_path_again_and_no_other() -> None:
    out, _ = agent()
    out.originate([OwnPath(POD), MARKED])
    peer = up(out, IBGP)
    announced(peer)
    out.originate([MARKED._replace(med=10), OwnPath(POD)])
    assert {nlri: told.med for nlri, told in announced(peer).items()} == {MORE: 10}


def test_paths_that_are_alike_share_an_update_and_withdrawals_go_first() -> None:
    out, _ = agent()
    peer = up(out, IBGP)
    peer.told()
    many = [Prefix.parse(f"10.8.{n}.0/24") for n in range(100)]
    out.originate([*own(*many), OwnPath(POD6, med=1)])
    messages = peer.sent.count(b"\xff" * 16)
    first, *rest = peer.told()
    assert (first, messages) == (Withdraw(str(POD)), 3)
    assert len(rest) == 101


def test_a_drain_makes_everything_the_last_choice_until_it_is_taken_back() -> None:
    out, _ = agent()
    out.originate([OwnPath(POD), MARKED])
    inside, outside = up(out, IBGP), up(out, name=PeerName("192.0.2.3"))
    before = announced(inside), announced(outside)
    out.drain(True)
    for peer, preference in ((inside, 0), (outside, None)):
        told = announced(peer)
        assert {nlri: path.communities for nlri, path in told.items()} == {
            POD: (GRACEFUL_SHUTDOWN,),
            MORE: (7, GRACEFUL_SHUTDOWN),
        }
        assert {path.local_pref for path in told.values()} == {preference}
    late = up(out, IBGP, PeerName("192.0.2.4"))
    assert announced(late)[POD].communities == (GRACEFUL_SHUTDOWN,)
    out.drain(True)
    assert not inside.sent
    out.drain(False)
    assert (announced(inside), announced(outside)) == before


TO_TOR = (
    RoutePolicy(
        "to-tor",
        (
            RouteRule("no-v6", Action.REJECT, RouteMatch(prefixes=(PrefixRange(POD6, 64, 64),))),
            RouteRule("rest", Action.ACCEPT, set=RouteSet(prepend=2, local_pref=300, add_communities=(9,))),
        ),
    ),
)


def test_a_policy_narrows_and_modifies_what_its_peer_is_told() -> None:
    out, _ = agent()
    out.policies = {TOR: TO_TOR, PeerName("192.0.2.3"): TO_TOR}
    peer, inside, other = up(out), up(out, IBGP, PeerName("192.0.2.3")), up(out, name=PeerName("192.0.2.4"))
    (told,) = announced(peer).values()
    assert (str(told.as_path), told.local_pref, told.communities) == ("65001 65001 65001", None, (9,))
    (told,) = announced(inside).values()
    assert (str(told.as_path), told.local_pref) == ("", 300)
    assert len(announced(other)) == 2
    assert (out.advertised(TOR, Family.IPV4), out.advertised(TOR, Family.IPV6)) == (1, 0)


def test_a_policy_that_comes_and_goes_withdraws_and_announces() -> None:
    out, _ = agent()
    peer = up(out)
    peer.told()
    out.policies = {TOR: TO_TOR}
    out.addresses_changed()
    assert peer.told() == [Withdraw(str(POD6)), OURS[0]]
    assert out.advertised(TOR, Family.IPV6) == 0
    out.policies = {}
    out.addresses_changed()
    assert peer.told() == OURS
    assert out.advertised(TOR, Family.IPV6) == 1


def test_one_service_among_thousands_costs_little() -> None:
    """A reconcile may cost 5 ms of CPU; four peers."""
    out, _ = agent()
    services = [
        OwnPath(
            Prefix(Address(bytes((10, 96, n >> 8, n & 255))), 32), unreachable=False, communities=(n % 5,)
        )
        for n in range(10_000)
    ]
    out.originate(services)
    peers = [up(out, IBGP, PeerName(f"192.0.2.{n}")) for n in range(4)]
    took = []
    for med in range(5):
        for peer in peers:
            peer.sent.clear()
        services[77] = services[77]._replace(med=med)
        began = process_time()
        out.originate(services)
        took.append(process_time() - began)
        assert [list(announced(peer)) for peer in peers] == [[services[77].nlri]] * 4
    assert min(took) < 0.02, took


POLICIES = [(), TO_TOR, (RoutePolicy("nothing"),)]
OWN_PATHS = [OwnPath(POD), OwnPath(POD, med=1), MARKED, MARKED._replace(local_pref=None), OwnPath(POD6)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("own"), st.lists(st.sampled_from(OWN_PATHS), unique_by=lambda own: own.nlri)),
            st.tuples(st.just("drain"), st.booleans()),
            st.tuples(st.just("policies"), st.sampled_from(POLICIES)),
            st.tuples(st.just("addresses"), st.sampled_from([["192.0.2.1"], ["192.0.2.1", "2001:db8::1"]])),
            st.tuples(st.just("refresh"), st.sampled_from(Family)),
        ),
        max_size=12,
    ),
    st.sampled_from([SESSION, IBGP]),
)
def test_whatever_changes_a_peer_holds_what_the_rules_say(
    steps: list[tuple[str, object]], negotiated: Negotiated
) -> None:
    with capture_logs():
        _live(steps, negotiated)


def _live(steps: list[tuple[str, object]], negotiated: Negotiated) -> None:
    out, node = agent()
    peer = up(out, negotiated)
    held: dict[Prefix, PathAttributes] = {}
    for name, value in [("drain", False), *steps]:  # communities go over the wire in order, as they are here
        match name, value:
            case "own", list():
                out.originate(value)
            case "drain", bool():
                out.drain(value)
            case "policies", tuple():
                out.policies = {TOR: value}
                out.addresses_changed()
            case "addresses", list():
                node.addresses = value
                out.addresses_changed()
            case "refresh", Family():
                out.refresh(TOR, value)
        hold(peer, held)
        (target,) = out.targets()
        assert held == {
            own.nlri: verdict.attributes
            for own in out.paths
            if (verdict := judge_own(own.nlri, own.attributes, target)).accepted
        }
        for family in Family:
            assert out.advertised(TOR, family) == sum(nlri.family is family for nlri in held)
