"""Which clients a reflector had, across its restarts: a small file, written atomically.

It decides nothing but whom to wait for before End-of-RIB.  A missing or broken file costs that wait (the
deferral timer ends it), because then nobody knows how many clients there are; it never costs a start.  A file
that says `{"clients": []}` is a new cluster's: there is nobody to wait for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from pathlib import Path

import structlog

from bgpd.atomic_file import replace_file
from routes.path import PeerName

log = structlog.get_logger()

MOST_BYTES = 4 << 20
MOST_CLIENTS = 50_000


class ClientMemory:
    """The file; an empty path remembers nothing."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._stored: frozenset[PeerName] | None = None
        self._writing = threading.Lock()

    def load(self) -> frozenset[PeerName] | None:
        """The clients of the previous life; None when they are not known."""
        if self._path is None:
            return None
        try:
            self._stored = _read(self._path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("the remembered clients can't be read", file=str(self._path), reason=str(error))
            return None
        return self._stored

    def store(self, clients: Collection[PeerName]) -> None:
        """Remember these, if they are others than before."""
        now = frozenset(clients)
        if self._path is None or now == self._stored:
            return
        try:
            with self._writing:  # the last one, at the end, may come while another is written
                replace_file(self._path, json.dumps({"clients": sorted(now)}).encode())
        except OSError as error:
            log.warning("clients can't be remembered", file=str(self._path), reason=str(error))
            return
        self._stored = now


def _read(path: Path) -> frozenset[PeerName]:
    """The names in a file; ValueError, with a sentence, when it is not one of ours."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    content = json.loads(path.read_text())
    clients = content.get("clients") if isinstance(content, dict) else None
    if not isinstance(clients, list) or not all(isinstance(each, str) for each in clients):
        raise ValueError("it has no list of clients")
    return frozenset(map(PeerName, clients[:MOST_CLIENTS]))
