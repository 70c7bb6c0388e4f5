"""Update groups: peers that are told the same bytes share one encoding and one log.

Owns the logs, who reads which, and what goes into each: the selection of the Loc-RIB, filtered by role and
exported (`routes.reflection`).  Clients are pumped in rounds of short slices, so that a large table for
thousands of clients leaves room for accepts, keepalives and the API in between.

Nothing here is copied for a client: what a peer was told is computed from the log (RFC 4271 section 3.2
allows an implicit Adj-RIB-Out).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog

from bgpd.bgp import codec
from bgpd.bgp.fanout import Cursor, FanoutLog
from bgpd.bgp.group_encoder import GroupEncoder, Key
from bgpd.bgp.message import Notification, RefreshKind, RouteRefresh
from bgpd.bgp.notifications import Cease, cease
from bgpd.bgp.outflow import Outflow
from routes.aggregates import Aggregates
from routes.loc_rib import Change
from routes.path import LOCAL_PEER, Path, PathAttributes, PeerKind, PeerName, Source
from routes.peer import Negotiated
from routes.prefix import Address, Family, Prefix, format_address
from routes.reflection import (
    CLOSED,
    Border,
    Export,
    Role,
    exported,
    may_hear,
    next_hop_sizes,
    refused_by_community,
    unfit_next_hop,
    why_not,
)

log = structlog.get_logger()

PUMP_TIME = 0.01
"""Seconds of writing before the event loop turns."""
MOST_PATIENCE = 0.1
"""Seconds that a round of writes waits for more input, at most."""
MOST_PINNED = 100_000
"""Withdrawals that slow clients may keep in a log."""


class GroupKey(NamedTuple):
    """What makes bytes differ."""

    family: Family
    role: Role
    export: Export
    four_octet: bool
    add_paths: int
    """Paths for each prefix (RFC 7911); 0 without ADD-PATH."""
    extended_next_hop: bool


class Pump(Protocol):
    """What writes to a client."""

    def pump(self) -> None: ...
    def send_now(self, data: bytes | memoryview) -> int: ...


class Client(Protocol):
    """The part of a session that is needed here."""

    @property
    def name(self) -> PeerName: ...
    def send(self, data: bytes) -> None: ...
    def attach(self, feed: Outflow) -> Pump | None: ...
    def reset(self, notification: Notification) -> None: ...


class Terms(NamedTuple):
    """How the configuration has a peer told."""

    role: Role
    export: Export
    add_paths: int = 0


Selected = Callable[[Family], Iterable[tuple[Prefix, tuple[Path, ...]]]]
"""The Loc-RIB of a family: each prefix with `(best, *others of equal cost)`."""


class Identities:
    """Numbers that stand for peers and for their paths, the same for all clients and never used twice."""

    def __init__(self) -> None:
        self._sources: dict[PeerName, int] = {}
        self._next_source = 1
        self._path_ids: dict[PeerName, dict[int, int]] = {}
        self._next_path_id = 1

    def source(self, peer: PeerName) -> int:
        """The number of a peer, whichever session it uses."""
        source = self._sources.get(peer)
        if source is None:
            source = self._sources[peer] = self._next_source
            self._next_source += 1
        return source

    def path_id(self, peer: PeerName, received: int) -> int:
        """Ours, for a path of one source with one received ID (RFC 7911 section 3)."""
        of_peer = self._path_ids.setdefault(peer, {})
        path_id = of_peer.get(received)
        if path_id is None:
            path_id = of_peer[received] = self._next_path_id
            self._next_path_id += 1
        return path_id

    def forget(self, peer: PeerName) -> None:
        """The peer is gone, and nothing in the logs is of it."""
        self._path_ids.pop(peer, None)
        self._sources.pop(peer, None)


class UpdateGroup:
    """One log, what goes into it, and who reads it."""

    def __init__(
        self,
        key: GroupKey,
        member: Negotiated,
        role_of: Callable[[PeerName], Role],
        identities: Identities,
        border: Border = CLOSED,
    ) -> None:
        self.key = key
        self.members: set[PeerName] = set()
        self.encoder = GroupEncoder(key.family, member)
        self.log: FanoutLog[Key] = FanoutLog(self.encoder)
        self._role_of = role_of
        self._identities = identities
        self._next_hop_sizes = next_hop_sizes(key.family, extended=key.extended_next_hop)
        self._draw(border)

    def _draw(self, border: Border) -> None:
        """What leaves; an aggregate needs a next hop of ours (RFC 4271 section 9.2.2.2)."""
        key, own = self.key, self.key.export.next_hop
        self._border = border
        size = 4 if key.family is Family.IPV4 else 16
        self._admits = border.admits[size] if key.role is Role.EXTERNAL else None
        mine = [each for each in border.aggregates if each.family is key.family]
        if key.role is not Role.EXTERNAL or own is None or len(own) not in self._next_hop_sizes:
            mine = []
        self._aggregates = Aggregates(mine)

    @property
    def name(self) -> str:
        """For a person: `ipv4 client`, with what sets it apart."""
        key, export = self.key, self.key.export
        extra = {
            f"add-path {key.add_paths}": key.add_paths,
            "2-octet AS": not key.four_octet,
            "extended next hop": key.extended_next_hop,
            f"next hop {format_address(export.next_hop or Address(bytes(4)))}": export.next_hop is not None,
            f"local-pref {export.local_pref}": export.local_pref is not None,
            f"med {export.med}": export.med is not None,
            f"prepend {export.prepend}": export.prepend,
            " ".join(f"{each >> 16}:{each & 0xFFFF}" for each in export.communities): export.communities,
            " ".join(":".join(map(str, each)) for each in export.large_communities): export.large_communities,
        }
        return " ".join((str(key.family), key.role.value, *(text for text, so in extra.items() if so)))

    @property
    def no_next_hop(self) -> str:
        """Why our own address can't be the next hop of anything here, in a sentence; empty when it can."""
        own = self.key.export.next_hop
        return "" if own is None or len(own) in self._next_hop_sizes else unfit_next_hop(own, self.key.family)

    def why_refused(self, path: Path) -> str:
        """Why the group is not told a path, in a sentence; empty when it is, or an aggregate instead."""
        source, target = self._role_of(path.source.peer), self.key.role
        if not may_hear(source, target):
            return why_not(source, target)
        if refused := refused_by_community(path.attributes, target):
            return refused
        if target is Role.EXTERNAL and (kept := self._border.why_kept(path.nlri)):
            return kept
        next_hop = self.key.export.next_hop or path.attributes.next_hop
        return "" if len(next_hop) in self._next_hop_sizes else unfit_next_hop(next_hop, self.key.family)

    def aggregate_of(self, nlri: Prefix) -> Prefix | None:
        """The aggregate that the group is told, if any, in place of a prefix that it could be told."""
        return self._aggregates.of(nlri)

    def aggregates(self) -> list[Prefix]:
        """The aggregates that the group is told now."""
        return self._aggregates.announced()

    def aggregate(self, nlri: Prefix) -> Path | None:
        """An aggregate as a path of this speaker's own; None while it stands for nothing."""
        asn, bgp_id = self.key.export.asn, self._border.bgp_id
        attributes = self._aggregates.attributes(nlri, asn, bgp_id)
        if attributes is None:
            return None
        return Path(nlri, attributes, Source(LOCAL_PEER, PeerKind.LOCAL, asn, bgp_id, Address(bytes(4))))

    def told(self, path: Path) -> PathAttributes:
        """What the members are told of a path."""
        return exported(path, self.key.role, self.key.export)

    def put(self, selected: Iterable[tuple[Prefix, tuple[Path, ...], tuple[Path, ...]]]) -> None:
        """Take new selections: prefix, what was selected before, and what is now."""
        if self.key.add_paths or self._aggregates:
            self._put_paths(selected)
            return
        log, role, sizes, own = self.log, self.key.role, self._next_hop_sizes, self.key.export.next_hop
        told: dict[int, PathAttributes | None] = {}
        source_of, role_of, admits = self._identities.source, self._role_of, self._admits
        for nlri, before, after in selected:
            if not after:
                log.remove((nlri, 0))
                continue
            path = after[0]
            if before and before[0] is path:
                continue  # only what forwards beside it changed
            attributes, peer = path.attributes, path.source.peer
            known = id(attributes)
            if known not in told:
                refused = (
                    refused_by_community(attributes, role) or len(own or attributes.next_hop) not in sizes
                )
                told[known] = None if refused else exported(path, role, self.key.export)
            mine = told[known]
            if mine is None or not may_hear(role_of(peer), role) or (admits and not admits(nlri)):
                log.remove((nlri, 0))
                continue
            log.put((nlri, 0), source_of(peer), mine)

    def _put_paths(self, selected: Iterable[tuple[Prefix, tuple[Path, ...], tuple[Path, ...]]]) -> None:
        """The same where a prefix can have several paths, or an aggregate can take its place."""
        most, touched = self.key.add_paths or 1, dict[Prefix, None]()
        told: dict[int, PathAttributes] = {}
        for nlri, before, after in selected:
            now = [path for path in after[:most] if not self.why_refused(path)]
            aggregate = self._aggregates.of(nlri)
            if aggregate is not None:
                self._aggregates.note(aggregate, nlri, now[0].attributes.origin if now else None)
                touched[aggregate] = None
                now = []
            keys = {(nlri, self._number(path.source.peer, path.path_id)): path for path in now}
            # Without ADD-PATH all paths of a prefix have one key, and a key changes once in a commit.
            for key in dict.fromkeys((nlri, self._number(p.source.peer, p.path_id)) for p in before):
                if key not in keys and key != (aggregate, self._number(LOCAL_PEER, 0)):
                    self.log.remove(key)
            for key, path in keys.items():
                mine = told.get(id(path.attributes))
                if mine is None:
                    mine = told[id(path.attributes)] = self.told(path)
                self._announce(key, path.source.peer, mine)
        for aggregate in touched:
            self._put_aggregate(aggregate)

    def _number(self, peer: PeerName, path_id: int) -> int:
        return self._identities.path_id(peer, path_id) if self.key.add_paths else 0

    def _announce(self, key: Key, peer: PeerName, mine: PathAttributes) -> None:
        source = self._identities.source(peer)
        if self.log.entry(key) != (source, mine):
            self.log.put(key, source, mine)

    def _put_aggregate(self, nlri: Prefix) -> None:
        path, key = self.aggregate(nlri), (nlri, self._number(LOCAL_PEER, 0))
        if path is None:
            self.log.remove(key)
        else:
            self._announce(key, LOCAL_PEER, self.told(path))

    def redraw(self, border: Border, selected: Iterable[tuple[Prefix, tuple[Path, ...]]]) -> None:
        """Take another border, and announce and withdraw what that changes."""
        before = self._aggregates.announced()
        self._draw(border)
        self._put_paths((nlri, paths, paths) for nlri, paths in selected)
        self.log.commit()
        for nlri in before:
            key = (nlri, self._number(LOCAL_PEER, 0))
            entry = self.log.entry(key)
            if entry is not None and entry[0] == self._identities.source(LOCAL_PEER):
                self._put_aggregate(nlri)
        self.log.commit()


@dataclass(slots=True)
class _Member:
    """A session that reads logs."""

    client: Client
    negotiated: Negotiated
    outflow: Outflow
    groups: dict[Family, UpdateGroup]
    pump: Pump | None = None
    only: Cursor[Key] | None = None
    """The cursor of a client with one family."""


def _write(member: _Member) -> None:
    """Write what a member has not got; mostly that is the tail of its log, and nothing is in the way."""
    pump, cursor = member.pump, member.only
    if pump is None:
        return
    if cursor is not None:
        tail = cursor.log.tail
        if tail is not None and cursor.takes(tail) and not cursor.rest:
            size = pump.send_now(tail.data)
            if size == tail.size:
                cursor.seq = tail.end
                cursor.messages += tail.messages
                return
            member.outflow.took(cursor, tail, size)
        elif cursor.caught_up:
            return
    pump.pump()


class UpdateGroups:
    """All groups of a reflector."""

    def __init__(
        self, selected: Selected, role_of: Callable[[PeerName], Role], border: Border = CLOSED
    ) -> None:
        self._selected = selected
        self._role_of = role_of
        self._border = border
        self._identities = Identities()
        self._groups: dict[GroupKey, UpdateGroup] = {}
        self._members: dict[PeerName, _Member] = {}
        self._complete = False
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Member] = deque()
        self._pump_planned = False
        self._changes = 0
        """Times that something was put into the logs."""
        self._changes_seen = 0
        self._round_began = 0.0
        self._round_size = 0
        self._cost = 0.0
        """Seconds that writing to one member takes, on a moving average."""
        self._patience = 0.0

    def __iter__(self) -> Iterator[UpdateGroup]:
        return iter(self._groups.values())

    # -- sessions ---------------------------------------------------------------------------------

    def session_up(self, client: Client, negotiated: Negotiated, terms: Terms) -> None:
        """Let the session read the logs of its groups from the start."""
        member = _Member(client, negotiated, Outflow(), {})
        self._members[client.name] = member
        source = self._identities.source(client.name)
        for family in sorted(negotiated.families):
            group = member.groups[family] = self._group(family, negotiated, terms)
            group.members.add(client.name)
            cursor = group.log.join(source)
            member.outflow.add(family, cursor)
            if self._complete:
                cursor.at_end(codec.encode_end_of_rib(family, negotiated), lasting=True)
        member.pump = client.attach(member.outflow)
        if len(member.groups) == 1:
            member.only = next(iter(member.outflow.cursors.values()))
        self._pump_soon((member,))

    def _group(self, family: Family, negotiated: Negotiated, terms: Terms) -> UpdateGroup:
        add_paths = terms.add_paths if family in negotiated.add_path_send else 0
        extended = family in negotiated.extended_next_hop
        key = GroupKey(family, terms.role, terms.export, negotiated.four_octet, add_paths, extended)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = UpdateGroup(
                key, negotiated, self._role_of, self._identities, self._border
            )
            group.put((nlri, (), selected) for nlri, selected in self._selected(family))
            group.log.commit()
        return group

    def session_down(self, name: PeerName) -> None:
        """The session reads no more; a group without members goes."""
        member = self._members.pop(name, None)
        if member is None:
            return
        for family, group in member.groups.items():
            group.members.discard(name)
            group.log.leave(member.outflow.cursors[family])
            if not group.members:
                self._groups.pop(group.key, None)

    def refresh(self, name: PeerName, family: Family) -> None:
        """The peer wants the whole table again (RFC 2918), between marks if it knows them (RFC 7313)."""
        member = self._members.get(name)
        cursor = member.outflow.cursors.get(family) if member is not None else None
        if member is None or cursor is None:
            return
        marked = member.negotiated.enhanced_route_refresh
        if marked:
            member.client.send(codec.encode_route_refresh(RouteRefresh(family, RefreshKind.BEGIN)))
        cursor.restart(marked=marked)
        if marked:
            cursor.at_end(codec.encode_route_refresh(RouteRefresh(family, RefreshKind.END)))
        self._pump_soon((member,))

    def complete(self) -> None:
        """The initial convergence is complete: everybody gets End-of-RIB behind what is there now."""
        if self._complete:
            return
        self._complete = True
        for member in self._members.values():
            for family, cursor in member.outflow.cursors.items():
                cursor.at_end(codec.encode_end_of_rib(family, member.negotiated), lasting=True)
        self._pump_soon(self._members.values())

    # -- changes ----------------------------------------------------------------------------------

    def redraw(self, border: Border) -> None:
        """Let other prefixes than before leave the AS."""
        self._border = border
        for group in self._groups.values():
            if group.key.role is Role.EXTERNAL:
                group.redraw(border, self._selected(group.key.family))
        self._pump_soon(self._members.values())

    def changed(self, changes: Sequence[Change]) -> None:
        """Put the changes of the Loc-RIB into every log, and have them written."""
        self._changes += 1
        by_size = {4: [c for c in changes if len(c.nlri.address) == 4], 16: []}
        if len(by_size[4]) < len(changes):
            by_size[16] = [c for c in changes if len(c.nlri.address) == 16]
        for group in self._groups.values():
            mine = by_size[4 if group.key.family is Family.IPV4 else 16]
            if mine:
                group.put(mine)
                group.log.commit()
                if group.log.withdrawals > MOST_PINNED:
                    self._unpin(group)
        self._pump_soon(self._members.values())

    def _unpin(self, group: UpdateGroup) -> None:
        """Have the slowest reader begin anew, or go: it keeps too many withdrawals in the log."""
        slowest = group.log.slowest()
        for name in list(group.members):
            member = self._members[name]
            if member.outflow.cursors[group.key.family].needs_from > slowest:
                continue
            log.warning("a slow peer holds up withdrawals", peer=name, group=group.name)
            if member.negotiated.enhanced_route_refresh:
                self.refresh(name, group.key.family)
            else:
                self._loop.call_soon(member.client.reset, cease(Cease.OUT_OF_RESOURCES))

    # -- writing ----------------------------------------------------------------------------------

    def _pump_soon(self, members: Iterable[_Member]) -> None:
        """Write to these once the input that is ready has been read, in short slices."""
        if self._waiting:
            known = set(map(id, self._waiting))
            self._waiting.extend(member for member in members if id(member) not in known)
        else:
            self._waiting.extend(members)
            self._round_began = self._loop.time()
            self._round_size = len(self._waiting)
        if not self._pump_planned and self._waiting:
            self._pump_planned = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        now = self._loop.time()
        if self._changes != self._changes_seen and now - self._round_began < self._patience:
            # More came in this turn of the loop.  A write costs nearly the same whatever its size, so
            # waiting for as long as a round of writes takes at most doubles one and may save many.
            self._changes_seen = self._changes
            self._loop.call_soon(self._pump)
            return
        self._pump_planned = False
        self._changes_seen = self._changes
        waiting, until = self._waiting, now + PUMP_TIME
        while waiting:
            _write(waiting.popleft())
            if not len(waiting) & 15 and self._loop.time() > until:
                break
        took = self._loop.time() - now
        self._cost += 0.1 * (took / max(1, self._round_size - len(waiting)) - self._cost)
        self._round_size = len(waiting)
        self._patience = min(MOST_PATIENCE, self._cost * len(self._members))
        if waiting:
            self._pump_planned = True
            self._loop.call_soon(self._pump)
        else:
            self._round_began = self._loop.time()

    # -- what can be told -------------------------------------------------------------------------

    def groups_of(self, name: PeerName) -> dict[Family, UpdateGroup]:
        """The groups of a peer whose session is up."""
        member = self._members.get(name)
        return {} if member is None else member.groups

    def lag(self, name: PeerName) -> int:
        """Messages that the peer does not have yet, at most."""
        member = self._members.get(name)
        return 0 if member is None else member.outflow.lag

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written, slow readers aside."""
        return not self._waiting

    def freeze(self) -> None:
        """Write nothing more: the daemon is ending."""
        for name in list(self._members):
            self.session_down(name)
        self._waiting.clear()

    def forget(self, name: PeerName) -> None:
        """The peer is gone for good."""
        self._identities.forget(name)
