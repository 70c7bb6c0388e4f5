"""The metrics of peers, as text: a series for each peer with an entry of its own, sums for ranges of clients.

Written without the metrics library, which takes 80 us for the twenty samples of a peer: a reflector has
thousands of peers, and is busy.  The format is Prometheus' text format 0.0.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from routes.path import PeerName
from routes.peer import Counters, PeerStatus, SessionState
from routes.prefix import Family
from routes.view import Table, TableCount

Value = int | float
Labels = tuple[tuple[str, str], ...]

_GAUGE, _COUNTER = "gauge", "counter"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

_COUNTED: tuple[tuple[str, Labels], ...] = (
    ("messages", (("direction", "in"),)),
    ("messages", (("direction", "out"),)),
    ("updates", (("direction", "in"),)),
    ("updates", (("direction", "out"),)),
    ("bytes", (("direction", "in"),)),
    ("bytes", (("direction", "out"),)),
    ("flaps", ()),
)
"""What `_values` gives, in its order."""
_NOTHING = (0,) * len(_COUNTED)

_MEANING = {
    "messages": "BGP messages",
    "updates": "UPDATE messages",
    "bytes": "Bytes of BGP messages",
    "flaps": "Established sessions that were lost",
}
_PREFIXES = "received, accepted by import policy, advertised, stale"


def _values(counters: Counters) -> tuple[int, ...]:
    return (
        counters.messages_in,
        counters.messages_out,
        counters.updates_in,
        counters.updates_out,
        counters.bytes_in,
        counters.bytes_out,
        counters.flaps,
    )


class _Family:
    """One metric with its samples."""

    def __init__(self, name: str, kind: str, text: str) -> None:
        self.name = name
        self._head = f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
        self._lines: list[str] = []

    def add(self, labels: Iterable[tuple[str, str]], value: Value) -> None:
        """A sample; `True` is 1."""
        inside = ",".join([f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels])
        self._lines.append(f"{self.name}{{{inside}}} {value if type(value) is not bool else int(value)}\n")

    def text(self) -> str:
        return self._head + "".join(self._lines)


def _counter_families(subject: str, of: str) -> dict[str, _Family]:
    return {
        key: _Family(f"podbgp_{subject}_{key}_total", _COUNTER, f"{meaning}{of}.")
        for key, meaning in _MEANING.items()
    }


class PeerSeries:
    """The samples of one scrape for peers with an entry, and the sessions of all by their state."""

    def __init__(self) -> None:
        self._states: Counter[SessionState] = Counter()
        self._received: Counter[Family] = Counter()
        self._accepted: Counter[Family] = Counter()
        self._up = _Family("podbgp_peer_up", _GAUGE, "Whether the session is established.")
        self._since = _Family(
            "podbgp_peer_state_since_timestamp_seconds", _GAUGE, "When the session entered its present state."
        )
        self._info = _Family("podbgp_peer_info", _GAUGE, "Always 1; what is configured of the peer.")
        self._counters = _counter_families("peer", "")
        self._prefixes = _Family("podbgp_peer_prefixes", _GAUGE, f"Prefixes of a peer: {_PREFIXES}.")

    def count(self, peer: PeerStatus) -> None:
        """Count the peer's session and what it announced, whatever the peer is."""
        self._states[peer.state] += 1
        for family, counts in peer.families:
            self._received[family] += counts.received
            self._accepted[family] += counts.accepted

    def received(self) -> tuple[TableCount, ...]:
        """The Adj-RIBs-In of all peers that were counted."""
        return tuple(
            TableCount(table, family, counts[family], counts[family])
            for family in Family
            for table, counts in ((Table.ADJ_IN_PRE, self._received), (Table.ADJ_IN_POST, self._accepted))
        )

    def add(self, peer: PeerStatus) -> None:
        """Show the peer by itself."""
        name = ("peer", peer.name)
        self._up.add((name,), peer.state is SessionState.ESTABLISHED)
        self._since.add((name,), peer.since)
        self._info.add((name, ("kind", peer.kind.value), ("asn", str(peer.asn))), 1)
        for (key, labels), value in zip(_COUNTED, _values(peer.counters), strict=True):
            self._counters[key].add((name, *labels), value)
        for family, counts in peer.families:
            for state, count in counts._asdict().items():
                self._prefixes.add((name, ("family", str(family)), ("state", state)), count)

    def text(self) -> str:
        """All families of the scrape."""
        sessions = _Family("podbgp_sessions", _GAUGE, "Peers by session state.")
        for state in SessionState:
            sessions.add((("state", state.value),), self._states[state])
        families = (sessions, self._up, self._since, self._info, *self._counters.values(), self._prefixes)
        return "".join(family.text() for family in families)


class ClientTotals:
    """Counters of ranges of clients, which never fall although clients go and new ones start from 0.

    A scrape adds what each client has counted since the one before, and forgets who is gone.
    """

    def __init__(self) -> None:
        self.totals: dict[str, list[int]] = {}
        self.last: dict[PeerName, tuple[int, ...]] = {}

    def begin(self) -> ClientSeries:
        """The samples of a scrape."""
        return ClientSeries(self)


class ClientSeries:
    """The samples of one scrape for the ranges."""

    def __init__(self, before: ClientTotals) -> None:
        self._before = before
        self._now: dict[PeerName, tuple[int, ...]] = {}
        self._states: Counter[tuple[str, SessionState]] = Counter()
        self._prefixes: Counter[tuple[str, str, str]] = Counter()

    def add(self, clients_of: str, peer: PeerStatus) -> None:
        """Count a client to its range."""
        self._states[clients_of, peer.state] += 1
        now = self._now[peer.name] = _values(peer.counters)
        last = self._before.last.get(peer.name, _NOTHING)
        if any(map(int.__lt__, now, last)):  # it went, and came again
            last = _NOTHING
        totals = self._before.totals.setdefault(clients_of, list(_NOTHING))
        for at, value in enumerate(now):
            totals[at] += value - last[at]
        for family, counts in peer.families:
            name = str(family)
            self._prefixes[clients_of, name, "received"] += counts.received
            self._prefixes[clients_of, name, "accepted"] += counts.accepted
            self._prefixes[clients_of, name, "advertised"] += counts.advertised
            self._prefixes[clients_of, name, "stale"] += counts.stale

    def text(self) -> str:
        """All families of the scrape, which is complete with this."""
        self._before.last = self._now
        sessions = _Family("podbgp_clients", _GAUGE, "Clients of a range by session state.")
        for clients_of in self._before.totals:
            for state in SessionState:
                sessions.add((("range", clients_of), ("state", state.value)), self._states[clients_of, state])
        counters = _counter_families("clients", " of all clients of a range")
        for clients_of, values in self._before.totals.items():
            for (key, labels), value in zip(_COUNTED, values, strict=True):
                counters[key].add((("range", clients_of), *labels), value)
        prefixes = _Family("podbgp_clients_prefixes", _GAUGE, f"Prefixes of a range's clients: {_PREFIXES}.")
        for (clients_of, family, kind), count in self._prefixes.items():
            prefixes.add((("range", clients_of), ("family", family), ("state", kind)), count)
        return "".join(family.text() for family in (sessions, *counters.values(), prefixes))
