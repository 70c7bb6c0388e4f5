"""What a daemon serves at its metrics port while it waits for the cluster to say what it should do.

It is alive (`/healthz` 200: a restart would bring nothing) and not ready (`/readyz` 503), and both say what
it waits for.  The role takes the listener over when it starts, so that no probe finds the port closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from bgpd.config import Config
from bgpd.errors import ConfigError
from bgpd.meters import Meters
from bgpd.metrics_server import MetricsServer, Page
from bgpd.version import version
from routes.path import PeerName
from routes.peer import PeerStatus
from routes.view import Convergence, DaemonStatus, IntentStatus


class Waiting:
    """Implements `bgpd.metrics.MetricsSource` for a daemon that has no tables and no peers yet."""

    def __init__(self, role: str, intent: Callable[[], IntentStatus]) -> None:
        self.role = role
        self._intent = intent
        self._started = time.time()

    def peers(self) -> Iterable[PeerStatus]:
        return ()

    def range_of(self, name: PeerName) -> str | None:  # noqa: ARG002  there is none
        return None

    def status(self, *, received: bool) -> DaemonStatus:  # noqa: ARG002  nothing is received yet
        nothing = Convergence(complete=False)
        intent = self._intent()
        return DaemonStatus(
            version(), self.role, 0, 0, self._started, nothing, warnings=intent.warnings, intent=intent
        )


async def serve_while_waiting(
    host: Config, source: Waiting, why: Callable[[], str], pages: Mapping[str, Page]
) -> MetricsServer | None:
    """Listen where the host's settings say; `why` tells what is waited for, `pages` are served at once."""
    if host.metrics_listen is None:
        return None
    from bgpd.metrics import Metrics  # noqa: PLC0415  3 MB that many do without

    server = MetricsServer(Metrics(source, Meters()).exposition, str, unready=why, pages=pages)
    try:
        await server.start(host.metrics_listen)
    except OSError as error:
        raise ConfigError(f"{host.path}: metrics.listen: {error.strerror}") from None
    return server
