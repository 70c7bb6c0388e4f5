"""The CNI configuration: what it says for which settings, and how its file is looked after."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bgpd.node.cni import (
    FILE_NAME,
    CniFile,
    PodInterface,
    PodNetwork,
    cni_conflist,
    conflist_text,
    faults,
)
from bgpd.node.errors import HostError
from routes.prefix import Prefix

POD4, POD6 = Prefix.parse("10.244.1.0/24"), Prefix.parse("fd00:10:244:1::/64")
NETWORK = PodNetwork((POD4, POD6), 1500)


def test_by_default_pods_get_a_link_of_their_own_both_families_and_no_translation() -> None:
    assert cni_conflist(NETWORK) == {
        "cniVersion": "0.4.0",
        "name": "podbgp",
        "plugins": [
            {
                "type": "ptp",
                "mtu": 1500,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                },
            },
            {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        ],
    }


def test_only_what_was_asked_for_is_there() -> None:
    (ptp,) = json.loads(conflist_text(PodNetwork((POD4,), 1500, host_ports=False, bandwidth=False)))[
        "plugins"
    ]
    assert ptp["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}], "no route of a family that pods do not have"
    settings = PodNetwork((POD4,), 9000, PodInterface.BRIDGE, False, False, "/run/leases")
    (bridge,) = json.loads(conflist_text(settings))["plugins"]
    assert bridge["ipam"]["dataDir"] == "/run/leases"
    assert "routes" not in bridge["ipam"], (
        "the bridge plugin makes the default routes, and would fail at others"
    )
    assert (bridge["type"], bridge["mtu"], bridge["isDefaultGateway"]) == ("bridge", 9000, True)
    assert (bridge["hairpinMode"], bridge["promiscMode"]) == (True, False)


@pytest.mark.parametrize(
    ("prefixes", "mtu", "said"),
    [
        ((), 1500, "no pod prefix"),
        ((POD4, Prefix.parse("10.244.2.0/24")), 1500, "2 pod prefixes are ipv4"),
        ((Prefix.parse("10.244.1.0/31"),), 1500, "/30 or shorter"),
        ((Prefix.parse("fd00::/127"),), 1500, "/126 or shorter"),
        ((POD4, POD6), 1279, "ipv6 needs 1280"),
        ((POD4,), 70_000, "ipv4 needs 576 to 65535"),
        ((POD4,), 0, "MTU 0"),
    ],
)
def test_what_the_plugins_would_refuse_is_refused_before(
    prefixes: tuple[Prefix, ...], mtu: int, said: str
) -> None:
    (fault,) = faults(PodNetwork(prefixes, mtu))
    assert said in fault
    with pytest.raises(HostError, match=r"MTU|pod prefix"):
        cni_conflist(PodNetwork(prefixes, mtu))


def test_the_file_is_written_once_and_again_only_when_it_differs(tmp_path: Path) -> None:
    file = CniFile(tmp_path / "net.d")
    assert file.write(NETWORK)
    first = file.path.stat()
    assert not file.write(NETWORK)
    assert file.path.stat() == first
    assert file.write(PodNetwork((POD4,), 1500))
    assert file.path.stat().st_ino != first.st_ino, "a reader keeps the whole old file, never half a new one"
    assert [each.name for each in file.folder.iterdir()] == [FILE_NAME]


def test_a_file_left_half_written_by_a_crash_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}.new").write_text('{"cniVersion"')
    (tmp_path / FILE_NAME).write_text("")
    assert CniFile(tmp_path).write(NETWORK)
    assert CniFile(tmp_path).is_ours()
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("text", ['{"name": "cbr0"}', "[]", "no json", "", '"podbgp"', "\xff"])
def test_a_file_of_this_name_that_is_not_ours_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text, encoding="latin-1")
    assert not CniFile(tmp_path).remove()
    assert (tmp_path / FILE_NAME).exists()


def test_ours_is_removed_once(tmp_path: Path) -> None:
    file = CniFile(tmp_path)
    file.write(NETWORK)
    assert file.remove()
    assert not file.remove()


def test_a_configuration_that_comes_before_ours_is_named_with_the_command_that_mends_it(
    tmp_path: Path,
) -> None:
    for name in ("10-flannel.conflist", "05-cilium.conf", "99-loopback.conf", "00-readme.txt", ".0.conf"):
        (tmp_path / name).write_text("{}")
    file = CniFile(tmp_path)
    file.write(NETWORK)
    assert [warning.value for warning in file.rivals()] == [
        str(tmp_path / "05-cilium.conf"),
        str(tmp_path / "10-flannel.conflist"),
    ]
    assert file.rivals()[0].advice == f"rm {tmp_path / '05-cilium.conf'}"
    assert CniFile(tmp_path / "none").rivals() == ()


def test_the_name_of_another_file_can_be_shown_and_pasted_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"00 \xff;reboot.conf")).touch()
    (warning,) = CniFile(tmp_path).rivals()
    assert warning.value == f"{tmp_path}/00 \\xff;reboot.conf"
    assert warning.advice == f"rm '{warning.value}'"


def test_a_folder_that_takes_no_file_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"file/net\.d/10-podbgp\.conflist can't be written: Not a directory"):
        CniFile(tmp_path / "file" / "net.d").write(NETWORK)
