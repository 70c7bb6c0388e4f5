"""Whether each custom resource can be used, as a condition of its status.

`Accepted` is about the object alone: its own fields, and what it must not overlap.  `ReferencesFound` is
about what it names: policies and Secrets; while one is missing, sessions that need it stay down, and this
says why.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bgpd.kube.conditions import Say
from bgpd.kube.custom_values import BgpCluster, BgpPeer, Policies, SecretKey, Speakers, Topology
from bgpd.kube.review import Reviewed

T = TypeVar("T")

ACCEPTED = Say("Accepted", True, "Valid")


@dataclass(frozen=True, slots=True)
class Known:
    """What references may name."""

    policies: frozenset[str]
    """Valid BGPPolicies."""
    invalid_policies: frozenset[str]
    secrets: Mapping[str, frozenset[str] | None]
    """Secrets of podbgp's own namespace, and their keys; None: there is none of that name."""
    namespace: str
    topology: Topology | None = None
    """None: there is no BGPCluster."""


def accepted(reviewed: Reviewed[T]) -> Say:
    """Whether the object can be read."""
    return Say("Accepted", False, "Invalid", reviewed.problem) if reviewed.problem else ACCEPTED


def cluster_says(cluster: BgpCluster, known: Known) -> list[Say]:
    """Of a BGPCluster that can be read."""
    return [ACCEPTED, _references(cluster.policies, cluster.password_secret, known)]


def peer_says(peer: BgpPeer, known: Known) -> list[Say]:
    """Of a BGPPeer that can be read."""
    unused = ""
    if known.topology is None:
        unused = "there is no BGPCluster"
    elif peer.speakers is Speakers.REFLECTORS and known.topology is not Topology.REFLECTOR:
        unused = f"speakers: Reflectors, and topology {known.topology.value} has none"
    said = Say("Accepted", True, "NotUsed", unused) if unused else ACCEPTED
    return [said, _references(peer.policies, peer.password_secret, known)]


def _references(policies: Policies, secret: SecretKey | None, known: Known) -> Say:
    missing = list(_missing_policies((*policies.imports, *policies.exports), known))
    if secret is not None and secret.name in known.secrets:  # else: not heard of yet
        keys = known.secrets[secret.name]
        if keys is None:
            missing.append(f"passwordSecret: there is no Secret {secret.name} in namespace {known.namespace}")
        elif secret.key not in keys:
            missing.append(f"passwordSecret: Secret {secret.name} has no key {secret.key}")
    if missing:
        return Say("ReferencesFound", False, "Missing", "; ".join(missing))
    return Say("ReferencesFound", True, "Found")


def _missing_policies(names: Iterable[str], known: Known) -> Iterable[str]:
    for name in dict.fromkeys(names):
        if name in known.invalid_policies:
            yield f"policies: BGPPolicy {name} is invalid"
        elif name not in known.policies:
            yield f"policies: there is no BGPPolicy {name}"
