"""Which Nodes reflect, and how a reflector is replaced without a gap (RFC 4456 needs at least one).

`elect` takes what is known of the Nodes, what the agents say of their sessions, who reflects now and the
time, and returns who shall.  Nobody labels Nodes: those that look like staying are taken, spread over zones.

    Starting   elected; agents connect to it.
    Active     nine of ten agents that report have its paths (or half of them, after `STARTING_TIME`).
    Draining   a successor is Active; agents keep their sessions until it is taken off the list.

The rules, in the order of their weight:

1. The last Active reflector is never drained, and none is drained while that leaves fewer Active than wanted.
2. A replacement is Active before the one that it replaces drains, and one replacement is under way at a time.
   One whose Node is gone is replaced at once.
3. The agents' sessions are the witness; a kubelet's heartbeat only changes how long a silent reflector is
   waited for.  When no Node is Ready, nobody can testify, and nothing changes but for Nodes that are gone.
4. Who is elected stays elected; a crowded zone is relieved only after `REBALANCE_TIME`.

This module must never read a clock or talk to an API server.  Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bgpd.kube.candidates import Candidate
from bgpd.kube.custom_values import Phase
from bgpd.kube.identity import reflector_router_id_of
from routes.prefix import Address

STARTING_TIME = 120.0
"""A new reflector that half of the agents do not reach in this time is given up for another."""
NOT_READY_PATIENCE = 60.0
"""How long a reflector is waited for that agents lost and whose Node is not Ready either."""
READY_PATIENCE = 120.0
"""The same where the Node is Ready: it may be restarting."""
UNSURE_PATIENCE = 300.0
"""The same while fewer than half of the Nodes are Ready: the trouble may be ours."""
DRAIN_TIME = 30.0
"""From a successor's becoming Active until the old one leaves the list."""
REBALANCE_TIME = 600.0
"""How long zones may be uneven before a reflector moves."""
SHUN_TIME = 600.0
"""How long a Node that could not start is the last choice."""

MOST_SHUNNED = 64


@dataclass(frozen=True, slots=True)
class Reflector:
    """One elected Node, or a Pod of dedicated reflectors."""

    node: str
    uid: str
    addresses: tuple[Address, ...]
    router_id: int
    phase: Phase
    since: float = 0.0
    """When the phase began, or was first seen."""
    quiet_since: float | None = None
    """Since when most agents have no session with it."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What the agents say: those on Ready Nodes, or all where no Node is Ready."""

    reporters: int
    reached: Mapping[str, int] = field(default_factory=dict)
    """By a reflector's UID: how many of them have a session with it."""
    trusted: bool = True
    """Whether the reporters' Nodes are Ready; what others say may be old, and proves no loss."""
    served: Mapping[str, int] | None = None
    """How many of them have paths from it, too; None: as many as have a session."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the election remembers from one time to the next."""

    reflectors: tuple[Reflector, ...] = ()
    shunned: Mapping[str, float] = field(default_factory=dict)
    """By UID, until when."""
    uneven_since: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that changed, for an event and the log."""

    reason: str
    node: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Who reflects from now on."""

    standing: Standing
    steps: tuple[Step, ...] = ()
    wake: float | None = None
    """When to ask again although nothing else changed."""

    @property
    def reflectors(self) -> tuple[Reflector, ...]:
        return self.standing.reflectors


def elect(
    candidates: Mapping[str, Candidate], witness: Witness, standing: Standing, count: int, now: float
) -> Plan:
    """The next standing; `candidates` are all Nodes by UID, `count` how many shall reflect."""
    vote = _Vote(candidates, witness, standing, count, now)
    vote.look()
    vote.call_back()
    vote.relieve_crowded_zone()
    vote.start_missing()
    vote.drop_surplus()
    vote.start_missing()  # who drained may have made room for the next replacement
    return vote.plan()


class _Vote:
    """One call of `elect`, step by step."""

    def __init__(
        self,
        candidates: Mapping[str, Candidate],
        witness: Witness,
        standing: Standing,
        count: int,
        now: float,
    ) -> None:
        self.candidates = candidates
        self.witness = witness
        self.before = standing
        self.count = count
        self.now = now
        self.steps: list[Step] = []
        self.wakes: list[float] = []
        self.shunned = {uid: until for uid, until in standing.shunned.items() if until > now}
        self.reflectors: dict[str, Reflector] = {}
        self.unfit: set[str] = set()
        """Those that shall be replaced."""
        self.uneven_since: float | None = None
        ready = sum(candidate.ready for candidate in candidates.values())
        self.unsure = ready * 2 < len(candidates)

    # -- health -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Bring everyone up to date, and drop those that are over."""
        for old in self.before.reflectors:
            reflector = self._refreshed(old)
            if reflector is not None:
                self.reflectors[reflector.uid] = reflector
        for reflector in self._in(Phase.DRAINING):
            self._end_drain(reflector)

    def _refreshed(self, old: Reflector) -> Reflector | None:
        candidate = self.candidates.get(old.uid)
        reached = self._reached(old)
        if candidate is None and (not reached or old.phase is Phase.STARTING):
            self._dropped(old, "its Node is gone")
            return None
        quiet = self.witness.trusted and self.witness.reporters > 0 and not reached
        since = (self.now if old.quiet_since is None else old.quiet_since) if quiet else None
        new = replace(old, quiet_since=since)
        if candidate is None:
            self.unfit.add(new.uid)
            return new
        new = replace(new, node=candidate.name, addresses=candidate.addresses or old.addresses)
        if candidate.leaving or self._lost(new, candidate):
            self.unfit.add(new.uid)
        return self._started(new) if new.phase is Phase.STARTING else new

    def _reached(self, reflector: Reflector) -> bool:
        """Whether at least half of the agents have a session with it."""
        reached = self.witness.reached.get(reflector.uid, 0)
        return reached > 0 and reached * 2 >= self.witness.reporters

    def _lost(self, reflector: Reflector, candidate: Candidate) -> bool:
        if reflector.quiet_since is None or reflector.phase is Phase.STARTING:
            return False
        patience = NOT_READY_PATIENCE if not candidate.ready else READY_PATIENCE
        return self._due(reflector.quiet_since + (UNSURE_PATIENCE if self.unsure else patience))

    def _started(self, reflector: Reflector) -> Reflector | None:
        """A Starting reflector after a look: Active, Starting still, or given up."""
        if reflector.uid in self.unfit:
            self._dropped(reflector, "its Node is leaving")
            return None
        witness = self.witness
        reporters, reached = witness.reporters, witness.reached.get(reflector.uid, 0)
        served = (witness.reached if witness.served is None else witness.served).get(reflector.uid, 0)
        late = reflector.since + STARTING_TIME <= self.now
        if served * 10 >= reporters * 9 > 0 or (late and self._reached(reflector)):
            text = f"{served} of {reporters} agents have its routes"
            self.steps.append(Step("ReflectorActive", reflector.node, text))
            return replace(reflector, phase=Phase.ACTIVE, since=self.now)
        if not self._due(reflector.since + STARTING_TIME) or not reporters or not self.witness.trusted:
            return reflector
        self._shun(reflector.uid)
        if self._choice(beside={reflector.uid}, shunned=False) is None:
            return replace(reflector, since=self.now)
        self._dropped(reflector, f"{reached} of {reporters} agents reached it in {STARTING_TIME:g} s")
        return None

    def _end_drain(self, reflector: Reflector) -> None:
        if self._due(reflector.since + DRAIN_TIME) and self._in(Phase.ACTIVE):
            del self.reflectors[reflector.uid]
            self._dropped(reflector, "its successor serves")

    # -- choices ----------------------------------------------------------------------------------

    def call_back(self) -> None:
        """A draining reflector that works is sooner there than a new one."""
        for reflector in self._in(Phase.DRAINING):
            if len(self._live()) >= self.count:
                return
            if reflector.uid not in self.unfit and self._reached(reflector):
                self._enter(reflector, Phase.ACTIVE, "ReflectorActive", "it is needed again")

    def relieve_crowded_zone(self) -> None:
        """Have one of the fullest zone replaced, if a Node of a zone with two fewer waits for long."""
        settled = [one for one in self._in(Phase.ACTIVE) if one.uid not in self.unfit]
        if len(settled) != self.count:
            return
        loads = self._loads(settled)
        choice = self._choice(loads=loads, shunned=False)
        if choice is None or not choice.ready or max(loads.values()) < loads[choice.zone] + 2:
            return
        since = self.before.uneven_since
        self.uneven_since = self.now if since is None else since
        if self._due(self.uneven_since + REBALANCE_TIME):
            self.unfit.add(self._worst(settled).uid)

    def start_missing(self) -> None:
        """Fill up to `count`, and start one replacement if none is under way."""
        while len(self._live()) < self.count and self._start():
            pass
        replaceable = [one for one in self._in(Phase.ACTIVE) if one.uid in self.unfit]
        if replaceable and len(self._live()) == self.count and not self._in(Phase.STARTING):
            self._start()

    def _start(self) -> bool:
        chosen = self._choice()
        if chosen is None:
            return False
        router_id = reflector_router_id_of(chosen.uid)
        self.reflectors[chosen.uid] = Reflector(
            chosen.name, chosen.uid, chosen.addresses, router_id, Phase.STARTING, self.now
        )
        self._due(self.now + STARTING_TIME)
        zone = f"zone {chosen.zone}" if chosen.zone else "a Node without a zone"
        self.steps.append(Step("ReflectorElected", chosen.name, f"elected as a route reflector, {zone}"))
        return True

    def drop_surplus(self) -> None:
        """Forget starts that are not needed any more, and drain what is Active beyond `count`."""
        active = self._in(Phase.ACTIVE)
        replacements = int(any(one.uid in self.unfit for one in active))
        for reflector in self._in(Phase.STARTING)[max(self.count - len(active), replacements) :]:
            del self.reflectors[reflector.uid]
            self._dropped(reflector, "it is not needed any more")
        while len(active := self._in(Phase.ACTIVE)) > self.count:
            self._enter(self._worst(active), Phase.DRAINING, "ReflectorDraining", "a successor serves")
            self._due(self.now + DRAIN_TIME)

    def _choice(
        self,
        *,
        loads: Counter[str] | None = None,
        beside: set[str] | frozenset[str] = frozenset(),
        shunned: bool = True,
    ) -> Candidate | None:
        """The best Node that does not reflect yet."""
        if loads is None:
            loads = self._loads([one for one in self._live() if one.uid not in self.unfit])
        free = [
            candidate
            for uid, candidate in self.candidates.items()
            if uid not in self.reflectors
            and uid not in beside
            and candidate.addresses
            and not candidate.leaving
            and (shunned or uid not in self.shunned)
        ]
        return min(free, key=lambda candidate: self._rank(candidate, loads), default=None)

    def _rank(self, candidate: Candidate, loads: Counter[str]) -> tuple[int | float | str, ...]:
        return (
            candidate.uid in self.shunned,
            not candidate.ready,
            not candidate.reports,
            loads[candidate.zone],
            candidate.spot,
            candidate.created,
            candidate.uid,
        )

    def _worst(self, among: list[Reflector]) -> Reflector:
        """Who goes first."""
        loads = self._loads([one for one in among if one.uid not in self.unfit])

        def badness(one: Reflector) -> tuple[int | float | str, ...]:
            candidate = self.candidates.get(one.uid)
            unfit, quiet = one.uid in self.unfit, one.quiet_since is not None
            if candidate is None:
                return unfit, quiet, 0, False, 0.0, one.uid
            return unfit, quiet, loads[candidate.zone], candidate.spot, candidate.created, one.uid

        return max(among, key=badness)

    # -- bookkeeping ------------------------------------------------------------------------------

    def _in(self, phase: Phase) -> list[Reflector]:
        return [one for one in self.reflectors.values() if one.phase is phase]

    def _live(self) -> list[Reflector]:
        return [one for one in self.reflectors.values() if one.phase is not Phase.DRAINING]

    def _loads(self, reflectors: list[Reflector]) -> Counter[str]:
        known = (self.candidates.get(one.uid) for one in reflectors)
        return Counter(candidate.zone for candidate in known if candidate is not None)

    def _due(self, when: float) -> bool:
        """Whether a time has come; if not, ask again then."""
        if when > self.now:
            self.wakes.append(when)
        return when <= self.now

    def _enter(self, reflector: Reflector, phase: Phase, reason: str, text: str) -> None:
        self.reflectors[reflector.uid] = replace(reflector, phase=phase, since=self.now)
        self.steps.append(Step(reason, reflector.node, text))

    def _dropped(self, reflector: Reflector, why: str) -> None:
        self.steps.append(Step("ReflectorRemoved", reflector.node, f"no longer a route reflector: {why}"))

    def _shun(self, uid: str) -> None:
        self.shunned[uid] = self.now + SHUN_TIME
        while len(self.shunned) > MOST_SHUNNED:
            del self.shunned[min(self.shunned, key=lambda one: (self.shunned[one], one))]

    def plan(self) -> Plan:
        reflectors = tuple(self.reflectors.values())
        standing = Standing(reflectors, self.shunned, self.uneven_since)
        return Plan(standing, tuple(self.steps), min(self.wakes, default=None))
