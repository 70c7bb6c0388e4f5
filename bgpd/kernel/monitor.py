"""Notices what others change in the kernel: our entries, links, addresses, and routes that we resolve by.

Owns one raw netlink socket that is subscribed to multicast groups, and turns notifications into events.
It must never be used for commands.  A filter in the kernel (cBPF) hides what our command socket changed,
known by its port id, and routes of tables that nobody here looks at; so a bulk install of ours costs no
notification, and foreign churn in other tables costs nothing.

Two things happen unseen.  The kernel drops notifications when the socket is full (ENOBUFS); the socket
survives.  And IPv4 routes go without a notification when their link goes down, when it loses its last
address, when their preferred source goes, or when their next-hop object goes, which losing the carrier
does.  A link that is up again when somebody looks makes no difference.  The event for all of them is
`Overrun`, and the answer is to dump again.
"""

from __future__ import annotations

import ctypes
import socket
from dataclasses import dataclass
from struct import Struct
from typing import Self

from bgpd.errors import KernelError
from bgpd.kernel import rtnetlink as nl
from bgpd.kernel.command_socket import grow_receive_buffer
from bgpd.kernel.dumps import IFADDRMSG, IFINFOMSG
from bgpd.kernel.route_reader import InUse, ObjectMap, Ownership, Place, RouteReader
from routes.fib import FibEntry
from routes.prefix import Prefix

RECEIVE_BUFFER = 32 << 20
READ_SIZE = 1 << 16
READS_PER_CALL = 512
"""Notifications that one `read` takes at most, so that an event loop stays responsive."""

GROUPS = (
    nl.RTNLGRP_LINK,
    nl.RTNLGRP_IPV4_IFADDR,
    nl.RTNLGRP_IPV6_IFADDR,
    nl.RTNLGRP_IPV4_ROUTE,
    nl.RTNLGRP_IPV6_ROUTE,
    nl.RTNLGRP_NEXTHOP,
)


@dataclass(frozen=True, slots=True)
class EntryChanged:
    """Somebody else changed what is in a place (table and metric) of ours.  See `Fib.observed`."""

    nlri: Prefix
    metric: int
    entry: FibEntry | None
    """What is there now; None: it was removed."""
    protocol: int
    gone: FibEntry | None
    """What a removal took."""


@dataclass(frozen=True, slots=True)
class LinksChanged:
    """Links came, went, or changed."""


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """Addresses of this node came or went."""


@dataclass(frozen=True, slots=True)
class ForeignRoutesChanged:
    """Routes came or went that next hops may be resolved by."""


@dataclass(frozen=True, slots=True)
class Overrun:
    """Entries of ours may have changed unseen: read them again."""

    reason: str


KernelEvent = EntryChanged | LinksChanged | AddressesChanged | ForeignRoutesChanged | Overrun

LINKS = frozenset((nl.RTM_NEWLINK, nl.RTM_DELLINK))
ADDRESSES = frozenset((nl.RTM_NEWADDR, nl.RTM_DELADDR))
OBJECTS = frozenset((nl.RTM_NEWNEXTHOP, nl.RTM_DELNEXTHOP))
KIND = Struct("=4xH")


class Monitor:
    """A socket that reports what others change.  Not for several threads at a time."""

    def __init__(self, ownership: Ownership, objects: ObjectMap, in_use: InUse, hidden_port_id: int) -> None:
        self._objects = objects
        self._in_use = in_use
        self._reader = RouteReader(ownership, objects)
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
            )
            attach_filter(self._socket, notification_filter(hidden_port_id, ownership.table))
            grow_receive_buffer(self._socket, RECEIVE_BUFFER)
            self._socket.bind((0, 0))
            for group in GROUPS:
                self._join(group)
        except OSError as error:
            raise KernelError(f"no netlink monitor: {error.strerror}") from error

    def _join(self, group: int) -> None:
        try:
            self._socket.setsockopt(nl.SOL_NETLINK, nl.NETLINK_ADD_MEMBERSHIP, group)
        except OSError:
            if group != nl.RTNLGRP_NEXTHOP:  # kernels before 5.3 have no next-hop objects either
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor to wait on; it is readable when `read` has something to say."""
        return self._socket.fileno()

    def read(self) -> list[KernelEvent]:
        """What happened since the last call, in order; never blocks.

        Changes of links, addresses, foreign routes and overruns are said once each, at the end.
        """
        events: list[KernelEvent] = []
        once: dict[KernelEvent, None] = {}
        for _ in range(READS_PER_CALL):
            try:
                data = self._socket.recv(READ_SIZE)
            except BlockingIOError:
                break
            except OSError as error:
                once[Overrun(f"notifications were lost: {error.strerror}")] = None
                continue
            self._take(data, events, once)
        events.extend(once)
        return events

    def _take(self, data: bytes, events: list[KernelEvent], once: dict[KernelEvent, None]) -> None:
        kind = KIND.unpack_from(data)[0]
        if kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE):
            self._take_routes(data, events, once)
        elif kind in LINKS:
            self._take_link(data, kind, once)
        elif kind in ADDRESSES:
            once[AddressesChanged()] = None
            self._take_address(data, kind, once)
        elif kind in OBJECTS:
            self._take_object(data, once)

    def _take_routes(self, data: bytes, events: list[KernelEvent], once: dict[KernelEvent, None]) -> None:
        for kind, nlri, shape in self._reader.read(data):
            if shape.place in (Place.OURS, Place.IN_OUR_PLACE):
                added = kind == nl.RTM_NEWROUTE
                entry, gone = (shape.entry, None) if added else (None, shape.entry)
                events.append(EntryChanged(nlri, shape.metric, entry, shape.protocol, gone))
            if shape.place in (Place.FOREIGN, Place.IN_OUR_PLACE):
                once[ForeignRoutesChanged()] = None

    def _take_link(self, data: bytes, kind: int, once: dict[KernelEvent, None]) -> None:
        family, _, ifindex, flags, _ = IFINFOMSG.unpack_from(data, nl.HEADER_SIZE)
        if family == nl.AF_BRIDGE:
            return
        once[LinksChanged()] = None
        working = kind == nl.RTM_NEWLINK and flags & nl.IFF_UP and flags & nl.IFF_LOWER_UP
        if not working and ifindex in self._in_use.links:
            once[Overrun(f"link {ifindex} went down, and entries with it")] = None

    def _take_address(self, data: bytes, kind: int, once: dict[KernelEvent, None]) -> None:
        _, _, _, _, ifindex = IFADDRMSG.unpack_from(data, nl.HEADER_SIZE)
        if kind == nl.RTM_NEWADDR:
            return
        start = nl.HEADER_SIZE + IFADDRMSG.size
        values = {data[begin:end] for _, begin, end in nl.attributes(data, start, len(data))}
        if ifindex in self._in_use.links or not values.isdisjoint(self._in_use.sources):
            once[Overrun(f"link {ifindex} lost an address, and maybe entries with it")] = None

    def _take_object(self, data: bytes, once: dict[KernelEvent, None]) -> None:
        for message in nl.messages(data):
            for key, begin, _ in nl.attributes(data, message.start + 8, message.end):
                if key == nl.NHA_ID and nl.u32(data, begin) in self._objects.ours:
                    once[Overrun("next-hop objects of ours were changed, and routes with them")] = None


# The filter: classic BPF over one notification, whose first bytes are its nlmsghdr.  Loads are in network
# order, so what the kernel writes in host order is compared with swapped constants.

LD_WORD, LD_HALF, LD_BYTE, JEQ, RET = 0x20, 0x28, 0x30, 0x15, 0x06
ACCEPT, DROP = 0xFFFF_FFFF, 0
SO_ATTACH_FILTER = 26
INSTRUCTION = Struct("=HBBI")
PROGRAM = Struct("@HP")


def notification_filter(hidden_port_id: int, table: int) -> bytes:
    """Drop what the port id changed, and routes outside main and our table."""
    table_byte = table if table < 256 else nl.RT_TABLE_COMPAT
    program = (
        (LD_WORD, 0, 0, 12),  # nlmsg_pid
        (JEQ, 8, 0, socket.htonl(hidden_port_id)),
        (LD_HALF, 0, 0, 4),  # nlmsg_type
        (JEQ, 1, 0, socket.htons(nl.RTM_NEWROUTE)),
        (JEQ, 0, 4, socket.htons(nl.RTM_DELROUTE)),
        (LD_BYTE, 0, 0, 20),  # rtm_table
        (JEQ, 2, 0, nl.RT_TABLE_MAIN),
        (JEQ, 1, 0, table_byte),
        (RET, 0, 0, DROP),
        (RET, 0, 0, ACCEPT),
        (RET, 0, 0, DROP),
    )
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Let the kernel run a cBPF program over what would be queued on the socket."""
    buffer = ctypes.create_string_buffer(program, len(program))
    count = len(program) // INSTRUCTION.size
    option = PROGRAM.pack(count, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
