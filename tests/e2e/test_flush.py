"""`podbgpd flush` on a real kernel: ours goes, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIG = '[speaker]\nasn = 65000\nrouter_id = "192.0.2.1"\n[api]\nlisten = "unix://{folder}/api.sock"\n'
ROUTES = """
ip link add d0 type veth peer name d1
ip link set d1 up
ip link set d0 up
ip address add 192.0.2.1/24 dev d0
ip -6 address add 2001:db8::1/64 dev d0 nodad
ip route add 10.1.0.0/24 via 192.0.2.2 proto 179 metric 20
ip route add unreachable 10.1.1.0/24 proto 179 metric 4278198272
ip -6 route add fd00:1::/64 via 2001:db8::2 proto 179 metric 20
ip -6 route add unreachable fd00:1:1::/64 proto 179 metric 4278198272
ip route add 10.2.0.0/24 via 192.0.2.2 proto 186 metric 20
ip route add 10.2.1.0/24 via 192.0.2.2 proto 179 metric 30
ip route add 10.2.2.0/24 via 192.0.2.2 proto 179 metric 20 table 100
ip route add 10.1.0.0/24 via 192.0.2.3 proto static metric 10
"""


def test_flush_removes_our_routes_and_no_others(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(CONFIG.format(folder=tmp_path))
    flush = f"{sys.executable} -m bgpd flush --config {config}"
    script = "\n".join((ROUTES, flush, "ip -o route show table all", "ip -6 -o route"))
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, _, left = done.stdout.partition("\n")
    assert said == "removed 4 routes of protocol 179 from table 254"
    for survivor in ("10.2.0.0/24", "10.2.1.0/24", "10.2.2.0/24", "10.1.0.0/24 via 192.0.2.3"):
        assert survivor in left
    for ours in ("10.1.0.0/24 via 192.0.2.2", "10.1.1.0/24", "fd00:1", "metric 4278198272"):
        assert ours not in left


def test_a_nodes_packet_filter_goes_as_well_where_only_the_host_has_a_file(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(f'[api]\nlisten = "unix://{tmp_path}/api.sock"\n')
    flush = f"{sys.executable} -m bgpd flush --config {config}"
    lines = ("nft add table inet podbgp", "nft add table inet others", ROUTES, flush, "nft list tables")
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", "\n".join(lines)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "removed 4 routes of protocol 179 from table 254",
        "removed the nftables table inet podbgp",
        "table inet others",
    ]
