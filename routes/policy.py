"""Import policy: what a peer may tell us, and the name of the rule behind each verdict.

Safe by default: nothing is accepted that no `allow` entry admits, and whatever the entries say, never
our own prefixes or anything inside them, never a martian, never a path that loops (RFC 4271 section
9.1.2, RFC 4456 section 8).  A refusal is a verdict like any other: the path stays in Adj-RIB-In as
received, with its rule, so that a person can ask why.

What the fixed rules accept is then held against the nodes of the cluster, where they are known
(`node_prefixes.py`), and goes through the peer's own policies (`route_policy.py`), which narrow and modify.

`ImportPolicy.judge` is the definition.  The hot path asks the same in two halves, what `compile_attributes`
gives once for each UPDATE's attributes and what `ImportPolicy.admits` gives once for each prefix; a property
test holds them equal.  What depends on both is `ImportPolicy.rest`, which most peers have not.
This module must never keep state about paths, and a policy never changes: a new one replaces it.  Only the
nodes that it refers to may change, and whoever changes them has `Rib.rejudge` look again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from routes.node_prefixes import NodePrefixes
from routes.own_path import OwnPath
from routes.path import (
    GRACEFUL_SHUTDOWN,
    AsPath,
    PathAttributes,
    PeerKind,
    PeerName,
    Source,
)
from routes.prefix import Address, Prefix, format_address, format_router_id
from routes.prefix_rules import (
    MARTIANS,
    AllowEntry,
    allowing,
    compile_prefixes,
    is_martian_next_hop,
)
from routes.route_policy import Outcome, Policies, compile_policies
from routes.route_policy import judge as judge_policies

__all__ = [
    "DEFAULT_LOCAL_PREF",
    "DEFAULT_PEER_IMPORT",
    "MARTIANS",
    "AllowEntry",
    "ImportPolicy",
    "MaxPrefixes",
    "PeerImport",
    "Refusal",
    "Rest",
    "Rule",
    "Verdict",
    "compile_attributes",
    "compile_prefixes",
    "is_martian_next_hop",
]

DEFAULT_LOCAL_PREF = 100
"""What `local_pref=None` counts as in the decision process and is shown as."""


@dataclass(frozen=True, slots=True)
class MaxPrefixes:
    """The most prefixes that a peer may announce in each family."""

    limit: int
    warn_percent: int = 80
    action: str = "reset"
    """`warn`, `drop` (refuse what is over the limit) or `reset` (Cease, RFC 4486)."""
    idle_time: float = 60.0
    """Seconds without a session after a reset."""


class Rule(StrEnum):
    """Names of import rules.

    A plain acceptance is named after its entry, `allow 10.244.0.0/16`, and what a policy decided after it
    and its rule: `policy NAME rule NAME`.
    """

    ORIGINATED = "originated"
    TRUSTED = "own-as"
    GRACEFUL_SHUTDOWN = "graceful-shutdown"
    MARTIAN = "martian"
    OWN_PREFIX = "own-prefix"
    DEFAULT_NOT_ALLOWED = "default-not-allowed"
    NOT_ALLOWED = "not-allowed"
    AS_LOOP = "as-loop"
    FIRST_AS = "first-as"
    ORIGINATOR_LOOP = "originator-loop"
    CLUSTER_LOOP = "cluster-loop"
    OWN_NEXT_HOP = "own-next-hop"
    MARTIAN_NEXT_HOP = "martian-next-hop"
    NODE_MISMATCH = "node-mismatch"
    MAX_PREFIXES = "max-prefixes"


class Verdict(NamedTuple):
    """What import decides on one path."""

    accepted: bool
    attributes: PathAttributes
    """After import; as received when refused."""
    rule: str
    text: str
    """A sentence for a person."""


class Refusal(NamedTuple):
    """A rule that a path broke."""

    rule: Rule
    text: str


@dataclass(frozen=True, slots=True)
class PeerImport:
    """Import options of one peer."""

    allowas_in: int = 0
    """How often our own AS number may occur in an AS_PATH."""
    enforce_first_as: bool = True
    """An eBGP peer's paths begin with its own AS (RFC 4271 section 6.3); turn it off for a route server."""
    max_prefixes: MaxPrefixes | None = None
    allow: tuple[AllowEntry, ...] | None = None
    """Entries in place of the policy's own."""
    trusted: bool = False
    """Needs no entry: a reflector takes from its own AS whatever is no martian and no loop."""
    policies: Policies = ()
    """Asked about what all other rules accept, in order."""


DEFAULT_PEER_IMPORT = PeerImport()

_SUSPECT_FIRST = frozenset({0, 127})
"""First bytes below 224 that a martian of either family can have."""

Rest = Callable[[Prefix, PathAttributes], PathAttributes | None]
"""The attributes after import of what both halves of the rules accept, from those that were received."""


class ImportPolicy:
    """The rules for every peer.  Immutable; `with_own_paths` makes the next one."""

    __slots__ = (
        "_compiled",
        "allow",
        "asn",
        "cluster_id",
        "nodes",
        "own_addresses",
        "own_paths",
        "own_prefixes",
        "peers",
        "router_id",
    )

    def __init__(
        self,
        *,
        asn: int,
        router_id: int,
        allow: Iterable[AllowEntry] = (),
        own_paths: Iterable[OwnPath] = (),
        own_addresses: Iterable[Address] = (),
        cluster_id: int | None = None,
        peers: Mapping[PeerName, PeerImport] | None = None,
        nodes: NodePrefixes | None = None,
    ) -> None:
        self.asn = asn
        self.router_id = router_id
        self.allow = tuple(allow)
        self.own_paths = tuple(own_paths)
        """What the speaker originates, for who begins with this policy."""
        self.own_prefixes = tuple(each.nlri for each in self.own_paths if each.unreachable)
        """Those that are ours alone, so that nobody else's paths inside them are accepted."""
        self.own_addresses = frozenset(own_addresses)
        self.cluster_id = cluster_id
        self.peers: Mapping[PeerName, PeerImport] = {} if peers is None else peers
        """May gain peers while the policy is in use; what is there must not change."""
        self.nodes = nodes
        """Who may announce which pod prefix over iBGP; None: that is not known here."""
        self._compiled: dict[tuple[AllowEntry, ...] | None, dict[int, Callable[[Prefix], bool]]] = {}

    def admits(self, peer: PeerName) -> dict[int, Callable[[Prefix], bool]]:
        """For each address size: whether the prefix half of the rules accepts a prefix of this peer."""
        allow = self.entries(peer)
        compiled = self._compiled.get(allow)
        if compiled is None:
            denied = (*MARTIANS, *self.own_prefixes)
            compiled = {size: compile_prefixes(allow, denied, size) for size in (4, 16)}
            self._compiled[allow] = compiled
        return compiled

    def entries(self, peer: PeerName) -> tuple[AllowEntry, ...] | None:
        """The entries that admit prefixes of this peer; None when it needs none."""
        options = self.options(peer)
        if options.allow is not None:
            return options.allow
        return None if options.trusted else self.allow

    def with_own_paths(self, own_paths: Iterable[OwnPath]) -> ImportPolicy:
        """The same rules for a speaker that originates `own_paths`."""
        made = ImportPolicy(
            asn=self.asn,
            router_id=self.router_id,
            allow=self.allow,
            own_paths=own_paths,
            own_addresses=self.own_addresses,
            cluster_id=self.cluster_id,
            peers=self.peers,
            nodes=self.nodes,
        )
        if made.own_prefixes == self.own_prefixes:
            made._compiled = self._compiled
        return made

    def options(self, peer: PeerName) -> PeerImport:
        """The peer's import options."""
        return self.peers.get(peer, DEFAULT_PEER_IMPORT)

    def judge(self, source: Source, attributes: PathAttributes, nlri: Prefix) -> Verdict:
        """The verdict on one path, with its rule and a sentence."""
        if source.kind is PeerKind.LOCAL:
            return Verdict(True, attributes, Rule.ORIGINATED, "originated by this speaker")
        entries = self.entries(source.peer)
        entry = None if entries is None else allowing(entries, nlri)
        refusal = self._refused_prefix(nlri, needs_entry=entries is not None and entry is None)
        refusal = refusal or self._refused_attributes(source, attributes)
        refusal = refusal or self._refused_by_nodes(source, attributes, nlri)
        if refusal is not None:
            return Verdict(False, attributes, refusal.rule, refusal.text)
        rule = Rule.TRUSTED if entry is None else f"allow {entry.prefix}"
        text = "of our own AS" if entry is None else f"admitted by the import entry {entry.prefix}"
        told = judge_policies(self.options(source.peer).policies, nlri, _without_foreign(source, attributes))
        if not told.accepted:
            return Verdict(False, attributes, told.rule, told.text)
        if told.rule:
            rule, text = told.rule, f"{text}; {told.text}"
        imported = _with_graceful_shutdown(told.attributes)
        if GRACEFUL_SHUTDOWN in imported.communities:
            text += "; local preference 0, because the peer is shutting down gracefully (RFC 8326)"
            return Verdict(True, imported, told.rule or Rule.GRACEFUL_SHUTDOWN, text)
        return Verdict(True, imported, rule, text)

    def _refused_prefix(self, nlri: Prefix, *, needs_entry: bool) -> Refusal | None:
        martian = next((each for each in MARTIANS if each.contains(nlri)), None)
        if martian is not None:
            return Refusal(Rule.MARTIAN, f"{nlri} lies in {martian}, which is no destination")
        own = next((each for each in self.own_prefixes if each.contains(nlri)), None)
        if own is not None:
            where = "is" if own == nlri else "lies in"
            return Refusal(Rule.OWN_PREFIX, f"{nlri} {where} our own prefix {own}")
        if not needs_entry:
            return None
        if nlri.length == 0:
            return Refusal(
                Rule.DEFAULT_NOT_ALLOWED, f"a default route is accepted only where {nlri} is listed"
            )
        return Refusal(Rule.NOT_ALLOWED, f"no import entry admits {nlri}")

    def _refused_attributes(self, source: Source, attributes: PathAttributes) -> Refusal | None:
        """The first rule that the attributes break."""
        as_path, next_hop = attributes.as_path, attributes.next_hop
        refusal = self.refused_as_path(source, as_path)
        if refusal is not None:
            return refusal
        if source.kind is PeerKind.IBGP:
            if attributes.originator_id == self.router_id:
                text = f"the originator ID {format_router_id(self.router_id)} is our own"
                return Refusal(Rule.ORIGINATOR_LOOP, text)
            if self.cluster_id is not None and self.cluster_id in attributes.cluster_list:
                text = f"the cluster list contains our own cluster ID {format_router_id(self.cluster_id)}"
                return Refusal(Rule.CLUSTER_LOOP, text)
        if next_hop in self.own_addresses:
            return Refusal(Rule.OWN_NEXT_HOP, f"the next hop {format_address(next_hop)} is our own address")
        if is_martian_next_hop(next_hop, attributes.link_local):
            return Refusal(Rule.MARTIAN_NEXT_HOP, f"{format_address(next_hop)} can't be a next hop")
        return None

    def _refused_by_nodes(self, source: Source, attributes: PathAttributes, nlri: Prefix) -> Refusal | None:
        if self.nodes is None or source.kind is not PeerKind.IBGP:
            return None
        text = self.nodes.why_refused(nlri, attributes.next_hop)
        return Refusal(Rule.NODE_MISMATCH, text) if text else None

    def rest(self, source: Source) -> Rest | None:
        """What is asked of a path of this session that both halves accept; None when nothing is."""
        nodes = self.nodes if source.kind is PeerKind.IBGP else None
        policies = self.options(source.peer).policies
        if nodes is None and not policies:
            return None
        outcome = compile_policies(policies, _after_policies)
        last: PathAttributes | None = None
        plain: PathAttributes | None = None

        def rest(nlri: Prefix, attributes: PathAttributes) -> PathAttributes | None:
            nonlocal last, plain
            if nodes is not None and nodes.why_refused(nlri, attributes.next_hop):
                return None
            if attributes is not last or plain is None:
                last, plain = attributes, _without_foreign(source, attributes)
            return outcome(nlri, plain)

        return rest

    def refused_as_path(self, source: Source, as_path: AsPath) -> Refusal | None:
        """The rule that the AS_PATH breaks: a loop, or an eBGP peer's that begins with another's AS."""
        options = self.options(source.peer)
        seen = as_path.count(self.asn)
        if seen > options.allowas_in:
            allowed = f", allowas_in is {options.allowas_in}" if options.allowas_in else ""
            text = f"the AS path [{as_path}] contains our own AS {self.asn} {_times(seen)}{allowed}"
            return Refusal(Rule.AS_LOOP, text)
        if source.kind is PeerKind.EBGP and options.enforce_first_as and as_path.neighbor_as != source.asn:
            text = f"the AS path [{as_path}] does not begin with the peer's AS {source.asn}"
            return Refusal(Rule.FIRST_AS, text)
        return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _without_foreign(source: Source, attributes: PathAttributes) -> PathAttributes:
    """The attributes without what means nothing from another AS; the same object when nothing changes.

    LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST (RFC 4271 section 5.1.5, RFC 4456 section 8) would let it
    outbid everybody.
    """
    if source.kind is PeerKind.EBGP and (
        attributes.local_pref is not None or attributes.originator_id is not None or attributes.cluster_list
    ):
        return attributes._replace(local_pref=None, originator_id=None, cluster_list=())
    return attributes


def _with_graceful_shutdown(attributes: PathAttributes) -> PathAttributes:
    """The least preference for what goes soon (RFC 8326), whoever set another."""
    if GRACEFUL_SHUTDOWN in attributes.communities and attributes.local_pref != 0:
        return attributes._replace(local_pref=0)
    return attributes


def _after_policies(told: Outcome) -> PathAttributes | None:
    return _with_graceful_shutdown(told.attributes) if told.accepted else None


def compile_attributes(
    policy: ImportPolicy, source: Source
) -> Callable[[PathAttributes], PathAttributes | None]:
    """The attribute half of the rules for one session.

    The answer is the attributes after import, the same object when unchanged, or None when they are
    refused.  It remembers the last attributes and the last sound AS_PATH by identity: a decoder that
    shares equal ones, or an UPDATE split in many, is judged once.
    """
    own_asn, own_addresses = policy.asn, policy.own_addresses
    router_id, cluster_id = policy.router_id, policy.cluster_id
    external = source.kind is PeerKind.EBGP
    first_as = source.asn
    sound_as_path: AsPath | None = None
    last: PathAttributes | None = None
    verdict: PathAttributes | None = None

    def admit(attributes: PathAttributes) -> PathAttributes | None:
        nonlocal last, verdict, sound_as_path
        if attributes is last:
            return verdict
        last, verdict = attributes, None
        as_path = attributes.as_path
        if as_path is not sound_as_path:
            # The cheap question first; the whole one only for those that might break a rule.
            suspect = external and as_path.neighbor_as != first_as
            for _, asns in as_path.segments:
                suspect = suspect or own_asn in asns
            if suspect and policy.refused_as_path(source, as_path) is not None:
                return None
            sound_as_path = as_path
        next_hop = attributes.next_hop
        first = next_hop[0]
        if next_hop in own_addresses or (
            (first in _SUSPECT_FIRST or first >= 224) and is_martian_next_hop(next_hop, attributes.link_local)
        ):
            return None
        originator_id, cluster_list = attributes.originator_id, attributes.cluster_list
        if external:
            changed = attributes.local_pref is not None or originator_id is not None or bool(cluster_list)
        elif originator_id == router_id or cluster_id in cluster_list:
            return None
        else:
            changed = False
        if changed or GRACEFUL_SHUTDOWN in attributes.communities:
            verdict = _with_graceful_shutdown(_without_foreign(source, attributes))
        else:
            verdict = attributes
        return verdict

    return admit
