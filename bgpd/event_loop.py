"""The daemons' event loop: asyncio's own, with a short way from the kernel to who reads.

Two things asyncio does not have.  A reader is called as soon as the kernel names its descriptor, without a
handle and a turn of the loop in between: behind a pause each such step costs as much as a decision.  And who
changes the RIB can ask whether more input is ready, to act on all that has arrived and not to wait when
nothing else has.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVarTuple, Unpack

MOST_LOOKS = 16
"""Looks for more input in a turn of the loop, before timers and all else get theirs."""

Arguments = TypeVarTuple("Arguments")
Ready = list[tuple[selectors.SelectorKey, int]]


class HasFileno(Protocol):
    """A socket, say."""

    def fileno(self) -> int: ...


class _Selector(selectors.EpollSelector):
    """What asyncio waits for, and beside it readers of which it knows nothing, called by `select` itself."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._failed = failed
        self._readers: dict[int, Callable[[], object]] = {}
        self._epoll = select.epoll()
        self._epoll.register(self.fileno(), select.EPOLLIN)
        self._ready: list[tuple[int, int]] = []
        """Descriptors that were ready when we looked and have not had their turn, the next one last."""
        self._gone: set[int] = set()
        """Those whose reader went since: the number may be another's by now, who has nothing to read."""
        self._looks = 0

    def select(self, timeout: float | None = None) -> Ready:
        """Call the readers, and return what asyncio waits for."""
        ready, readers, gone, others = self._ready, self._readers, self._gone, False
        if not ready:
            self._look(timeout)
        self._looks = 0
        while ready and self._looks < MOST_LOOKS:
            fd = ready.pop()[0]
            if fd in gone:
                continue
            reader = readers.get(fd)
            if reader is None:
                others = True
                continue
            try:
                reader()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio's handles do
                self._failed(error)
        return super().select(0) if others else []

    def input_waits(self) -> bool:
        """Whether a descriptor is ready that was not read, or not read to its end."""
        if not self._ready:
            self._looks += 1
            self._look(0)
        return bool(self._ready)

    def _look(self, timeout: float | None) -> None:
        self._ready += self._epoll.poll(timeout, len(self._readers) + 1)
        self._ready.reverse()
        self._gone.clear()

    def add(self, fd: int, reader: Callable[[], object]) -> None:
        """Call `reader` whenever `fd` can be read."""
        if fd not in self._readers:
            self._epoll.register(fd, select.EPOLLIN)
        self._readers[fd] = reader

    def remove(self, fd: int) -> bool:
        """Call it no more; whether there was one."""
        if self._readers.pop(fd, None) is None:
            return False
        if self._ready:
            self._gone.add(fd)
        with suppress(OSError):  # it was closed before, and the kernel has forgotten it
            self._epoll.unregister(fd)
        return True

    def close(self) -> None:
        self._readers.clear()  # who comes to be removed later is not there any more
        self._epoll.close()
        super().close()


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's loop on epoll."""

    time = staticmethod(monotonic)

    def __init__(self) -> None:
        selector = _Selector(self._reader_failed)
        super().__init__(selector)
        self._input = selector
        self.input_waits = selector.input_waits

    def add_reader(
        self, fd: int | HasFileno, callback: Callable[[Unpack[Arguments]], Any], *args: *Arguments
    ) -> None:
        """Call back whenever `fd` can be read; a second call replaces the first."""
        self._input.add(_number(fd), partial(callback, *args) if args else callback)

    def remove_reader(self, fd: int | HasFileno) -> bool:
        """Call back no more; whether there was somebody to be called."""
        return self._input.remove(_number(fd))

    def _reader_failed(self, error: BaseException) -> None:
        self.call_exception_handler({"message": "exception in a reader", "exception": error})


def _number(fd: int | HasFileno) -> int:
    return fd if isinstance(fd, int) else fd.fileno()


def _unknown() -> bool:
    return False


def input_waits() -> Callable[[], bool]:
    """What asks the running loop; on any other loop than ours nothing is worth waiting for."""
    loop = asyncio.get_running_loop()
    return loop.input_waits if isinstance(loop, EventLoop) else _unknown
