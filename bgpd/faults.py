"""Faults in our own code: they end the process.

Apart from the roles, so that the controller, which speaks no BGP and serves no gRPC, imports neither.
"""

from __future__ import annotations

import asyncio
import traceback

import structlog

from bgpd.errors import InvariantError

log = structlog.get_logger()

_OURS = frozenset(("bgpd", "routes"))


def crash_on_our_faults(tasks: asyncio.TaskGroup) -> None:
    """End the process when an exception passed through our own code: better no daemon than a wrong one.

    The kernel keeps its routes, peers with graceful restart keep our paths, and a supervisor starts it again.
    Libraries (gRPC's poller) let exceptions of their own reach the loop, and go on.
    """

    async def crash(error: BaseException) -> None:
        raise InvariantError("a callback of the event loop failed") from error

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception) and any(
            str(frame.f_globals.get("__name__", "")).split(".")[0] in _OURS
            for frame, _ in traceback.walk_tb(error.__traceback__)
        ):
            log.critical("a fault of ours: the daemon ends", exc_info=error)
            tasks.create_task(crash(error))
        else:
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(handle)
