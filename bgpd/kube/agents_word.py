"""What the agents say of the reflectors, counted: the election's witness.

A BGPNodeState lists the node's sessions.  Here each changed state costs as much as its sessions, and asking
costs as much as there are nodes, so that it is asked when an election is held and not before.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.kube.custom_state import BgpNodeState
from bgpd.kube.election import Reflector, Witness
from routes.prefix import format_address

ESTABLISHED = "Established"


class AgentsWord:
    """Who says that he has a session with whom."""

    def __init__(self) -> None:
        self._said: dict[str, frozenset[tuple[str, bool]]] = {}
        self._with_session: dict[str, set[str]] = {}
        """By the peer's address: names of nodes."""
        self._with_paths: dict[str, set[str]] = {}

    @property
    def reporters(self) -> Iterable[str]:
        return self._said.keys()

    def said(self, state: BgpNodeState) -> bool:
        """An agent wrote its state; whether that changes what may be asked here."""
        new = frozenset(
            (each.peer, each.received > 0) for each in state.sessions if each.state == ESTABLISHED
        )
        old = self._said.get(state.name)
        if old == new:
            return False
        self._replace(state.name, old or frozenset(), new)
        self._said[state.name] = new
        return True

    def silent(self, name: str) -> bool:
        """Its state is gone."""
        old = self._said.pop(name, None)
        if old is None:
            return False
        self._replace(name, old, frozenset())
        return True

    def _replace(self, name: str, old: frozenset[tuple[str, bool]], new: frozenset[tuple[str, bool]]) -> None:
        for peer, paths in old - new:
            _discard(self._with_session, peer, name)
            if paths:
                _discard(self._with_paths, peer, name)
        for peer, paths in new:
            self._with_session.setdefault(peer, set()).add(name)
            if paths:
                self._with_paths.setdefault(peer, set()).add(name)

    def witness(self, reflectors: Iterable[Reflector], ready: set[str], known: set[str]) -> Witness:
        """For an election: `ready` and `known` are the names of Ready Nodes and of all Nodes.

        A node alone gets no paths from its reflector, so that its session is enough.
        """
        trusted = bool(ready & self._said.keys())
        believed = (ready if trusted else known) & self._said.keys()
        reached, served = {}, {}
        for reflector in reflectors:
            peers = [format_address(address) for address in reflector.addresses]
            reached[reflector.uid] = _count(self._with_session, peers, believed)
            served[reflector.uid] = _count(self._with_paths, peers, believed)
        return Witness(len(believed), reached, trusted, served if len(believed) > 1 else reached)


def _discard(index: dict[str, set[str]], peer: str, name: str) -> None:
    names = index[peer]
    names.discard(name)
    if not names:
        del index[peer]


def _count(index: dict[str, set[str]], peers: list[str], believed: set[str]) -> int:
    names: set[str] = set()
    for peer in peers:
        names |= index.get(peer, set())
    return len(names & believed)
