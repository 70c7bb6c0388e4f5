"""The agent and a real daemon, from the first OPEN to the last NOTIFICATION.

One story for each daemon, iBGP and eBGP, over IPv4 and over IPv6: announce, change, withdraw, in both
directions and in both families.  Their view is what their own client says; ours is the API, and the
kernel's routes as `ip` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest

from api.text import community
from routes.path import Origin, PeerKind
from routes.peer import SessionState
from routes.policy import DEFAULT_LOCAL_PREF
from routes.prefix import format_address
from routes.view import PathView, Table
from tests.interop.agent import ASN, OWN, PASSWORD_FILE, Agent, config, peer
from tests.interop.conftest import SPEAKERS, MakeAgent, MakeSpeaker
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Announcement, Neighbor, SeenPath, Speaker, family_of, wait_until

THEIRS = {"ipv4": "10.2.0.0/24", "ipv6": "fd00:2::/64"}
SECOND = {"ipv4": "10.11.0.0/24", "ipv6": "fd00:11::/64"}
"""What our agent advertises too, from the middle of the story on."""
ELSEWHERE = {"ipv4": "192.0.2.77", "ipv6": "2001:db8::77"}
"""Another next hop on the link."""
PASSWORD = "sesame"


class Security(NamedTuple):
    password: str = ""
    ttl_security: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of session: the daemon's AS number, and what protects the session."""

    asn: int
    security: dict[str, Security]


KINDS = {
    "ibgp": Kind(ASN, {"ipv4": Security(), "ipv6": Security(PASSWORD)}),
    "ebgp": Kind(4200000001, {"ipv4": Security(PASSWORD, True), "ipv6": Security(PASSWORD, True)}),
}


@dataclass
class Story:
    """Our agent and the daemon, on one link."""

    agent: Agent
    speaker: Speaker
    asn: int
    us: LanHost
    them: LanHost
    session: str
    families: tuple[str, ...]
    peer_text: str
    """How they stand in our file."""

    @property
    def our_address(self) -> str:
        return self.us.address(self.session)

    @property
    def their_address(self) -> str:
        """Also our name for them."""
        return self.them.address(self.session)


CASES = [(daemon, kind, family) for daemon in SPEAKERS for kind in KINDS for family in ("ipv4", "ipv6")]


@pytest.mark.parametrize(("daemon", "kind", "family"), CASES, ids=["-".join(case) for case in CASES])
def test_the_story_of_a_session(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str, kind: str, family: str
) -> None:
    story = begin(make_agent, make_speaker, lan, (daemon, kind, family))
    they_learn_our_prefixes(story)
    we_learn_theirs(story)
    we_follow_their_changes(story)
    they_follow_ours(story)
    if story.speaker.can_refresh:
        they_ask_for_everything_again(story)
    if family == "ipv4":
        we_shut_down_with_a_message(story)
    else:
        they_shut_down_with_a_message(story)


def begin(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], case: tuple[str, str, str]
) -> Story:
    daemon, kind, family = case
    (us, them), (asn, security) = lan, (KINDS[kind].asn, KINDS[kind].security[family])
    families = ("ipv4", "ipv6") if SPEAKERS[daemon].carries_other_family else (family,)
    keys: dict[str, str | int] = {"source_address": us.address(family)}
    if security.password:
        keys["password_file"] = PASSWORD_FILE
    if security.ttl_security:
        keys["ttl_security"] = 1
    neighbor = Neighbor(us.address(family), ASN, them.address(family), families, *security)
    speaker = make_speaker(daemon, them, asn, neighbor)
    peer_text = peer(them.address(family), asn, **keys)
    agent = make_agent(us, config(us, peer_text), security.password)
    story = Story(agent, speaker, asn, us, them, family, families, peer_text)
    speaker.start()
    story.agent.wait_ready()
    status = story.agent.wait_established(story.their_address)
    speaker.wait_established()
    assert status.negotiated is not None
    assert status.negotiated.kind is PeerKind(kind)
    assert status.negotiated.peer_asn == asn
    assert status.negotiated.four_octet
    story.agent.wait_logged("session up", peer=story.their_address)
    return story


def they_learn_our_prefixes(story: Story) -> None:
    for prefix in OWN:
        if family_of(prefix) not in story.families:
            assert story.agent.paths(prefix, Table.ADJ_OUT) == []
            continue
        seen = story.speaker.wait_best(prefix)
        check_seen(story, seen, story.us.address(family_of(prefix)))
        (told,) = story.agent.paths(prefix, Table.ADJ_OUT, story.their_address)
        assert format_address(told.attributes.next_hop) == seen.next_hop


def check_seen(story: Story, seen: SeenPath, next_hop: str) -> None:
    """Our prefix as an agent announces it."""
    internal = story.asn == ASN
    assert seen.next_hop == next_hop
    assert seen.as_path == (() if internal else (ASN,))
    assert seen.origin == "igp"
    assert not seen.med
    assert not seen.communities | seen.large_communities
    if internal:
        assert seen.local_pref == DEFAULT_LOCAL_PREF


def we_learn_theirs(story: Story) -> None:
    story.speaker.announce(
        *(
            Announcement(THEIRS[family], med=5, communities=("65000:1",), large_communities=("65000:1:2",))
            for family in story.families
        )
    )
    for family in story.families:
        path = story.agent.wait_path(THEIRS[family])
        check_path(story, path, family)
        assert path.attributes.med == 5
        assert [community(each) for each in path.attributes.communities] == ["65000:1"]
        assert path.attributes.large_communities == ((65000, 1, 2),)
        route = story.agent.wait_kernel(THEIRS[family], gateway(path))
        assert (route.metric, route.kind) == (20, "unicast")
        (selected,) = story.agent.paths(THEIRS[family], Table.LOC_RIB)
        assert selected.best
        counts = story.agent.counts(story.their_address, family)
        assert (counts.accepted, counts.advertised) == (1, 1)
        assert counts.received >= 1  # to an eBGP peer FRR sends back what it has from it


def check_path(story: Story, path: PathView, family: str) -> None:
    """Their prefix, as it was received."""
    assert path.accepted
    assert path.attributes.origin is Origin.IGP
    assert path.path.source.peer == story.their_address
    assert path.path.source.bgp_id == int.from_bytes(bytes(map(int, story.them.ipv4.split("."))))
    assert format_address(path.attributes.next_hop) == story.them.address(family)
    if story.asn == ASN:
        assert str(path.attributes.as_path) == ""
        assert path.attributes.local_pref == DEFAULT_LOCAL_PREF
    else:
        assert str(path.attributes.as_path) == str(story.asn)
        assert path.attributes.local_pref is None


def gateway(path: PathView) -> str:
    """What the kernel should have: of an IPv6 next hop the link-local half, where there is one (RFC 2545)."""
    return format_address(path.attributes.link_local or path.attributes.next_hop)


def we_follow_their_changes(story: Story) -> None:
    changed = [
        Announcement(THEIRS[family], med=6, communities=("65000:2",), next_hop=ELSEWHERE[family])
        for family in story.families
    ]
    story.speaker.announce(*changed)
    for family in story.families:
        path = story.agent.wait_path(THEIRS[family], lambda view: view.attributes.med == 6)
        assert [community(each) for each in path.attributes.communities] == ["65000:2"]
        assert path.attributes.large_communities == ()
        if not (story.speaker.daemon == "frr" and story.asn != ASN and family != story.session):
            # To an eBGP peer FRR puts itself into what is not of the session's family.
            assert format_address(path.attributes.next_hop) == ELSEWHERE[family]
        story.agent.wait_kernel(THEIRS[family], gateway(path))
    story.speaker.withdraw(*(THEIRS[family] for family in story.families))
    for family in story.families:
        story.agent.wait_gone(THEIRS[family])


def they_follow_ours(story: Story) -> None:
    next_hops = {f"next_hop_{family}": address for family, address in ELSEWHERE.items()}
    both = (*OWN, *SECOND.values())
    story.agent.reload(config(story.us, story.peer_text, advertise=both, agent=next_hops))
    for family in story.families:
        for prefix in (SECOND[family], *(own for own in OWN if family_of(own) == family)):
            seen = story.speaker.wait_best(prefix, lambda path: path.next_hop in ELSEWHERE.values())
            check_seen(story, seen, ELSEWHERE[family])
    story.agent.reload(config(story.us, story.peer_text))
    for family in story.families:
        story.speaker.wait_gone(SECOND[family])
        own = next(prefix for prefix in OWN if family_of(prefix) == family)
        story.speaker.wait_best(own, lambda path: path.next_hop not in ELSEWHERE.values())
    assert story.agent.peer(story.their_address).counters.flaps == 0


def they_ask_for_everything_again(story: Story) -> None:
    before = story.agent.peer(story.their_address).counters.updates_out
    story.speaker.refresh(story.our_address)
    wait_until(
        lambda: story.agent.peer(story.their_address).counters.updates_out >= before + len(story.families),
        5,
        "we announce everything again",
    )
    for prefix in OWN:
        if family_of(prefix) in story.families:
            check_seen(story, story.speaker.wait_best(prefix), story.us.address(family_of(prefix)))
    assert story.agent.peer(story.their_address).counters.flaps == 0


def we_shut_down_with_a_message(story: Story) -> None:
    report = story.agent.client.shutdown(flush=True, message="moving to rack 7")
    assert report.sessions_closed == 1
    wait_until(
        lambda: "moving to rack 7" in story.speaker.shutdown_heard(story.our_address),
        5,
        lambda: f"they heard why: {story.speaker.shutdown_heard(story.our_address)}",
    )
    for prefix in OWN:
        story.speaker.wait_gone(prefix)
    assert story.agent.process.wait() == 0


def they_shut_down_with_a_message(story: Story) -> None:
    story.speaker.announce(*(Announcement(THEIRS[family]) for family in story.families))
    for family in story.families:
        story.agent.wait_kernel(THEIRS[family], gateway(story.agent.wait_path(THEIRS[family])))
    story.speaker.shut_down(story.our_address, "new line card")
    status = story.agent.wait_error(story.their_address, "new line card")
    assert status.last_error is not None
    assert (status.last_error.code, status.last_error.sent) == (6, False)
    assert status.last_error.subcode in (2, 9)  # FRR with graceful restart says it as a hard reset (RFC 8538)
    assert status.state is not SessionState.ESTABLISHED
    for family in story.families:
        story.agent.wait_gone(THEIRS[family], timeout=2)
    down = story.agent.wait_logged("session down", peer=story.their_address, graceful=False)
    assert "Administrative Shutdown (6/2)" in str(down["reason"])
