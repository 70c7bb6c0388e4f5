"""What people see of a reflector: bounded, whatever the number of peers."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from api import render, render_peer, text
from routes.duplicates import Duplicate
from routes.path import PeerName
from routes.peer import Counters, PeerStatus, Reflection, SessionState
from routes.prefix import Family, Prefix
from routes.view import Convergence, DaemonStatus, Explanation, GroupView, Told
from tests.fakes.fake_daemon_view import path_view, peer_status

NLRI = Prefix.parse("10.244.1.0/24")
GROUP = "ipv4 client"


def shown(parts: list[RenderableType]) -> str:
    console = Console(file=io.StringIO(), width=1000, markup=False, highlight=False)
    for part in parts:
        console.print(part, end="\n" if isinstance(part, str) else "")
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def client(number: int, state: SessionState = SessionState.ESTABLISHED, lag: int = 0) -> PeerStatus:
    groups = ((Family.IPV4, GROUP),) if state is SessionState.ESTABLISHED else ()
    return replace(
        peer_status(f"10.0.{number >> 8}.{number & 255}", state),
        reflection=Reflection("client", groups, lag),
        counters=Counters(messages_in=3, messages_out=4, bytes_in=900, bytes_out=123_456),
    )


def test_a_reflectors_peers_have_role_lag_and_group() -> None:
    out = shown(render_peer.peers([client(1, lag=7)], 1_700_000_000.0))
    assert "ROLE" in out
    assert all(part in out for part in (" client ", " 7 ", " 3/4 ", "900 B/123 kB", GROUP))
    assert "ROLE" not in shown(render_peer.peers([peer_status("10.0.0.1")], 1_700_000_000.0))


def test_of_thousands_those_are_shown_that_need_a_look() -> None:
    peers = [client(number) for number in range(5000)]
    peers[4000], peers[4500] = client(4000, SessionState.IDLE), client(4500, lag=9)
    lines = shown(render_peer.peers(peers, 1_700_000_000.0)).splitlines()
    assert len(lines) == 102
    assert lines[1].startswith("10.0.15.160 ")
    assert lines[2].startswith("10.0.17.148 ")
    assert "4999 of 5000 peers established" in lines[-1]
    assert len(shown(render_peer.peers(peers, 1_700_000_000.0, everyone=True)).splitlines()) == 5001


def test_an_explanation_names_a_few_and_counts_the_rest() -> None:
    told = (
        Told(GROUP, PeerName("192.0.2.1"), 4999, "", (PeerName("192.0.2.1"),)),
        Told("ipv4 external", PeerName("192.0.2.1"), 0, "10.244.0.0/16 is announced in its place"),
        Told("ipv4 external", PeerName("local"), 2),
    )
    names = tuple(PeerName(f"10.0.0.{n}") for n in range(200))
    value = Explanation(
        NLRI, NLRI, None, "It is.", (path_view(str(NLRI)),), (), names, (), told, reflected=True
    )
    out = shown(render.explanation(value))
    assert "10.0.0.9 and 190 more" in out
    assert "10.0.0.10" not in out
    assert "4999 peers told the path from 192.0.2.1, not 192.0.2.1 itself" in out
    assert "not told the path from 192.0.2.1: 10.244.0.0/16 is announced in its place" in out
    assert "2 peers told the aggregate" in out
    assert "kernel" not in out
    assert "next-hop" not in out


def test_status_shows_groups_and_duplicates() -> None:
    value = DaemonStatus(
        "1", "reflector", 65000, 1, 0.0, Convergence(True, 1.0),
        groups=(GroupView(GROUP, Family.IPV4, "client", 5000, 4999, 345_678, 3, 12),),
        duplicates=11,
        first_duplicates=(Duplicate(NLRI, PeerName("a"), PeerName("b")),),
    )  # fmt: skip
    out = shown(render.status(value, 10.0))
    assert [part for part in (GROUP, "5000", "4999", "346 kB", "12") if part not in out] == []
    assert "11 prefixes are announced by more than one client" in out
    assert "10.244.1.0/24  a and b" in out


def test_routes_told_to_a_group_or_not_to_a_peer() -> None:
    group = replace(path_view(str(NLRI)), group=GROUP, members=4999)
    mine = replace(path_view(str(NLRI), best=False, reason="it is its own"), to=PeerName("x"), group=GROUP)
    out = shown(render.paths([group, mine]))
    assert "ipv4 client: 4999 peers" in out
    assert "it is its own" in out
    assert not any(line.startswith((">", "x ")) for line in out.splitlines())


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (17_400_000, "17 MB"), (5_000_000_000_000, "5000 GB")],
)
def test_sizes(count: int, words: str) -> None:
    assert text.size(count) == words
