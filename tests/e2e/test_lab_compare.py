"""`podbgpd lab --compare overlay`: real traffic over both ways, and the wire says which was which."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys

import pytest

from bgpd.lab import netns, workspace
from bgpd.lab.capture import ETH_P_ALL
from bgpd.lab.command import run
from bgpd.lab.compare_offloads import PLAIN, TUNNEL
from bgpd.lab.compare_overlay import Offloads, Overlay, Way
from bgpd.lab.topology import Topology
from tests.e2e.conftest import MakeLab

MEASURES = (
    "roundTripMedianMicroseconds",
    "roundTripP99Microseconds",
    "tcpOneStreamGigabitsPerSecond",
    "tcpManyStreamsGigabitsPerSecond",
    "udpSmallKilopacketsPerSecond",
)


def test_the_command_measures_both_ways_and_leaves_nothing() -> None:
    argv = [
        sys.executable,
        "-m",
        "bgpd",
        "lab",
        "--compare",
        "overlay",
        "--duration",
        "4",
        "--output",
        "json",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ways"]["native"] == {"podMtuBytes": 1500, "plainPings": 2, "vxlanPackets": 0}
    assert found["ways"]["overlay"]["podMtuBytes"] == 1450
    assert found["ways"]["overlay"]["plainPings"] == 0
    assert found["ways"]["overlay"]["vxlanPackets"] >= 2
    assert [each["offloads"] for each in found["settings"]] == ["all", "no tunnel offload", "none"]
    for setting in found["settings"]:
        for way in ("native", "overlay"):
            assert all(setting[way][measure] > 0 for measure in MEASURES), (setting["offloads"], way)
            assert len(setting[way]["runs"]) == found["runs"]
    every, no_tunnel, none = (setting["on"] for setting in found["settings"])
    assert set(TUNNEL) <= set(every["uplink"])
    assert set(no_tunnel["uplink"]) == set(every["uplink"]) - set(TUNNEL)
    assert not any(none.values())
    (name,) = re.findall(r"podbgp (lab-\w+):", done.stderr)
    assert name not in workspace.labs()
    assert netns.existing(name) == [], "the lab is removed with everything in it"


def outer_headers(namespace: str, lab: Topology) -> set[tuple[str, int]]:
    """Source and UDP port (0: none) of the outermost headers on the fabric, while the pods exchange pings."""
    one, two = lab.plan.nodes
    with netns.open_socket(
        namespace, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)
    ) as packets:
        packets.setblocking(False)
        target = str(two.pods[0].addresses[0])
        run(netns.in_namespace(one.pods[0].namespace, ["ping", "-n", "-c3", "-i0.01", "-W2", target]))
        seen: set[tuple[str, int]] = set()
        while True:
            try:
                packet, (_, protocol, *_) = packets.recvfrom(128)
            except BlockingIOError:
                return seen
            if protocol == 0x0800 and packet[9] in (socket.IPPROTO_UDP, socket.IPPROTO_ICMP):
                port = struct.unpack_from("!H", packet, 22)[0] if packet[9] == socket.IPPROTO_UDP else 0
                seen.add((socket.inet_ntoa(packet[12:16]), port))


def test_the_wire_shows_which_way_packets_take_and_turning_back_restores_it(make_lab: MakeLab) -> None:
    lab = make_lab()
    fabric = lab.plan.switch_namespace
    pods = {(str(node.pods[0].addresses[0]), 0) for node in lab.plan.nodes}
    nodes = {(str(node.addresses[0]), 4789) for node in lab.plan.nodes}
    overlay = Overlay(lab.plan)
    overlay.build()
    for way, wanted in ((Way.NATIVE, pods), (Way.OVERLAY, nodes), (Way.NATIVE, pods)):
        overlay.take(way)
        assert outer_headers(fabric, lab) == wanted


@pytest.mark.parametrize("offloads", list(Offloads))
def test_offloads_are_as_ethtool_would_show_them_and_come_back(make_lab: MakeLab, offloads: Offloads) -> None:
    lab = make_lab(agents=False)
    overlay = Overlay(lab.plan)
    overlay.build()
    before = overlay.offloads()
    assert overlay.offload(offloads)
    assert not overlay.offload(offloads)
    on = overlay.offloads()["uplink"]
    assert any(name in on for name in TUNNEL) is (offloads is Offloads.ALL)
    assert any(name in on for name in PLAIN) is (offloads is not Offloads.NONE)
    overlay.offload(Offloads.ALL)
    assert overlay.offloads() == before
