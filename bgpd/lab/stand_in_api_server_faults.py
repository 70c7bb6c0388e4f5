"""How the stand-in API server misbehaves, when told to.

Each fault is one that real clusters have: an overloaded server, a proxy in between that answers by itself, a
server that stops in the middle of a sentence, one that accepts connections and says nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Instead:
    """An answer in place of the right one.  `cut`: the connection ends after the body, in the middle."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    retry_after: int | None = None
    endless: bool = False
    cut: bool = False


@dataclass
class Faults:
    """May be changed from any thread at any time."""

    delay: float = 0.0
    hanging: bool = False
    gone_by_status: bool = False  # a watch from too old a version: 410 as the answer instead of in the stream
    _instead: deque[tuple[str, Instead]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail_next(
        self, count: int, status: int = 500, *, retry_after: int | None = None, matching: str = ""
    ) -> None:
        """The next `count` requests whose URL contains `matching` get this status."""
        for _ in range(count):
            self.answer_next(Instead(status, b"", retry_after=retry_after), matching=matching)

    def answer_next(self, instead: Instead, *, count: int = 1, matching: str = "") -> None:
        with self._lock:
            self._instead.extend([(matching, instead)] * count)

    def clear(self) -> None:
        with self._lock:
            self._instead.clear()
        self.delay, self.hanging = 0.0, False

    @property
    def pending(self) -> int:
        return len(self._instead)

    def take(self, url: str) -> Instead | None:
        with self._lock:
            for number, (matching, instead) in enumerate(self._instead):
                if matching in url:
                    del self._instead[number]
                    return instead
        return None


@dataclass
class Load:
    """What clients cost this server: (verb, resource) -> requests, and the bytes of its answers."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    urls: deque[str] = field(default_factory=lambda: deque(maxlen=10_000))

    def asked(self, verb: str, resource: str, url: str) -> None:
        self.requests[verb, resource] += 1
        self.urls.append(f"{verb} {url}")
