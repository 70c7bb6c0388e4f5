"""The reflector role: thousands of clients, one log for each update group, and no kernel entry.

Wiring only.  It resolves no next hop (clients do), so every path is usable at cost 0 (RFC 4456 section 10
leaves the next hop alone).  After a restart it says End-of-RIB when the clients that it remembers are back
with theirs, or a deferral timer ends: an early one would make every agent drop live routes.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterable, Iterator, Mapping

import structlog

from bgpd import process
from bgpd.bgp.front import Write
from bgpd.bgp.session import PeerSession
from bgpd.bgp.update_groups import Terms, UpdateGroups
from bgpd.client_memory import ClientMemory
from bgpd.client_ranges import ClientRanges
from bgpd.config import Config, PeerConfig, ReflectorConfig
from bgpd.daemon import Daemon, repeated
from bgpd.errors import ConfigError
from bgpd.reflector_view import ReflectorView
from bgpd.reload import Reload
from bgpd.view import Facts
from routes.convergence import InitialConvergence
from routes.duplicates import Duplicate, Duplicates
from routes.node_prefixes import NodePrefixes
from routes.path import Path, PeerKind, PeerName
from routes.peer import Negotiated
from routes.policy import ImportPolicy, PeerImport
from routes.prefix import Family, Prefix, format_router_id
from routes.reflection import Border, Export, Role
from routes.rib import Rib
from routes.view import ShutdownReport

log = structlog.get_logger()

HOUSEKEEPING = 1.0
"""Seconds between two looks at who is here: a client that came since is not remembered yet."""
UNKNOWN_CLIENTS = PeerName("clients that are not remembered")
"""Waited for in vain where the previous life's clients are not known."""
SPARE_FILES = 256
"""File descriptors for all but the clients' sessions."""


def run(config: Config) -> int:
    """Run a reflector until it is told to stop; the exit code."""
    return process.run(config, Reflector)


def role_of(config: PeerConfig) -> Role:
    """What a peer is to this reflector."""
    return Role.of(config.kind, client=config.client)


class Outbox:
    """What peers are told (`bgpd.daemon.Outbound`); its groups are the `bgpd.daemon.ChangeSink`."""

    def __init__(self, config: Config, rib: Rib, write: Write = os.write) -> None:
        self.config = config
        self.roles: dict[PeerName, Role] = {}
        self.groups = UpdateGroups(
            self._selected, lambda name: self.roles.get(name, Role.NON_CLIENT), border_of(config), write
        )
        self._rib = rib

    def _selected(self, family: Family) -> Iterator[tuple[Prefix, tuple[Path, ...]]]:
        return iter(list(self._rib.loc_rib(family).selected.items()))

    @property
    def patience(self) -> float:
        """A write costs nearly the same whatever its size: waiting for one round of them may save many."""
        return self.groups.patience

    def is_client(self, name: PeerName) -> bool:
        """Whether a peer is, or was when it was last here, a client."""
        return self.roles.get(name) is Role.CLIENT

    def session_up(self, session: PeerSession, negotiated: Negotiated) -> None:
        """Let the peer read its logs."""
        peer = session.config
        self.roles[peer.name] = role_of(peer)
        self.groups.session_up(session, negotiated, self._terms(peer, negotiated))

    def _terms(self, peer: PeerConfig, negotiated: Negotiated) -> Terms:
        return Terms(role_of(peer), _export(self.config, peer, negotiated), peer.add_paths)

    def revise(self, peers: Mapping[PeerName, PeerConfig]) -> None:
        """Tell these, which are all that there are, what their configuration makes of the table now."""

        def terms_of(name: PeerName, negotiated: Negotiated) -> Terms | None:
            peer = peers.get(name)
            return None if peer is None else self._terms(peer, negotiated)

        self.groups.revise(terms_of)

    def session_down(self, name: PeerName) -> None:
        """The peer reads no more."""
        self.groups.session_down(name)

    def forget(self, name: PeerName) -> None:
        """The peer is gone for good."""
        self.roles.pop(name, None)
        self.groups.forget(name)

    def refresh(self, name: PeerName, family: Family) -> None:
        """The peer wants everything again."""
        self.groups.refresh(name, family)

    def advertised(self, name: PeerName, family: Family) -> int:
        """How many prefixes the peer's log announces, its own among them."""
        group = self.groups.groups_of(name).get(family)
        return 0 if group is None else group.log.size

    def not_announced(self, name: PeerName) -> tuple[tuple[Family, str], ...]:
        """Families for which `next_hop_self` has no address that the session could carry."""
        groups = self.groups.groups_of(name)
        return tuple((family, group.no_next_hop) for family, group in groups.items() if group.no_next_hop)


def _warn_of_duplicate(found: Duplicate) -> None:
    """It may be meant (anycast), so there is no more than a line, and of many only the first few."""
    repeated.warning(
        "duplicate",
        "a second client announces a prefix",
        prefix=str(found.nlri),
        peers=[found.first, found.second],
    )


def border_of(config: Config) -> Border:
    """What may leave for another AS."""
    return Border.of(config.imports.allow, _reflector(config).aggregates, config.speaker.router_id)


def _export(config: Config, peer: PeerConfig, negotiated: Negotiated) -> Export:
    reflector, policy = _reflector(config), peer.export
    return Export(
        asn=config.speaker.asn,
        cluster_id=reflector.cluster_id,
        next_hop=negotiated.local_address if peer.next_hop_self else None,
        local_pref=policy.local_pref,
        med=policy.med,
        prepend=policy.prepend,
        communities=policy.add_communities,
        large_communities=policy.add_large_communities,
        policies=config.named_policies(peer.export_policies),
    )


def _import_rules(config: Config) -> object:
    """What the import rules of a configuration are made of, to be compared."""
    ranges = [(clients.range, clients.import_policies) for clients in _reflector(config).clients]
    return config.imports, config.peers, config.policies, ranges


def _export_rules(config: Config) -> object:
    """What a configuration has peers told by policies, to be compared."""
    ranges = [(clients.range, clients.export_policies) for clients in _reflector(config).clients]
    return config.policies, ranges, [(peer.name, peer.export_policies) for peer in config.peers]


def _reflector(config: Config) -> ReflectorConfig:
    if config.reflector is None:
        raise ConfigError(f"{config.path}: reflector: is missing; `podbgpd agent` runs a file without it")
    return config.reflector


class Reflector(process.Role):
    """One reflector, from `start` to `finish`."""

    def __init__(
        self,
        config: Config,
        tasks: asyncio.TaskGroup,
        *,
        nodes: NodePrefixes | None = None,
        expected: frozenset[PeerName] | None = None,
    ) -> None:
        """`nodes`: who may announce what, where that is known; `expected`: clients to wait for at the start,
        where somebody knows them better than the state file."""
        super().__init__(config, tasks)
        reflector = _reflector(config)
        self.facts = Facts(time.time())
        self._nodes = nodes
        self._imports: dict[PeerName, PeerImport] = {}
        self._rib = Rib(self._policy(), max(1, 1, *self._add_paths()))
        self._memory = ClientMemory(reflector.state_file)
        remembered = self._memory.load() if expected is None else expected
        self._remembered = remembered or frozenset()
        names = {peer.name for peer in config.peers if not peer.shutdown} | self._remembered
        if remembered is None and reflector.clients:
            names.add(UNKNOWN_CLIENTS)  # a lost file, or a new host: only the deferral timer is safe
        self._convergence = InitialConvergence(names, self.loop.time(), 0.0, reflector.deferral_time)
        self.out = Outbox(config, self._rib)
        duplicates = Duplicates(self.out.is_client, _warn_of_duplicate)
        self._rib.watch_duplicates(duplicates)
        self.daemon = Daemon(
            config, self._rib, self.out.groups, self.out, lambda _: 0, self._convergence, tasks
        )
        self.ranges = ClientRanges(
            reflector.clients, config.speaker, self.daemon, self._imports, config.named_policies
        )
        self.daemon.listener.strangers = self.ranges
        self.view = ReflectorView(self.daemon, self.out.groups, duplicates, self.facts, self.request_shutdown)
        self._deferral: asyncio.TimerHandle | None = None

    def _add_paths(self) -> Iterable[int]:
        reflector = _reflector(self.config)
        yield from (peer.add_paths for peer in self.config.peers)
        yield from (clients.add_paths for clients in reflector.clients)

    def _policy(self) -> ImportPolicy:
        """Import rules: other ASes by `[import] allow`, clients by their range's, loops never."""
        config, reflector = self.config, _reflector(self.config)
        for peer in config.peers:
            self._imports[peer.name] = PeerImport(
                peer.allowas_in,
                peer.enforce_first_as,
                peer.max_prefixes,
                trusted=peer.kind is PeerKind.IBGP,
                policies=config.named_policies(peer.import_policies),
            )
        return ImportPolicy(
            asn=config.speaker.asn,
            router_id=config.speaker.router_id,
            cluster_id=reflector.cluster_id,
            allow=config.imports.allow,
            peers=self._imports,
            nodes=self._nodes,
        )

    # -- starting ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, connect; a PodbgpError says what stands in the way."""
        self._raise_file_limit()
        self.daemon.watchers = self.view
        self.daemon.on_convergence = self._check_convergence
        # A reflector forwards nothing, so nothing of that is ever lost: the F bit is always set.
        self.daemon.found = frozenset(Family)
        await self.serve()
        self.daemon.listener.start()
        for peer in self.config.peers:
            self.daemon.add_peer(peer)
        self._deferral = self.loop.call_at(self._convergence.release_at(), self._complete)
        self._check_convergence()
        self.run_in_background(self._keep_house())
        log.info(
            "reflector started",
            router_id=format_router_id(self.config.speaker.router_id),
            cluster_id=format_router_id(_reflector(self.config).cluster_id),
            waiting_for=len(self._convergence.waiting_for),
        )

    def _raise_file_limit(self) -> None:
        """As many descriptors as there may be sessions, or a clear error."""
        reflector = _reflector(self.config)
        sessions = sum(clients.max_sessions for clients in reflector.clients) + len(self.config.peers)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = sessions + SPARE_FILES
        if soft >= wanted:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (OSError, ValueError):
            if hard < wanted:
                raise ConfigError(
                    f"{self.config.path}: reflector.clients.max_sessions: {sessions} sessions need {wanted} "
                    f"file descriptors and the limit is {hard}: raise it (LimitNOFILE= of the unit), or "
                    "lower the key"
                ) from None
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def _check_convergence(self) -> None:
        if self._convergence.release_at() <= self.loop.time():
            self._complete()

    def _complete(self) -> None:
        """Everybody gets End-of-RIB."""
        if self.facts.converged_at:
            return
        if self._deferral is not None:
            self._deferral.cancel()
        missing = self._convergence.waiting_for
        self.facts.converged_at = time.time()
        log.info(
            "initial convergence complete",
            seconds=round(time.time() - self.facts.started, 3),
            missing=missing,
        )
        self.daemon.flush()
        self.out.groups.complete()
        self.converged()

    async def _keep_house(self) -> None:
        """Let go of clients that are gone, and remember those that are here."""
        while True:
            await asyncio.sleep(HOUSEKEEPING)
            self.ranges.let_go()
            await asyncio.to_thread(self._memory.store, self._to_remember())  # no client waits for a disk

    def _to_remember(self) -> set[PeerName]:
        """Clients that are here, whose paths are kept, or that are still awaited since the previous life."""
        awaited = () if self.facts.converged_at else self._convergence.waiting_for
        return {*self.ranges.alive(), *self._remembered.intersection(awaited)}

    def verify_against(self, nodes: NodePrefixes | None) -> None:
        """Hold clients' paths against what they may announce; None: that is not known."""
        if nodes is not self._nodes:
            self._nodes = nodes
            self._rib.set_policy(self._policy())
            self.daemon.plan_flush()

    def rejudge(self, prefixes: Iterable[Prefix]) -> None:
        """Nodes changed: judge the paths of these prefixes again."""
        self._rib.rejudge(prefixes)
        self.daemon.plan_flush()

    # -- the rest of its life ---------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether everybody has everything."""
        return self.out.groups.idle

    def take(self, old: Config, plan: Reload) -> None:
        """Take a changed configuration."""
        self.out.config = self.config
        self.ranges.configure(_reflector(self.config).clients, self.config.named_policies)
        if _import_rules(old) != _import_rules(self.config):
            self._rib.set_policy(self._policy())
        self._rib.set_multipath(max(1, 1, *self._add_paths()))
        if _export_rules(old) != _export_rules(self.config):
            self.daemon.flush()
            peers = {name: state.config for name, state in self.daemon.peers.items()}
            self.out.revise(peers | {peer.name: peer for peer in plan.changed})
        aggregates = _reflector(self.config).aggregates
        if old.imports != self.config.imports or _reflector(old).aggregates != aggregates:
            self.daemon.flush()
            self.out.groups.redraw(border_of(self.config))

    def freeze(self) -> None:
        """Clients are told nothing of what closing sessions withdraw."""
        self.out.groups.freeze()
        self._memory.store(self._to_remember())

    async def release(self, *, flush: bool, closed: int) -> ShutdownReport:  # noqa: ARG002  no kernel entries
        """There is nothing of ours in the kernel."""
        return ShutdownReport(closed, 0, 0)
