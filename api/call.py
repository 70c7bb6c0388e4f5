"""What every call of the API has in common: its pace, its errors, and how it ends.

The event loop belongs to BGP; the API is a guest.  All calls together get one slice of a few milliseconds
in each turn of the loop, however many there are, and a client that does not take what it asked for is ended
with a sentence that says so.  Nothing here knows what is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from time import perf_counter
from typing import Generic, NamedTuple, Protocol, TypeVar

import grpc
import structlog

from api.feed import FeedClosedError, TooSlowError

Item = TypeVar("Item")
Wire = TypeVar("Wire")
Request = TypeVar("Request")
Response = TypeVar("Response")

log = structlog.get_logger()

CHUNK = 500
"""Routes in one message: below, the cost of a message shows; above, the time for which it holds the loop."""
SLICE = 0.002
"""Seconds of work before the loop turns; packing a full chunk comes on top."""
GOODBYE_TIME = 2.0
"""Seconds to wait until a client that is ended has taken its status."""


class Bounds(NamedTuple):
    """What clients may hold at most."""

    stall_time: float = 30.0
    """Seconds that a client may take nothing at all, while its messages wait, before it is ended."""
    watches: int = 64
    """At a time, in all."""
    pending: int = 131_072
    """Changes that may wait for one watch: a full table of 100,000 prefixes may arrive at once."""


DEFAULT_BOUNDS = Bounds()


class CallError(Exception):
    """The call can't be answered: a status code, and a sentence for whoever made it."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def invalid(field: str, text: str) -> CallError:
    """A field of the request is wrong; `text` names its value and what is valid."""
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {text}")


class Pace:
    """One slice of work in each turn of the loop, for all calls of a server together."""

    def __init__(self, slice_time: float = SLICE) -> None:
        self._slice_time = slice_time
        self._turn = asyncio.Lock()  # fair: who released it queues behind those who wait

    async def chunks(
        self, items: Iterator[Item | None], convert: Callable[[Item], Wire], most: int = CHUNK
    ) -> AsyncIterator[list[Wire]]:
        """Convert all items, up to `most` at a time; None among the items is skipped."""
        done = False
        while not done:
            chunk: list[Wire] = []
            while not done and len(chunk) < most:
                async with self._turn:  # held until the loop has turned: that is what paces the others
                    done = self._work(items, convert, chunk, most)
                    await asyncio.sleep(0)
            if chunk:
                yield chunk

    def _work(
        self, items: Iterator[Item | None], convert: Callable[[Item], Wire], chunk: list[Wire], most: int
    ) -> bool:
        end = perf_counter() + self._slice_time
        for item in items:
            if item is not None:
                chunk.append(convert(item))
            if len(chunk) >= most or perf_counter() > end:
                return False
        return True


class Writer(Generic[Request, Response]):
    """Sends the messages of one stream, and notices a client that takes none."""

    def __init__(self, context: grpc.aio.ServicerContext[Request, Response], stall_time: float) -> None:
        self._context = context
        self._stall_time = stall_time

    async def send(self, message: Response) -> None:
        """Send one message; waits while the client's window is full, up to the stall time."""
        try:
            async with asyncio.timeout(self._stall_time):
                await self._context.write(message)
        except TimeoutError:
            text = f"the client took nothing for {self._stall_time:g} s; ask again, and read faster"
            raise CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, text) from None


class Closable(Protocol):
    """A subscription, whatever its keys."""

    def close(self) -> None:
        """End it."""


class Watches:
    """The open watches of a server: how many there may be, and how they end with it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Closable] = set()
        self._calls = 0
        self._none = asyncio.Event()
        """Set while no call is under way."""
        self._none.set()
        self._ending = False

    @asynccontextmanager
    async def answering(
        self, context: grpc.aio.ServicerContext[Request, Response], method: str
    ) -> AsyncIterator[None]:
        """As `answering`, for a call that `ended` waits for."""
        self._calls += 1
        self._none.clear()
        try:
            async with answering(context, method):
                yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._none.set()

    @contextmanager
    def admit(self, subscription: Closable) -> Iterator[None]:
        """Count one watch for as long as it runs."""
        if len(self._open) >= self._most:
            text = f"{self._most} watches are open, and no more are served at a time"
            raise CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        if self._ending:
            raise FeedClosedError
        self._open.add(subscription)
        try:
            yield
        finally:
            self._open.discard(subscription)

    def close(self) -> None:
        """The server is stopping: end every watch with a reason."""
        self._ending = True
        for subscription in self._open:
            subscription.close()

    async def ended(self) -> None:
        """Wait until every call has sent its status."""
        await self._none.wait()


@asynccontextmanager
async def answering(context: grpc.aio.ServicerContext[Request, Response], method: str) -> AsyncIterator[None]:
    """Turn what goes wrong in a call into its status."""
    try:
        yield
    except CallError as error:
        code, text = error.code, str(error)
    except TooSlowError as error:
        code, text = grpc.StatusCode.RESOURCE_EXHAUSTED, f"{error}; watch again for a new snapshot"
    except FeedClosedError as error:
        code, text = grpc.StatusCode.UNAVAILABLE, str(error)
    else:
        return
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        log.warning("api client ended", method=method, client=context.peer(), reason=text)
    # A client that reads nothing would keep us waiting for ever; its status stays queued behind the rest.
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_TIME):
            await context.abort(code, text)
