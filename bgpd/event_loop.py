"""The daemons' event loop: asyncio's own, which can also be asked whether more input is ready.

Whoever changes the RIB wants to act on all that has arrived, and not to wait when nothing else has.  asyncio
knows neither: a turn hands out what was ready when it began.  One look at the selector does.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from time import monotonic


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's loop on epoll."""

    time = staticmethod(monotonic)

    def __init__(self) -> None:
        selector = selectors.EpollSelector()
        super().__init__(selector)
        self._any_ready = select.poll()
        self._any_ready.register(selector.fileno(), select.POLLIN)

    def input_waits(self) -> bool:
        """Whether a descriptor is ready that was not read, or not read to its end."""
        return bool(self._any_ready.poll(0))


def _unknown() -> bool:
    return False


def input_waits() -> Callable[[], bool]:
    """What asks the running loop; on any other loop than ours nothing is worth waiting for."""
    loop = asyncio.get_running_loop()
    return loop.input_waits if isinstance(loop, EventLoop) else _unknown
