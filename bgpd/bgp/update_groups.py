"""Update groups: peers that are told the same bytes share one encoding and one log.

Owns the groups (`update_group.py` says what goes into each one's log) and who reads which.  Clients are
pumped in rounds of short slices, so that a large table for thousands of clients leaves room for accepts,
keepalives and the API in between.

Nothing here is copied for a client: what a peer was told is computed from the log (RFC 4271 section 3.2
allows an implicit Adj-RIB-Out).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog

from bgpd.bgp import codec
from bgpd.bgp.cursor import Cursor
from bgpd.bgp.front import Front, Write
from bgpd.bgp.group_encoder import Key
from bgpd.bgp.message import Notification, RefreshKind, RouteRefresh
from bgpd.bgp.notifications import Cease, cease
from bgpd.bgp.outflow import Outflow
from bgpd.bgp.update_group import GroupKey, Identities, UpdateGroup
from routes.loc_rib import Change
from routes.path import Path, PeerName
from routes.peer import Negotiated
from routes.prefix import Family, Prefix
from routes.reflection import (
    CLOSED,
    Border,
    Export,
    Role,
)

log = structlog.get_logger()

PUMP_TIME = 0.01
"""Seconds of writing before the event loop turns."""
MOST_PATIENCE = 0.1
"""Seconds that changes wait for more input, at most."""
TOGETHER = 16
"""Clients that are written to one by one between two looks at the clock."""
MOST_PINNED = 100_000
"""Withdrawals that slow clients may keep in a log."""


class Pump(Protocol):
    """What writes to a client."""

    @property
    def fd(self) -> int: ...
    @property
    def idle(self) -> bool: ...
    def pump(self) -> None: ...


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


@dataclass(slots=True, eq=False)
class _Member:
    """A session that reads logs."""

    client: Client
    negotiated: Negotiated
    outflow: Outflow
    groups: dict[Family, UpdateGroup]
    pump: Pump | None = None

    def fell_behind(self) -> None:
        """A write at a front was short."""
        self.outflow.stand_alone()


def _key(family: Family, negotiated: Negotiated, terms: Terms) -> GroupKey:
    add_paths = terms.add_paths if family in negotiated.add_path_send else 0
    extended = family in negotiated.extended_next_hop
    return GroupKey(family, terms.role, terms.export, negotiated.four_octet, add_paths, extended)


class UpdateGroups:
    """All groups of a reflector."""

    def __init__(
        self,
        selected: Selected,
        role_of: Callable[[PeerName], Role],
        border: Border = CLOSED,
        write: Write = os.write,
    ) -> None:
        self._selected = selected
        self._write = write
        self._role_of = role_of
        self._border = border
        self._identities = Identities()
        self._groups: dict[GroupKey, UpdateGroup] = {}
        self._members: dict[PeerName, _Member] = {}
        self._complete = False
        self._fronts: dict[GroupKey, Front[Key, _Member]] = {}
        self._alone: dict[_Member, None] = {}
        """Who is not at the front of all its logs."""
        self._loop = asyncio.get_running_loop()
        self._pump_planned = False
        self._asked = False
        """Whether there is something to write that the present round may miss."""
        self._round: Iterator[int] | None = None
        """The writes of a round that has begun."""
        self._cost = 0.0
        """Seconds that writing to one member takes, on a moving average."""

    def __iter__(self) -> Iterator[UpdateGroup]:
        return iter(self._groups.values())

    # -- sessions ---------------------------------------------------------------------------------

    def session_up(self, client: Client, negotiated: Negotiated, terms: Terms) -> None:
        """Let the session read the logs of its groups from the start."""
        member = _Member(client, negotiated, Outflow(), {})
        self._members[client.name] = member
        source = self._identities.source(client.name)
        for group in self._groups.values():
            group.forget_told()
        for family in sorted(negotiated.families):
            group = member.groups[family] = self._group_of(_key(family, negotiated, terms), negotiated)
            group.members.add(client.name)
            cursor = group.log.join(source)
            member.outflow.add(family, cursor)
            if self._complete:
                cursor.at_end(codec.encode_end_of_rib(family, negotiated), lasting=True)
        member.pump = client.attach(member.outflow)
        self._alone[member] = None
        self._pump_soon()

    def _group_of(self, key: GroupKey, negotiated: Negotiated) -> UpdateGroup:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = UpdateGroup(
                key, negotiated, self._role_of, self._identities, self._border
            )
            group.put((nlri, (), selected) for nlri, selected in self._selected(key.family))
            group.log.commit()
            self._fronts[key] = Front(group.log, self._alone, self._write)
        return group

    def session_down(self, name: PeerName) -> None:
        """The session reads no more; a group without members goes."""
        member = self._members.pop(name, None)
        if member is None:
            return
        for family, group in member.groups.items():
            self._leave(group, name, member.outflow.cursors[family])
        self._alone.pop(member, None)

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
        self._pump_soon()

    def complete(self) -> None:
        """The initial convergence is complete: everybody gets End-of-RIB behind what is there now."""
        if self._complete:
            return
        self._complete = True
        for member in self._members.values():
            for family, cursor in member.outflow.cursors.items():
                cursor.at_end(codec.encode_end_of_rib(family, member.negotiated), lasting=True)
        self._pump_soon()

    # -- changes ----------------------------------------------------------------------------------

    def redraw(self, border: Border) -> None:
        """Let other prefixes than before leave the AS."""
        self._border = border
        for group in self._groups.values():
            if group.key.role is Role.EXTERNAL:
                group.redraw(border, self._selected(group.key.family))
        self._pump_soon()

    def revise(self, terms_of: Callable[[PeerName, Negotiated], Terms | None]) -> None:
        """Take other terms than before; those of a peer that is leaving are None.

        A group whose members stay together is told in place what that changes; who leaves the others is told
        what differs between two groups.  No session is reset.
        """
        moves: dict[GroupKey, dict[GroupKey, list[_Member]]] = {}
        for name, member in self._members.items():
            terms = terms_of(name, member.negotiated)
            if terms is None:
                continue
            for family, group in member.groups.items():
                new = _key(family, member.negotiated, terms)
                moves.setdefault(group.key, {}).setdefault(new, []).append(member)
        moving = {old: to for old, to in moves.items() if list(to) != [old]}
        revised = self._revisable(moving)
        self._rename(revised)
        for old, to in moving.items():
            for new, members in to.items() if old not in revised else ():
                for member in members if new != old else ():
                    self._move(member, new)

    def _move(self, member: _Member, key: GroupKey) -> None:
        """Have a session read another group's log from the start, and withdraw what only its old one had."""
        family, name = key.family, member.client.name
        old, source = member.groups[family], self._identities.source(member.client.name)
        new = member.groups[family] = self._group_of(key, member.negotiated)
        before = member.outflow.cursors[family]
        member.outflow.replace(family, new.log.join(source))
        known, told = old.log.known(), new.log.entry
        gone = [each for each in known if (entry := told(each)) is None or entry[0] == source]
        for data, _ in old.encoder.withdraw(gone):
            member.client.send(data)
        new.members.add(name)
        self._leave(old, name, before)
        self._alone[member] = None
        self._pump_soon()

    def _leave(self, group: UpdateGroup, name: PeerName, cursor: Cursor[Key]) -> None:
        """A group without members goes."""
        group.members.discard(name)
        group.log.leave(cursor)
        if not group.members:
            self._groups.pop(group.key, None)
            self._fronts.pop(group.key, None)

    def _revisable(self, moving: Mapping[GroupKey, Collection[GroupKey]]) -> dict[GroupKey, GroupKey]:
        """The groups that go as a whole to a key that no other group has then."""
        revised = {old: next(iter(to)) for old, to in moving.items() if len(to) == 1}
        revised = {old: new for old, new in revised.items() if new == old._replace(export=new.export)}
        clashing: list[GroupKey] | None = None
        while clashing is None or clashing:
            clashing, taken = [], self._groups.keys() - revised.keys()
            for old, new in revised.items():
                if new in taken:
                    clashing.append(old)
                taken.add(new)
            for old in clashing:  # it stays under its key, which may be another's new one
                del revised[old]
        return revised

    def _rename(self, revised: Mapping[GroupKey, GroupKey]) -> None:
        """Have groups export as their new keys say."""
        moved = [(new, self._groups.pop(old), self._fronts.pop(old)) for old, new in revised.items()]
        for new, group, front in moved:
            group.revise(new.export, self._selected(new.family))
            self._groups[new], self._fronts[new] = group, front
        if moved:
            self._pump_soon()

    def changed(self, changes: Sequence[Change], *, hold: bool = False) -> None:  # noqa: ARG002  none is held
        """Put changes of the Loc-RIB, those of a family together, into every log, and have them written."""
        if not changes:
            return
        both = len(changes[0].nlri.address) != len(changes[-1].nlri.address)
        for group in self._groups.values():
            size = group.address_size
            mine = [each for each in changes if len(each.nlri.address) == size] if both else changes
            if len(mine[0].nlri.address) == size:
                if group.log.untidy:
                    self._tidy_log(group)
                group.put(mine)
                group.log.commit()
        self._asked = True
        if self._round is None:
            self._pump()

    def _bound(self, group: UpdateGroup) -> None:
        """Have readers that keep too much waiting begin anew, or go."""
        log_, family = group.log, group.key.family
        overrun, log_.overrun = log_.overrun, []
        slowest = log_.slowest() if log_.withdrawals > MOST_PINNED else -1
        for name in list(group.members):
            member = self._members[name]
            cursor = member.outflow.cursors[family]
            if cursor.needs_from > slowest and cursor not in overrun:
                continue
            log.warning("a slow peer keeps too much waiting", peer=name, group=group.name)
            if member.negotiated.enhanced_route_refresh:
                self.refresh(name, family)
            else:
                self._loop.call_soon(member.client.reset, cease(Cease.OUT_OF_RESOURCES))

    # -- writing ----------------------------------------------------------------------------------

    @property
    def patience(self) -> float:
        """Seconds that changes may wait for more: as long as a round of writes takes, at most."""
        return min(MOST_PATIENCE, self._cost * len(self._members))

    def _pump_soon(self) -> None:
        """Write in the loop's next turn, in short slices."""
        self._asked = True
        self._plan_pump()

    def _plan_pump(self) -> None:
        if not self._pump_planned:
            self._pump_planned = True
            self._loop.call_soon(self._planned_pump)

    def _planned_pump(self) -> None:
        self._pump_planned = False
        self._pump()

    def _pump(self) -> None:
        """Write for a while, unless there is nothing to write."""
        if self._round is None:
            if not self._asked:
                return
            self._asked = False
            self._round = self._write_all()
        now = self._loop.time()
        until, writes = now + PUMP_TIME, 0
        for done in self._round:
            writes += done
            if self._loop.time() > until:
                self._plan_pump()
                break
        else:
            self._round = None
            if self._asked:
                self._plan_pump()
        if writes:
            self._cost += 0.1 * ((self._loop.time() - now) / writes - self._cost)
        if self._round is None:
            self._tidy()

    def _tidy(self) -> None:
        """Do what commits left to be done: after a round of writes, if no newer change did it before."""
        for group in self._groups.values():
            if group.log.untidy:
                self._tidy_log(group)

    def _tidy_log(self, group: UpdateGroup) -> None:
        group.log.tidy()
        if group.log.withdrawals > MOST_PINNED or group.log.overrun:
            self._bound(group)

    def _write_all(self) -> Iterator[int]:
        """One round of writes, first to those who differ in nothing; in steps, with the writes of each."""
        for front in list(self._fronts.values()):
            yield from front.write()
        alone = list(self._alone)
        for first in range(0, len(alone), TOGETHER):
            members = alone[first : first + TOGETHER]
            for member in members:
                if member in self._alone and member.pump is not None:
                    member.pump.pump()
                    if member.pump.idle and member.outflow.caught_up:
                        self._join_fronts(member, member.pump.fd)
            yield len(members)

    def _join_fronts(self, member: _Member, fd: int) -> None:
        """The member has everything: let it be written to like all others."""
        cursors = ((group.key, member.outflow.cursors[family]) for family, group in member.groups.items())
        if all(
            cursor.front is not None or self._fronts[key].admit(cursor, fd, member) for key, cursor in cursors
        ):
            del self._alone[member]

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
        return not self._asked and self._round is None

    def freeze(self) -> None:
        """Write nothing more: the daemon is ending."""
        for name in list(self._members):
            self.session_down(name)

    def forget(self, name: PeerName) -> None:
        """The peer is gone for good."""
        self.session_down(name)
        self._identities.forget(name)
