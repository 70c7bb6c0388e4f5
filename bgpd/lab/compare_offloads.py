"""Which work a network device takes off the kernel's hands, read and changed as ethtool(8) does it.

Owns the ioctl SIOCETHTOOL on devices of the lab's namespaces (linux/ethtool.h).  A throughput says little
without them: a device that can't cut up tunnelled packets itself makes an overlay several times slower, and
virtual devices have all offloads, real ones some.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable, Mapping

from bgpd.lab import netns
from bgpd.lab.command import LabError

SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO, ETHTOOL_GFEATURES, ETHTOOL_SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
ETH_SS_FEATURES = 4
STRING = 32
MOST_FEATURES = 1_024

TUNNEL = ("tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation")
"""Cutting a large packet up into small ones that each get the tunnel's header."""
PLAIN = (
    "tx-checksum-ip-generic",
    "tx-generic-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp-ecn-segmentation",
    "rx-gro",
)
"""Checksums, cutting up and joining of packets that are not tunnelled."""


def read(namespace: str, device: str, names: Iterable[str] = TUNNEL + PLAIN) -> dict[str, bool]:
    """Which of these are on; one that the kernel does not know is left out."""
    with netns.open_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM) as control:
        known, active = _names(control, device), _active(control, device)
    return {name: bool(active >> known[name] & 1) for name in names if name in known}


def change(namespace: str, device: str, wanted: Mapping[str, bool]) -> None:
    """Turn features on and off; what a device can't change stays."""
    with netns.open_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM) as control:
        known = _names(control, device)
        mask = sum(1 << known[name] for name in wanted if name in known)
        value = sum(1 << known[name] for name, on in wanted.items() if on and name in known)
        blocks = _blocks(len(known))
        words = ((mask >> 32 * at & 0xFFFFFFFF, value >> 32 * at & 0xFFFFFFFF) for at in range(blocks))
        request = struct.pack("=II", ETHTOOL_SFEATURES, blocks)
        _ask(control, device, request + b"".join(struct.pack("=II", *word) for word in words))


def _names(control: socket.socket, device: str) -> dict[str, int]:
    """Each feature's bit."""
    head = struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0)
    (count,) = struct.unpack_from("=I", _ask(control, device, head), 16)
    if not 0 < count <= MOST_FEATURES:
        raise LabError(f"{device} says that it has {count} features")
    head = struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count)
    answer = _ask(control, device, head + bytes(STRING * count))[12:]
    names = (answer[at : at + STRING].rstrip(b"\0").decode("ascii") for at in range(0, len(answer), STRING))
    return {name: bit for bit, name in enumerate(names) if name}


def _active(control: socket.socket, device: str) -> int:
    """The bits of the features that are on; each block of 32 is: available, requested, active, fixed."""
    blocks = _blocks(MOST_FEATURES)
    answer = _ask(control, device, struct.pack("=II", ETHTOOL_GFEATURES, blocks) + bytes(16 * blocks))
    (blocks,) = struct.unpack_from("=I", answer, 4)
    words = (struct.unpack_from("=I", answer, 8 + 16 * at + 8)[0] for at in range(blocks))
    return sum(word << 32 * at for at, word in enumerate(words))


def _blocks(features: int) -> int:
    return (features + 31) // 32


def _ask(control: socket.socket, device: str, request: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(request, len(request))
    ifreq = struct.pack("16sP16x", device.encode("ascii"), ctypes.addressof(buffer))
    try:
        fcntl.ioctl(control, SIOCETHTOOL, ifreq)
    except OSError as error:
        raise LabError(f"offloads of {device}: {error.strerror}") from error
    return buffer.raw
