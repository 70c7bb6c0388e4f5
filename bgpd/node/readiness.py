"""When the node may get pods, and why it may not yet.

Owns the gates between a fresh agent and a node that takes pods.  `can_forward` opens when the world knows
our prefixes and we know the world's: then the CNI configuration is written.  `ready` opens when that
is there and the kernel was read back: then NetworkUnavailable is cleared and the startup taint removed.

Pure.  Both are monotone: once open, a gate stays open whatever peers do.  Removing the CNI configuration
would make the kubelet report NotReady and pods be evicted, although their routes are still in the kernel
and kept by graceful restart (RFC 4724): a lost reflector must never empty nodes.  Only a node that leaves
(deleted or flushed) closes them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

NAMED = 5
"""So many peers, or failures, are named in a sentence."""


class Quorum(StrEnum):
    """How many of the expected peers must know us and be known."""

    ONE = "One"
    MAJORITY = "Majority"
    ALL = "All"

    def of(self, expected: int) -> int:
        """The number; a cluster of one expects nobody."""
        if self is Quorum.ONE:
            return min(1, expected)
        return expected // 2 + 1 if self is Quorum.MAJORITY and expected else expected


class PeerFacts(NamedTuple):
    """What matters of one expected peer."""

    name: str
    established: bool
    established_for: float
    """Seconds since it became Established."""
    own_written: bool
    """Our own prefixes were written to it in this session."""
    graceful_restart: bool
    """It was negotiated, so that End-of-RIB will come."""
    end_of_rib: bool
    """It was received in each negotiated family."""


class ReadinessFacts(NamedTuple):
    """All that is judged, at one moment."""

    own_prefixes: int
    peers: tuple[PeerFacts, ...]
    """Expected ones, whether or not there is a session."""
    quorum: Quorum
    settle_time: float
    """Seconds since Established that stand for End-of-RIB, where graceful restart was not negotiated."""
    fib_pending: int
    """Changes that the kernel has not acknowledged."""
    fib_failures: tuple[str, ...]
    """A sentence for each entry that the kernel refused."""
    kernel_verified: bool
    """A dump of the kernel showed what is wanted, after the last change."""
    cni_written: bool
    leaving: bool = False
    """The node is deleted, or the agent told to leave for good."""


class Readiness(NamedTuple):
    """What may happen, and each reason why not more."""

    can_forward: bool = False
    """The CNI configuration may be there."""
    ready: bool = False
    """The node may be shown as usable."""
    reasons: tuple[str, ...] = ()
    """Why a gate is closed; with all open, what is wrong nevertheless."""


NOT_YET = Readiness(reasons=("nothing is known yet",))


def judge(facts: ReadinessFacts, before: Readiness = NOT_YET) -> Readiness:
    """Which gates are open now, given which were."""
    if facts.leaving:
        return Readiness(reasons=("the node is leaving: it takes no new pods",))
    forwarding = (*_prefixes(facts), *_peers(facts), *_fib(facts))
    can_forward = before.can_forward or not forwarding
    verified = () if facts.kernel_verified else ("the kernel's routes have not been read back yet",)
    wired = () if facts.cni_written else ("the CNI configuration is not written",)
    ready = before.ready or not (forwarding or verified or wired)
    if not before.can_forward:
        return Readiness(can_forward, ready, forwarding + verified + wired)
    kept = tuple(f"{reason} (pods stay wired: their routes are kept)" for reason in forwarding)
    return Readiness(True, ready, kept + verified + wired)


def _prefixes(facts: ReadinessFacts) -> tuple[str, ...]:
    return () if facts.own_prefixes else ("the node has no pod prefix to announce (spec.podCIDRs)",)


def _peers(facts: ReadinessFacts) -> tuple[str, ...]:
    """One sentence while the quorum is missing; it names whom we wait for, and for what."""
    waits = {peer.name: wait for peer in facts.peers if (wait := _wait(peer, facts.settle_time))}
    done, needed = len(facts.peers) - len(waits), facts.quorum.of(len(facts.peers))
    if done >= needed:
        return ()
    named = _some([f"{name} ({wait})" for name, wait in waits.items()])
    return (f"{done} of {len(facts.peers)} peers know us and are known, {needed} are needed: {named}",)


def _wait(peer: PeerFacts, settle_time: float) -> str:
    """What this peer still lacks; empty when it counts."""
    if not peer.established:
        return "no session"
    if not peer.own_written:
        return "our prefixes are not written yet"
    if peer.graceful_restart:
        return "" if peer.end_of_rib else "no End-of-RIB yet"
    if peer.end_of_rib or peer.established_for >= settle_time:
        return ""
    return f"Established for {peer.established_for:.1f} of {settle_time:g} s, without graceful restart"


def _fib(facts: ReadinessFacts) -> tuple[str, ...]:
    pending, failed = facts.fib_pending, len(facts.fib_failures)
    found: list[str] = []
    if pending:
        found.append(f"the kernel has not acknowledged {pending} {'change' if pending == 1 else 'changes'}")
    if failed:
        entries = "1 entry" if failed == 1 else f"{failed} entries"
        found.append(f"the kernel refused {entries}: {_some(list(facts.fib_failures))}")
    return tuple(found)


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
