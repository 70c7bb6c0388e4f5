"""The single writer: what sessions report goes into the RIB here, and every effect leaves from here.

All of it runs in one event loop.  Sessions call in (`SessionHandler`), the RIB decides, and once no more
input waits the collected changes go to the FIB and to whoever watches.  Graceful restart of
peers (RFC 4724 section 4.2) lives here too, because it is about what to keep when a session goes.

It must never wait for anything: what takes time is a timer, a callback or somebody else's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import structlog

from bgpd.bgp.actions import RoutingMessage, SessionClosed
from bgpd.bgp.fsm import LocalState
from bgpd.bgp.listener import Listener
from bgpd.bgp.message import EndOfRib, RefreshKind, RouteRefresh, Update
from bgpd.bgp.notifications import Cease, cease
from bgpd.bgp.session import PeerSession
from bgpd.config import Config, PeerConfig
from bgpd.event_loop import input_waits
from bgpd.throttle import Throttle
from routes.adj_rib_in import LimitEvent, LimitKind
from routes.convergence import InitialConvergence
from routes.loc_rib import Change
from routes.path import Path, PeerName, Source
from routes.peer import Negotiated, PeerStatus
from routes.prefix import Address, Family, Prefix
from routes.rib import Rib

log = structlog.get_logger()
repeated = Throttle(log)


class ChangeSink(Protocol):
    """Where the changes of a turn go."""

    def changed(self, changes: Sequence[Change], *, hold: bool) -> None:
        """Apply `changes`; with `hold`, prefixes that lost their last path stay a stated time longer."""


class Outbound(Protocol):
    """What peers are told."""

    @property
    def patience(self) -> float:
        """Seconds that changes may wait for more input, which leaves in the same writes then."""

    def session_up(self, session: PeerSession, negotiated: Negotiated) -> None:
        """Begin to tell the peer what it should know."""

    def session_down(self, name: PeerName) -> None:
        """Stop."""

    def forget(self, name: PeerName) -> None:
        """The peer is configured no more, and what it announced is gone."""

    def refresh(self, name: PeerName, family: Family) -> None:
        """Tell it everything of a family again."""

    def advertised(self, name: PeerName, family: Family) -> int:
        """How many prefixes it was told."""

    def not_announced(self, name: PeerName) -> tuple[tuple[Family, str], ...]:
        """Families that it can't be told, each with the reason."""


class Watchers(Protocol):
    """Who is told what changed, for the API."""

    def changed(self, changes: Sequence[Change]) -> None:
        """The Loc-RIB changed."""

    def received(self, prefixes: Callable[[], Iterable[Prefix]]) -> None:
        """An Adj-RIB-In changed; the prefixes are computed only if somebody watches."""

    def peer_changed(self, name: PeerName) -> None:
        """A peer's session or its counts changed."""


class Nobody:
    """No watchers."""

    def changed(self, changes: Sequence[Change]) -> None: ...
    def received(self, prefixes: Callable[[], Iterable[Prefix]]) -> None: ...
    def peer_changed(self, name: PeerName) -> None: ...


@dataclass(slots=True)
class PeerState:
    """What the daemon knows of a peer beside its session."""

    config: PeerConfig
    session: PeerSession
    local: LocalState
    negotiated: Negotiated | None = None
    """Of the session that is up; None while it is down."""
    stale_timer: asyncio.TimerHandle | None = None

    def cancel_stale_timer(self) -> None:
        if self.stale_timer is not None:
            self.stale_timer.cancel()
            self.stale_timer = None


class Daemon:
    """The RIB and the sessions that feed it."""

    def __init__(
        self,
        config: Config,
        rib: Rib,
        fib: ChangeSink,
        out: Outbound,
        interface_of: Callable[[Address], int],
        convergence: InitialConvergence,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.config = config
        self.rib = rib
        self.listener = Listener(config.speaker.listen)
        self.peers: dict[PeerName, PeerState] = {}
        self.convergence = convergence
        self.found: frozenset[Family] = frozenset()
        """Families whose kernel entries of ours outlived the previous process (RFC 4724: R and F bits)."""
        self.on_convergence: Callable[[], None] = lambda: None
        """Called when an End-of-RIB or a new session may have ended the initial convergence."""
        self.watchers: Watchers = Nobody()
        self._fib = fib
        self._out = out
        self._interface_of = interface_of
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._input_waits = input_waits()
        self._flush_planned = False
        self._flush_by = 0.0
        self._more = False
        """Whether anything came since a planned flush was put off."""
        self._restarting_until = self._loop.time() + config.speaker.restart_time

    # -- peers ------------------------------------------------------------------------------------

    def add_peer(self, config: PeerConfig) -> PeerState:
        """Configure a peer and start its session."""
        local = self._local_state()
        session = PeerSession(config, self.config.speaker, self, local, interface_of=self._interface_of)
        state = self.peers[config.name] = PeerState(config, session, local)
        self.listener.add(session)
        session.start()
        return state

    def _local_state(self) -> LocalState:
        """What a new peer's first OPEN says of our restart; later there has been none that concerns it."""
        if self._loop.time() < self._restarting_until:
            return LocalState(bool(self.found), self.found)
        return LocalState(False, frozenset(Family))

    def remove_peer(self, name: PeerName) -> None:
        """Close the session for good and forget what the peer announced."""
        state = self.peers.pop(name)
        state.cancel_stale_timer()
        self.listener.remove(name)
        self._tasks.create_task(state.session.stop(cease(Cease.PEER_DECONFIGURED)))
        self.rib.forget(name)
        self.convergence.removed(name, self._loop.time())
        self.on_convergence()
        self._loop.call_soon(self._forget, name)

    def _forget(self, name: PeerName) -> None:
        self.flush()  # it still names the peer's paths
        if name not in self.peers:
            self._out.forget(name)

    def change_peer(self, config: PeerConfig) -> None:
        """Give a peer its new configuration; its session is reset only where that is needed."""
        state = self.peers[config.name]
        state.config = config
        state.session.reconfigure(config)
        self.listener.add(state.session)

    # -- what sessions report (SessionHandler) ----------------------------------------------------

    def session_established(self, session: PeerSession) -> None:
        """The session is up: take back what it may resume, and announce our own prefixes."""
        state, negotiated, source = self._state_of(session), session.negotiated, session.source
        if state is None or negotiated is None or source is None:
            return
        state.negotiated = negotiated
        state.cancel_stale_timer()
        restart = negotiated.graceful_restart
        preserved = frozenset(f for f in negotiated.families if restart and restart.forwarding(f))
        self.rib.session_up(source, negotiated.families, preserved)
        if self.has_stale(state.config.name):
            self._sweep_later(state, self.config.fib.deferral_time, "the peer sent no End-of-RIB in time")
        state.local.restarting = False
        state.local.forwarding = frozenset(Family)  # from now on, a lost session loses no forwarding state
        now = self._loop.time()
        # Two reflectors that restart would wait for each other's End-of-RIB: RFC 4724 section 4.1, R bit.
        alike = self.config.reflector is not None and not state.config.client
        awaited = restart is not None and not (alike and restart.restarting)
        self.convergence.established(state.config.name, negotiated.families, awaited, now)
        self.on_convergence()
        self._out.session_up(session, negotiated)
        self.watchers.peer_changed(state.config.name)
        self.plan_flush()

    def messages_received(self, session: PeerSession, messages: Sequence[RoutingMessage]) -> None:
        """UPDATEs, End-of-RIBs and refresh requests, in the order in which they came."""
        state, source = self._state_of(session), session.source
        if state is None or state.negotiated is None or source is None:
            return
        updates = [message for message in messages if type(message) is Update]
        if len(updates) == len(messages):
            self._updates(state, source, updates)
        else:
            self._in_order(state, source, messages)
        if self._input_waits():
            self.plan_flush()
        else:
            self.flush()
        if updates:
            self.watchers.received(lambda: [nlri for u in updates for nlri in (*u.announced, *u.withdrawn)])
            self.watchers.peer_changed(state.config.name)

    def _in_order(self, state: PeerState, source: Source, messages: Sequence[RoutingMessage]) -> None:
        """UPDATEs and all else."""
        for kind, run in groupby(messages, key=type):
            if kind is Update:
                self._updates(state, source, list(run))  # type: ignore[arg-type]  # of this type
                continue
            for message in run:
                if isinstance(message, EndOfRib):
                    self._end_of_rib(state, source, message.family)
                elif isinstance(message, RouteRefresh):
                    self._route_refresh(state, message)

    def _updates(self, state: PeerState, source: Source, updates: list[Update]) -> None:
        news = self.rib.updates(source, updates)
        for update in updates:
            if update.error:
                state.session.remember_malformed(update.error)
                repeated.warning(
                    (state.config.name, "malformed"),
                    "malformed UPDATE",
                    peer=state.config.name,
                    error=update.error,
                )
        if news:
            self._tell_of_imports()

    def _tell_of_imports(self) -> None:
        """Log what was refused, and act on limits that were crossed."""
        refusals = self.rib.take_refusals()
        for path, verdict in refusals.first:
            repeated.log(
                "debug" if self._is_echo(path) else "info",
                (path.source.peer, verdict.rule),
                "path refused",
                peer=path.source.peer,
                prefix=str(path.nlri),
                rule=verdict.rule,
                reason=verdict.text,
            )
        for event in self.rib.take_limit_events():
            self._limit_crossed(event)

    def _is_echo(self, path: Path) -> bool:
        """Whether a path is our own announcement come back, with which nobody does anything wrong."""
        attributes, speaker = path.attributes, self.config.speaker
        return attributes.originator_id == speaker.router_id or attributes.as_path.count(speaker.asn) > 0

    def session_closed(self, session: PeerSession, closed: SessionClosed) -> None:
        """The session is down: keep what graceful restart allows, drop the rest."""
        state = self._state_of(session)
        if state is None or state.negotiated is None:
            return
        negotiated, state.negotiated = state.negotiated, None
        state.cancel_stale_timer()
        self._out.session_down(state.config.name)
        restart = negotiated.graceful_restart
        kept: frozenset[Family] = frozenset()
        if closed.graceful and restart is not None:
            kept = frozenset(family for family, _ in restart.families) & negotiated.families
        self.rib.session_down(state.config.name, kept)
        if kept and restart is not None:
            self._sweep_later(state, restart.restart_time, "the peer did not come back in its restart time")
        self.watchers.peer_changed(state.config.name)
        self.plan_flush()

    def _state_of(self, session: PeerSession) -> PeerState | None:
        """The state of a session that is still the peer's: late callbacks of a removed peer find none."""
        state = self.peers.get(session.config.name)
        return state if state is not None and state.session is session else None

    # -- graceful restart, as helper --------------------------------------------------------------

    def _sweep_later(self, state: PeerState, seconds: float, why: str) -> None:
        state.stale_timer = self._loop.call_later(seconds, self._stale_expired, state, why)

    def _stale_expired(self, state: PeerState, why: str) -> None:
        state.stale_timer = None
        log.info("stale paths removed", peer=state.config.name, reason=why)
        for family in Family:
            self.rib.sweep_stale(state.config.name, family)
        self.plan_flush()

    def _end_of_rib(self, state: PeerState, source: Source, family: Family) -> None:
        self.rib.end_of_rib(source, family)
        # FRR says End-of-RIB before its routes: what is stale now leaves the RIB, and the FIB a while later.
        self.flush()
        self.rib.sweep_stale(state.config.name, family)
        self.flush(hold=True)
        if not self.has_stale(state.config.name):
            state.cancel_stale_timer()
        self.convergence.end_of_rib(state.config.name, family, self._loop.time())
        self.on_convergence()

    # -- limits and faults ------------------------------------------------------------------------

    def _route_refresh(self, state: PeerState, refresh: RouteRefresh) -> None:
        name, family = state.config.name, refresh.family
        if refresh.kind == RefreshKind.BEGIN:
            self.rib.mark_stale(name, family)
            if state.stale_timer is None:  # RFC 7313 section 4: do not wait for ever for the end
                self._sweep_later(state, self.config.fib.deferral_time, "the peer did not end its refresh")
        elif refresh.kind == RefreshKind.END:
            self.rib.sweep_stale(name, family)
            if not self.has_stale(name):
                state.cancel_stale_timer()
        else:
            self._out.refresh(name, family)

    def _limit_crossed(self, event: LimitEvent) -> None:
        limits = event.limits
        facts = {
            "peer": event.peer,
            "family": str(event.family),
            "prefixes": event.prefixes,
            "limit": limits.limit,
        }
        if event.kind is LimitKind.CLEARED:
            log.info("prefixes below the limit again", **facts)
        elif event.kind is LimitKind.WARN or limits.action == "warn":
            log.warning("prefixes near or over the limit", **facts)
        elif limits.action == "drop":
            log.warning("prefixes over the limit are refused", **facts)
        else:
            log.error("prefixes over the limit: session reset", idle=limits.idle_time, **facts)
            state = self.peers.get(event.peer)
            if state is not None:
                state.session.reset(cease(Cease.MAX_PREFIXES))

    # -- what leaves ------------------------------------------------------------------------------

    def plan_flush(self) -> None:
        """Let the changes collected by now leave in one of the loop's next turns, together with what comes in
        meanwhile."""
        self._more = True
        if not self._flush_planned:
            self._flush_planned = True
            self._flush_by = self._loop.time() + self._out.patience
            self._loop.call_soon(self._planned_flush)

    def _planned_flush(self) -> None:
        more, self._more = self._more, False
        # What waits may be a flood of connections, which is no reason to wait for more than one turn.
        if more and self._input_waits() and self._loop.time() < self._flush_by:
            self._loop.call_soon(self._planned_flush)  # behind what is read in this turn
            return
        self._flush_planned = False
        self.flush()

    def flush(self, *, hold: bool = False) -> None:
        """Let the changes collected by now leave."""
        changes = self.rib.take_changes()
        if changes:
            self._fib.changed(changes, hold=hold)
            self.watchers.changed(changes)

    def has_stale(self, name: PeerName) -> bool:
        """Whether paths of a peer are kept although its session is down."""
        return any(self.rib.counts(name, family).stale for family in Family)

    # -- what can be told -------------------------------------------------------------------------

    def peer_statuses(self) -> list[PeerStatus]:
        """Every configured peer, at this moment."""
        return [self.peer_status(state) for state in self.peers.values()]

    def peer_status(self, state: PeerState) -> PeerStatus:
        """One peer with its counts of prefixes, which its session does not know."""
        name, families = state.config.name, []
        for family in state.config.families:
            counts = self.rib.counts(name, family)
            families.append((family, counts._replace(advertised=self._out.advertised(name, family))))
        return replace(
            state.session.status(time.time()),
            families=tuple(families),
            not_announced=self._out.not_announced(name),
            end_of_rib=tuple(sorted(self.rib.end_of_rib_received(name))),
        )
