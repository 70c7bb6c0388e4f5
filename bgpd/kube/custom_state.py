"""BGPNodeState: what one node's agent sees of its network, as the controller and people read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from bgpd import config_values as values
from bgpd.kube import custom_fields as fields
from bgpd.kube import custom_shared as shared
from bgpd.kube import custom_wire as wire
from bgpd.kube.custom_fields import Place
from bgpd.kube.custom_values import Condition
from routes.prefix import Address, Family, Prefix

STATES = ("Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established")
"""Of a session, RFC 4271 section 8.2.2."""
MOST_SESSIONS = 64
MOST_REFUSALS = 16
LONGEST_TEXT = 1024
LONGEST_RULE = 128

_MOST_ADDRESSES = 16
_MOST_PREFIXES = 8
_STATE = values.choice(*STATES)
_VERSION, _RULE, _TEXT = fields.text(64), fields.text(LONGEST_RULE), fields.text(LONGEST_TEXT)
_PEER = fields.text(63, 1)


@dataclass(frozen=True, slots=True)
class SessionState:
    """One session of a node."""

    peer: str
    asn: int
    state: str
    since: datetime | None = None
    families: tuple[Family, ...] = ()
    received: int = 0
    advertised: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RouteCounts:
    received: int = 0
    accepted: int = 0
    refused: int = 0
    installed: int = 0
    failed: int = 0
    held: int = 0


class RefusedPath(NamedTuple):
    peer: str
    rule: str
    prefix: Prefix
    text: str


@dataclass(frozen=True, slots=True)
class Drift:
    """What others did to the kernel's routes."""

    repaired: int = 0
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class BgpNodeState:
    """What one node's agent sees; it has the Node's name."""

    name: str
    uid: str
    generation: int
    router_id: int | None = None
    asn: int | None = None
    addresses: tuple[Address, ...] = ()
    pod_cidrs: tuple[Prefix, ...] = ()
    version: str = ""
    sessions: tuple[SessionState, ...] = ()
    routes: RouteCounts = RouteCounts()
    refusals: tuple[RefusedPath, ...] = ()
    drift: Drift = Drift()
    conditions: tuple[Condition, ...] = ()

    namespace = ""


def decode_node_state(raw: bytes) -> BgpNodeState:
    form = shared.read(raw, wire.NODE_STATE, "BGPNodeState")
    unread = shared.place("BGPNodeState", form.metadata)
    at, status = Place(unread.kind, unread.name, "status"), form.status
    return BgpNodeState(
        name=at.name,
        uid=form.metadata.uid,
        generation=form.metadata.generation,
        router_id=at.maybe("routerID", status.router_id, values.router_id),
        asn=at.maybe("asn", status.asn, values.asn),
        addresses=at.each("addresses", status.addresses, fields.address, _MOST_ADDRESSES),
        pod_cidrs=at.each("podCIDRs", status.pod_cidrs, fields.prefix, _MOST_PREFIXES),
        version=at.one("version", status.version, _VERSION),
        sessions=_sessions(at, status.sessions),
        routes=_routes(at.inside("routes"), status.routes),
        refusals=_refusals(at, status.refusals),
        drift=Drift(
            at.one("drift.repaired", status.drift.repaired, shared.COUNT),
            at.one("drift.foreign", status.drift.foreign, shared.COUNT),
        ),
        conditions=shared.conditions_of(at, status.conditions),
    )


def _sessions(at: Place, written: list[wire.Session]) -> tuple[SessionState, ...]:
    at.count("sessions", written, MOST_SESSIONS)
    at.each("sessions", [session.peer for session in written], _PEER, MOST_SESSIONS)
    return tuple(_session(at.inside(f"sessions[{number}]"), each) for number, each in enumerate(written))


def _session(at: Place, written: wire.Session) -> SessionState:
    return SessionState(
        peer=at.one("peer", written.peer, _PEER),
        asn=at.one("asn", written.asn, values.asn),
        state=at.one("state", written.state, _STATE),
        since=at.maybe("since", written.since, fields.moment),
        families=at.each("families", written.families, shared.family, len(shared.FAMILIES)),
        received=at.one("received", written.received, shared.COUNT),
        advertised=at.one("advertised", written.advertised, shared.COUNT),
        reason=at.one("reason", written.reason, _TEXT),
    )


def _routes(at: Place, written: wire.Routes) -> RouteCounts:
    return RouteCounts(
        received=at.one("received", written.received, shared.COUNT),
        accepted=at.one("accepted", written.accepted, shared.COUNT),
        refused=at.one("refused", written.refused, shared.COUNT),
        installed=at.one("installed", written.installed, shared.COUNT),
        failed=at.one("failed", written.failed, shared.COUNT),
        held=at.one("held", written.held, shared.COUNT),
    )


def _refusals(at: Place, written: list[wire.Refusal]) -> tuple[RefusedPath, ...]:
    at.count("refusals", written, MOST_REFUSALS)
    return tuple(_refusal(at.inside(f"refusals[{number}]"), each) for number, each in enumerate(written))


def _refusal(at: Place, written: wire.Refusal) -> RefusedPath:
    return RefusedPath(
        at.one("peer", written.peer, _PEER),
        at.one("rule", written.rule, _RULE),
        at.one("prefix", written.prefix, fields.prefix),
        at.one("text", written.text, _TEXT),
    )
