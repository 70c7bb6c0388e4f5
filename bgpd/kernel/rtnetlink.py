"""The rtnetlink wire format, as far as it is read here: numbers, headers, attributes.

Owns the kernel's constants and the walk through a buffer of messages.  It must never open a socket.
Reading is done on raw bytes because a parser that makes dictionaries takes a hundred times as long; what
is written comes from pyroute2's encoders (`messages.py`).  See rtnetlink(7) and linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from bgpd.errors import KernelError
from routes.fib import Failure

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEXTHOP, RTM_DELNEXTHOP, RTM_GETNEXTHOP = 104, 105, 106

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK = 1, 10

RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 1, 5, 7
RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_NEXTHOP = 9, 11, 32

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, RTA_VIA, RTA_PREF, RTA_NH_ID = 9, 12, 15, 18, 20, 30
NHA_ID, NHA_GROUP, NHA_OIF, NHA_GATEWAY = 1, 2, 5, 6
IFLA_IFNAME, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 3, 29, 8
IFA_ADDRESS, IFA_LOCAL = 1, 2

RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT = 1, 6, 7, 8
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RT_TABLE_COMPAT, RT_TABLE_MAIN = 252, 254
RTNH_F_ONLINK = 4
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000

HEADER = Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence number, port id."""
HEADER_SIZE = 16
ATTRIBUTE = Struct("=HH")
U32 = Struct("=I")
I32 = Struct("=i")
TYPE_MASK = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""


class Message(NamedTuple):
    """Where one message lies in a buffer."""

    kind: int
    flags: int
    seq: int
    start: int
    """Of its payload."""
    end: int


def messages(data: bytes) -> Iterator[Message]:
    """Walk the messages of a buffer; KernelError when lengths don't add up."""
    offset, end = 0, len(data)
    while end - offset >= HEADER_SIZE:
        size, kind, flags, seq, _ = HEADER.unpack_from(data, offset)
        if size < HEADER_SIZE or size > end - offset:
            raise KernelError(f"netlink message of {size} bytes in a buffer with {end - offset} left")
        yield Message(kind, flags, seq, offset + HEADER_SIZE, offset + size)
        offset += (size + 3) & ~3


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Walk attributes: type, and where the value starts and ends."""
    while end - start >= ATTRIBUTE.size:
        size, kind = ATTRIBUTE.unpack_from(data, start)
        if size < ATTRIBUTE.size or size > end - start:
            raise KernelError(f"netlink attribute of {size} bytes where {end - start} are left")
        yield kind & TYPE_MASK, start + ATTRIBUTE.size, start + size
        start += (size + 3) & ~3


def u32(data: bytes, offset: int) -> int:
    """The 32-bit number there, in host order."""
    if len(data) - offset < U32.size:
        raise KernelError(f"a netlink value of {len(data) - offset} bytes where {U32.size} are needed")
    value: int = U32.unpack_from(data, offset)[0]
    return value


def error_code(data: bytes, message: Message) -> int:
    """The error that an NLMSG_ERROR or NLMSG_DONE carries, as a positive number; 0 is none."""
    if message.end - message.start < I32.size:
        return 0
    return -int(I32.unpack_from(data, message.start)[0])


def failure_of(data: bytes, message: Message) -> Failure | None:
    """What an NLMSG_ERROR says; None is an acknowledgement."""
    code = error_code(data, message)
    if code == 0:
        return None
    text = ""
    if message.flags & NLM_F_ACK_TLVS:
        start = message.start + 4
        start += HEADER_SIZE if message.flags & NLM_F_CAPPED else (u32(data, start) + 3) & ~3
        for kind, begin, end in attributes(data, start, message.end):
            if kind == 1:  # NLMSGERR_ATTR_MSG
                text = data[begin:end].rstrip(b"\0").decode("utf-8", "replace")
    name = errno.errorcode.get(code, str(code))
    return Failure(code, f"{text or os.strerror(code)} ({name})")


def ends_dump(data: bytes, message: Message) -> bool:
    """Whether this message ends a dump; KernelError when it says that the dump failed.

    A table that nobody made yet is an empty one (ENOENT).
    """
    if message.kind not in (NLMSG_DONE, NLMSG_ERROR):
        return False
    code = error_code(data, message)
    if code not in (0, errno.ENOENT):
        raise KernelError(f"dump: {os.strerror(code)}")
    return True
