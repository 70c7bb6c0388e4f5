"""What the recorders read out of `ping` and `ip monitor`, and the bytes of a ping."""

from __future__ import annotations

import socket

import pytest

from bgpd.lab.command import LabError
from bgpd.lab.icmp import ECHO_REPLY, ECHO_REQUEST, Echo, echo_request, parse_echo
from bgpd.lab.probe import read_events, read_ping

PING = """\
PING 10.244.2.2 (10.244.2.2) 56(84) bytes of data.
[100.00] 64 bytes from 10.244.2.2: icmp_seq=1 ttl=62 time=0.1 ms
[100.02] no answer yet for icmp_seq=2
[100.03] no answer yet for icmp_seq=3
[100.03] 64 bytes from 10.244.2.2: icmp_seq=3 ttl=62 time=9.1 ms
From 10.244.1.1 icmp_seq=4 Destination Net Unreachable
[100.05] no answer yet for icmp_seq=4
[100.05] 64 bytes from 10.244.2.2: icmp_seq=5 ttl=62 time=0.1 ms

--- 10.244.2.2 ping statistics ---
6 packets transmitted, 3 received, 50% packet loss, time 50ms
"""


def test_a_late_answer_is_an_answer_and_the_last_probe_is_not_judged() -> None:
    report = read_ping(PING, interval=0.01)
    assert (report.sent, report.answered) == (6, 3)
    assert [(lost.sequence, round(lost.at, 3)) for lost in report.lost] == [(2, 100.01), (4, 100.04)]
    assert report.lost_between(100.02, 101) == (report.lost[1],)


def test_sequence_numbers_go_on_after_their_16_bits() -> None:
    seen = (1, 30000, 60000, 65535, 65536)
    lines = [f"[{n / 100}] 64 bytes from 10.0.0.1: icmp_seq={n % 65536} ttl=62" for n in seen]
    lines += ["[655.38] no answer yet for icmp_seq=1", "65538 packets transmitted, 65536 received"]
    report = read_ping("\n".join(lines), interval=0.01)
    assert [lost.sequence for lost in report.lost] == [65537]


def test_a_ping_that_died_is_no_success() -> None:
    with pytest.raises(LabError, match="did not end"):
        read_ping("[100.00] 64 bytes from 10.244.2.2: icmp_seq=1 ttl=62 time=0.1 ms\n", interval=0.01)


def test_deletes_are_told_from_changes_and_next_hops_belong_to_their_route() -> None:
    events = read_events(
        "[2026-01-01T00:00:00.1] blackhole 198.18.255.255 table 9179 \n"
        "[2026-01-01T00:00:00.2] 10.244.2.0/24 proto 179 metric 20 \n"
        "\tnexthop via 100.64.1.2 dev tor1 weight 1 \n"
        "\tnexthop via 100.64.2.2 dev tor2 weight 1 \n"
        "[2026-01-01T00:00:00.3] Deleted 10.244.3.0/24 via 192.0.2.13 dev fabric0 proto 179 \n"
    )
    assert [event.deleted for event in events] == [False, True]
    assert events[0].text.count("nexthop") == 2
    assert events[1].text.startswith("10.244.3.0/24")


@pytest.mark.parametrize("version", [4, 6])
def test_an_echo_request_reads_as_what_it_was_made_of(version: int) -> None:
    header = bytes([0x45]) + bytes(19) if version == 4 else b""
    packet = header + echo_request(version, 77, 5)
    assert parse_echo(version, packet) == Echo(ECHO_REQUEST[version], 77, 5)
    assert parse_echo(version, packet[:-1]) is None
    assert parse_echo(version, b"") is None


def test_the_kernel_answers_our_echo_request() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(2)
        raw.sendto(echo_request(4, 4711, 1), ("127.0.0.1", 0))
        for _ in range(100):
            if parse_echo(4, raw.recv(1500)) == Echo(ECHO_REPLY[4], 4711, 1):
                return
    pytest.fail("the checksum is wrong: the kernel gave no answer")
