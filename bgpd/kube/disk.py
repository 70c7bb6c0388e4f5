"""The last intent on disk, so that a node that boots while the API server is away still routes its pods.

One file for each role, readable by its owner alone: it holds the sessions' passwords.  A file that can't be
read as an intent is none, never half of one.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import structlog

from bgpd.atomic_file import replace_file
from bgpd.kube.intent import Intent

log = structlog.get_logger()

MOST_BYTES = 16 << 20


class _Saved(msgspec.Struct):
    at: float
    intent: Intent
    node: str = ""


_SAVED = msgspec.json.Decoder(_Saved)


class IntentFile:
    """Where one role of one node keeps its intent."""

    def __init__(self, path: Path, node: str = "") -> None:
        self.path = path
        self._node = node
        self._stored: Intent | None = None
        self._lock = threading.Lock()
        self._closed = False

    def load(self) -> tuple[Intent, float] | None:
        """The intent, and when it was stored (seconds since the epoch); None where none can be used."""
        try:
            with self.path.open("rb") as handle:
                saved = _SAVED.decode(handle.read(MOST_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("the stored intent can't be used", file=str(self.path), reason=str(error)[:300])
            return None
        if saved.node != self._node:  # a disk that was cloned: two nodes with one prefix take both down
            log.warning("the stored intent is another node's", file=str(self.path), node=saved.node)
            return None
        return saved.intent, saved.at

    def store(self, intent: Intent) -> None:
        """Keep this one, if it is another.  It may be called from any thread."""
        with self._lock:
            if not self._closed and intent != self._stored and self._replace(intent):
                self._stored = intent

    def _replace(self, intent: Intent) -> bool:
        saved = _Saved(time.time(), intent, self._node)
        try:
            replace_file(self.path, msgspec.json.encode(saved), mode=0o600)
        except OSError as error:
            log.warning("the intent can't be stored", file=str(self.path), reason=str(error))
            return False
        return True

    def close(self) -> None:
        """Take no more: an older one that a thread still holds must not come after the last."""
        with self._lock:
            self._closed = True

    def remove(self) -> None:
        """Keep none, and take no more: this host leaves for good, and passwords go with it."""
        self.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the stored intent can't be removed", file=str(self.path), reason=str(error))
