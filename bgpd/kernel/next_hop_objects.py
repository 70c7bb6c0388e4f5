"""Next-hop objects of the kernel: what makes thousands of distinct IPv4 gateways on one link cheap.

The kernel compares each new inline IPv4 next hop with all that its device has, so 20,000 distinct gateways
(the shape of a pod network: one next hop for each node) take 8 s inline and 0.2 s with objects.  Objects
have a price: they vanish with the carrier and take their routes along in silence.  So they are used only
on devices that have more distinct gateways than `threshold`, and never for IPv6, which is linear anyway.

Owns the objects of our protocol in our range of IDs: it creates them exclusively, adopts them at the
start, and removes those that no route of anybody uses.  It must never touch an object that is not ours,
nor show one outside `bgpd/kernel`: dumps map them back to gateways.
"""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from struct import Struct
from typing import NamedTuple

from pyroute2.netlink import nlmsg

from bgpd.errors import KernelError
from bgpd.kernel import rtnetlink as nl
from bgpd.kernel.command_socket import CommandSocket, dump
from bgpd.kernel.dumps import UseReader, route_request
from bgpd.kernel.messages import ANY_ADDRESS, CHUNK_MESSAGES, FAMILY_OF_SIZE, with_fence
from bgpd.kernel.route_reader import ObjectMap, Ownership
from routes.fib import FibEntry, Hop
from routes.prefix import Address, Prefix

DEFAULT_THRESHOLD = 2_000
"""Distinct gateways on a device; measured: 1,024 inline cost little, 4,096 cost seconds (bench/README.md)."""
FIRST_ID = 0x7062_0000
ID_COUNT = 1 << 20
"""Our range ("pb"): the IDs are one space for everybody on the host."""
CREATE_ROUNDS = 3
"""How often an object whose ID somebody else has is tried with another."""
FOREIGN_STEP = 4_096
"""How far to skip when an ID turns out to be taken: whoever took it has more nearby."""

NHMSG = Struct("=BBBBI")
"""family, scope, protocol, reserved, flags."""
USUAL = {
    size: Struct(f"=BBBBI4sI4sI4s{gateway}s") for gateway in (4, 16) for size in (NHMSG.size + 20 + gateway,)
}
"""An object with ID, link and gateway, as the kernel writes it, by its size."""
USUAL_HEADERS = {
    gateway: (
        nl.ATTRIBUTE.pack(8, nl.NHA_ID),
        nl.ATTRIBUTE.pack(8, nl.NHA_OIF),
        nl.ATTRIBUTE.pack(4 + gateway, nl.NHA_GATEWAY),
    )
    for gateway in (4, 16)
}
GROUP_MEMBER = Struct("=IB3x")


class _nhmsg(nlmsg):  # type: ignore[misc]  # noqa: N801  # pyroute2 is untyped, and names messages as C does
    """Next-hop message (linux/nexthop.h), which pyroute2 0.9.7 lacks."""

    _nlmsg_base__compiled_nla = False
    prefix = "NHA_"
    fields = (("family", "B"), ("scope", "B"), ("protocol", "B"), ("resvd", "B"), ("flags", "I"))
    nla_map = (
        ("NHA_UNSPEC", "none"),
        ("NHA_ID", "uint32"),
        ("NHA_GROUP", "hex"),
        ("NHA_GROUP_TYPE", "uint16"),
        ("NHA_BLACKHOLE", "flag"),
        ("NHA_OIF", "uint32"),
        ("NHA_GATEWAY", "ip6addr"),
    )


class _nhmsg4(_nhmsg):  # noqa: N801  # as above
    _nlmsg_base__compiled_nla = False
    nla_map = (*_nhmsg.nla_map[:-1], ("NHA_GATEWAY", "ip4addr"))


class _ObjectReader:
    """Reads a dump of next-hop objects."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._groups: dict[int, list[int]] = {}
        self.map = ObjectMap({}, set())
        self.done = False
        self.interrupted = False

    def take(self, data: bytes) -> None:
        for message in nl.messages(data):
            self.interrupted |= bool(message.flags & nl.NLM_F_DUMP_INTR)
            if message.kind == nl.RTM_NEWNEXTHOP:
                self._read(data, message)
            elif nl.ends_dump(data, message):
                self.done = True
                for group, members in self._groups.items():
                    hops = [hop for member in members for hop in self.map.hops.get(member, ())]
                    self.map.hops[group] = tuple(hops)

    def _read(self, data: bytes, message: nl.Message) -> None:
        usual = USUAL.get(message.end - message.start)
        if usual is not None:
            _, _, protocol, _, flags, id_header, number, link_header, ifindex, header, gateway = (
                usual.unpack_from(data, message.start)
            )
            if (id_header, link_header, header) == USUAL_HEADERS[len(gateway)]:
                self._found(number, protocol, Hop(Address(gateway), ifindex, bool(flags & nl.RTNH_F_ONLINK)))
                return
        self._read_unusual(data, message)

    def _read_unusual(self, data: bytes, message: nl.Message) -> None:
        _, _, protocol, _, flags = NHMSG.unpack_from(data, message.start)
        values = {
            key: data[begin:end]
            for key, begin, end in nl.attributes(data, message.start + NHMSG.size, message.end)
        }
        object_id = nl.u32(values[nl.NHA_ID], 0)
        if nl.NHA_GROUP in values:
            self._groups[object_id] = [member for member, _ in GROUP_MEMBER.iter_unpack(values[nl.NHA_GROUP])]
        elif nl.NHA_OIF in values:
            gateway = values.get(nl.NHA_GATEWAY)
            onlink = bool(flags & nl.RTNH_F_ONLINK)
            hop = Hop(Address(gateway) if gateway else None, nl.u32(values[nl.NHA_OIF], 0), onlink)
            self._found(object_id, protocol, hop)

    def _found(self, object_id: int, protocol: int, hop: Hop) -> None:
        self.map.hops[object_id] = (hop,)
        if protocol == self._protocol and FIRST_ID <= object_id < FIRST_ID + ID_COUNT:
            self.map.ours.add(object_id)


class _Template(NamedTuple):
    """A message that creates an object: how to pack it, and its fixed bytes in order."""

    pack: Callable[..., bytes]
    head: bytes
    before_id: bytes
    before_link: bytes
    before_gateway: bytes


def _template(size: int, onlink: bool, protocol: int) -> _Template:
    message = (_nhmsg4 if size == 4 else _nhmsg)()
    message["family"] = FAMILY_OF_SIZE[size]
    message["protocol"] = protocol
    message["flags"] = nl.RTNH_F_ONLINK if onlink else 0
    message["attrs"] = [("NHA_ID", 0), ("NHA_OIF", 0), ("NHA_GATEWAY", ANY_ADDRESS[size])]
    message["header"]["type"] = nl.RTM_NEWNEXTHOP
    message["header"]["flags"] = nl.NLM_F_REQUEST | nl.NLM_F_CREATE | nl.NLM_F_EXCL
    message.encode()
    data = bytes(message.data)
    return _Template(Struct(f"=8sI16sI4sI4s{size}s").pack, data[:8], data[12:28], data[32:36], data[40:44])


class NextHopObjects:
    """The objects that are ours, and the decision which entries use one."""

    def __init__(self, sock: CommandSocket, ownership: Ownership, threshold: int) -> None:
        self._socket = sock
        self._ownership = ownership
        self._threshold = threshold
        self._templates: dict[tuple[int, bool], _Template] = {}
        self._ids: dict[Hop, int] = {}
        self._inline: defaultdict[int, set[Hop]] = defaultdict(set)
        """For each link the gateways that were installed without an object."""
        self._on_link: Counter[int] = Counter()
        """Objects of ours on each link."""
        self._next = 0
        self._supported = True
        self.map = ObjectMap({}, set())

    def load(self) -> None:
        """Read which objects exist, and adopt ours."""
        if not self._supported:
            return
        found = dump(_request(), lambda: _ObjectReader(self._ownership.protocol)).map
        self.map.replace(found)
        self._ids = {self.map.hops[object_id][0]: object_id for object_id in sorted(found.ours)}
        self._on_link = Counter(hop.ifindex for hop in self._ids)

    def note_present(self, shapes: Mapping[int, FibEntry]) -> None:
        """Start counting anew with the IPv4 entries that a dump found."""
        self._inline.clear()
        for entry in shapes.values():
            if len(entry.hops) == 1 and entry.hops[0] not in self._ids:
                self._inline[entry.hops[0].ifindex].add(entry.hops[0])

    def id_of(self, entry: FibEntry) -> int:
        """The object to install an IPv4 entry with; 0 for inline."""
        return self._ids.get(entry.hops[0], 0) if len(entry.hops) == 1 else 0

    def prepare(self, items: Iterable[tuple[Prefix, FibEntry]]) -> None:
        """Create the objects that these entries need; the hops of one call to `_create` share a link."""
        shapes = {id(entry): entry for (address, _), entry in items if len(address) == 4}
        if not shapes or not self._supported:
            return
        fresh: defaultdict[int, dict[Hop, None]] = defaultdict(dict)
        for entry in shapes.values():
            if len(entry.hops) == 1:
                hop = entry.hops[0]
                if hop.gateway is not None and hop not in self._ids and hop not in self._inline[hop.ifindex]:
                    fresh[hop.ifindex][hop] = None
        for ifindex, hops in fresh.items():
            if len(hops) + len(self._inline[ifindex]) + self._on_link[ifindex] > self._threshold:
                self._create(list(hops))
            else:
                self._inline[ifindex].update(hops)

    def _create(self, hops: list[Hop]) -> None:
        """Give each hop an object; those that get none stay inline, where the kernel says why."""
        kinds: defaultdict[tuple[int, bool], list[Hop]] = defaultdict(list)
        for hop in hops:
            kinds[len(hop[0] or b""), hop[2]].append(hop)
        for kind, alike in kinds.items():
            left = alike
            for _ in range(CREATE_ROUNDS):
                taken: list[Hop] = []
                for start in range(0, len(left), CHUNK_MESSAGES):
                    taken += self._create_chunk(self._template(kind), left[start : start + CHUNK_MESSAGES])
                if not taken or not self._supported:
                    break
                left, self._next = taken, self._next + FOREIGN_STEP

    def _create_chunk(self, template: _Template, hops: list[Hop]) -> list[Hop]:
        """Create objects; the hops whose ID was taken by somebody else."""
        ids = self._new_ids(len(hops))
        first = self._socket.next_seq(len(hops))
        pack, head, before_id, before_link, before_gateway = template
        parts = [
            pack(head, seq, before_id, object_id, before_link, ifindex, before_gateway, gateway)
            for seq, (object_id, (gateway, ifindex, _)) in enumerate(zip(ids, hops, strict=True), first)
        ]
        taken: list[Hop] = []
        for seq, failure in self._socket.transact(with_fence(parts), first + len(hops) - 1).items():
            hop = hops[seq - first]
            ids[seq - first] = 0
            if failure.code == errno.EEXIST:
                taken.append(hop)
            elif failure.code == errno.EOPNOTSUPP:
                self._supported = False
        made = {object_id: (hop,) for object_id, hop in zip(ids, hops, strict=True) if object_id}
        self.map.hops.update(made)
        self.map.ours.update(made)
        self._ids.update((hop, object_id) for object_id, (hop,) in made.items())
        self._on_link[hops[0].ifindex] += len(made)
        return taken

    def _template(self, kind: tuple[int, bool]) -> _Template:
        template = self._templates.get(kind)
        if template is None:
            template = self._templates[kind] = _template(*kind, self._ownership.protocol)
        return template

    def _new_ids(self, number: int) -> list[int]:
        found: list[int] = []
        known = self.map.hops
        for at in range(self._next, self._next + ID_COUNT):
            object_id = FIRST_ID + at % ID_COUNT
            if object_id not in known:
                found.append(object_id)
                if len(found) == number:
                    self._next = at + 1
                    return found
        raise KernelError(f"all {ID_COUNT} IDs of next-hop objects are used")

    # Removing what nothing uses

    def sweep(self) -> int:
        """Remove our objects that no route of anybody uses; how many that were."""
        self.load()
        if not self.map.ours:
            return 0
        unused = self.map.ours - self._used()
        return self.remove(sorted(unused))

    def _used(self) -> set[int]:
        """Objects that any route refers to, in any table and of any protocol."""
        used: set[int] = set()
        for family in (nl.AF_INET, nl.AF_INET6):
            used |= dump(route_request(family), lambda: UseReader(self._ownership, self.map)).used
        return used

    def remove(self, object_ids: list[int]) -> int:
        """Remove these objects of ours, and with each the routes that use it."""
        removed = 0
        for start in range(0, len(object_ids), CHUNK_MESSAGES):
            chunk = object_ids[start : start + CHUNK_MESSAGES]
            first = self._socket.next_seq(len(chunk))
            parts = [_removal(first + at, object_id) for at, object_id in enumerate(chunk)]
            failures = self._socket.transact(with_fence(parts), first + len(chunk) - 1)
            removed += len(chunk) - len(failures)
            for object_id in chunk:
                self.map.ours.discard(object_id)
                for hop in self.map.hops.pop(object_id, ()):
                    if self._ids.pop(hop, None) is not None:
                        self._on_link[hop.ifindex] -= 1
        return removed


def _request() -> bytes:
    message = _nhmsg()
    message["header"]["type"] = nl.RTM_GETNEXTHOP
    message["header"]["flags"] = nl.NLM_F_REQUEST | nl.NLM_F_DUMP
    message.encode()
    return bytes(message.data)


def _removal(seq: int, object_id: int) -> bytes:
    size = nl.HEADER_SIZE + NHMSG.size + 8
    head = nl.HEADER.pack(size, nl.RTM_DELNEXTHOP, nl.NLM_F_REQUEST, seq, 0)
    return head + bytes(NHMSG.size) + nl.ATTRIBUTE.pack(8, nl.NHA_ID) + nl.U32.pack(object_id)
