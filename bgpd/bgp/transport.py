"""One TCP connection on the event loop: bytes in, bytes out, each bounded.

Raw non-blocking sockets and callbacks, no task and no stream object: a reflector has thousands of these.
Input is read in slices whose size follows the time that their processing took, so that one peer's full
table starves nobody.  Output is batched until the end of the loop's turn and then written in one call.

Messages are whole in `send`, so a NOTIFICATION can replace everything that has not been started: the
message of which a part is out is finished first.  A closing connection lingers a moment for the peer
to read that NOTIFICATION, because closing on unread input would send a reset that may overtake it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from itertools import islice
from typing import Protocol

from bgpd.bgp.tcp import SocketAddress

READ_LARGEST = 1 << 18
READ_LEAST = 1 << 12
_READ_FIRST = 1 << 15
_READ_BUDGET = 0.005
"""Seconds that processing one slice of input should take."""
_LINGER = 1.0
_IOV = 64
"""Buffers of what is queued for each write call."""
_FED = 1 << 19
"""Bytes of the feed for each write call."""
_WRITES = 4
"""Write calls before others get their turn."""
_HEADER = 19


class TransportOwner(Protocol):
    """Who is told what happens; after `close` nothing is told any more."""

    def transport_connected(self, transport: Transport) -> None: ...
    def transport_received(self, transport: Transport, data: bytes) -> None: ...
    def transport_lost(self, transport: Transport, text: str) -> None: ...
    def transport_wrote(self, transport: Transport, size: int) -> None:
        """Bytes left for the kernel, or (size 0) `transport.blocked` has changed."""

    def transport_closed(self, transport: Transport) -> None:
        """After `close`: the socket is gone, and lingers no more."""


class Feed(Protocol):
    """Output that is not queued but read where it lies, once the kernel has room (`bgpd.bgp.outflow`)."""

    @property
    def rest(self) -> bytes | memoryview:
        """Of a message that was started: it goes out before anything else."""

    @property
    def messages(self) -> int:
        """Messages started."""

    @property
    def bytes_past(self) -> int:
        """Bytes written past the transport."""

    def stand_alone(self) -> None:
        """Have nothing more written past the transport: a message may be started, or it is closing."""

    def next_slices(self, limit: int) -> list[bytes | memoryview]:
        """Whole messages, about `limit` bytes together; `rest` is not among them."""

    def sent(self, size: int) -> None:
        """That much of `rest` and then of the last slices is out."""


class Transport:
    """One connection, from `connect` or `adopt` until `close`."""

    __slots__ = (
        "_bytes_out",
        "_closing",
        "_flushing",
        "_linger",
        "_loop",
        "_output",
        "_owner",
        "_send",
        "_send_many",
        "_shut",
        "_slice",
        "_started",
        "blocked",
        "fd",
        "feed",
        "pending",
        "socket",
    )

    def __init__(self, sock: socket.socket, owner: TransportOwner, loop: asyncio.AbstractEventLoop) -> None:
        self.socket = sock
        self.fd = sock.fileno()
        """For the feed to write to while this is `idle`: `stand_alone` comes before it is closed."""
        self._send, self._send_many = sock.send, sock.sendmsg
        self._owner = owner
        self._loop = loop
        self._slice = _READ_FIRST
        self._output: deque[bytes] = deque()
        self._started = 0
        """Bytes of the first buffer that are out."""
        self.pending = 0
        """Bytes that wait for the kernel."""
        self._bytes_out = 0
        self.blocked = False
        self.feed: Feed | None = None
        self._flushing = False
        self._closing = False
        self._shut = False
        self._linger: asyncio.TimerHandle | None = None

    @property
    def bytes_out(self) -> int:
        """Bytes that the kernel took."""
        return self._bytes_out + (self.feed.bytes_past if self.feed is not None else 0)

    # -- opening ----------------------------------------------------------------------------------

    def connect(self, address: SocketAddress) -> str:
        """Begin; the owner hears the outcome.  A sentence if it failed at once, else empty."""
        error = self.socket.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            return os.strerror(error)
        self._loop.add_writer(self.fd, self._on_connected)
        return ""

    def adopt(self) -> None:
        """Read from a connection that is open."""
        self._loop.add_reader(self.fd, self.read_ready)

    def _on_connected(self) -> None:
        self._loop.remove_writer(self.fd)
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._owner.transport_lost(self, os.strerror(error))
            return
        self.adopt()
        self._owner.transport_connected(self)

    # -- input ------------------------------------------------------------------------------------

    def read_ready(self) -> None:
        """Take one slice of what has arrived, if any."""
        if self._closing:
            return
        try:
            data = self.socket.recv(self._slice)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._owner.transport_lost(self, f"connection lost: {error.strerror or error}")
            return
        if not data:
            self._owner.transport_lost(self, "the peer closed the connection")
            return
        size = len(data)
        if size < READ_LEAST:  # whatever it takes, a smaller slice would not help
            self._owner.transport_received(self, data)
            return
        began = self._loop.time()
        self._owner.transport_received(self, data)
        took = self._loop.time() - began
        if took > 2 * _READ_BUDGET and size > READ_LEAST:
            self._slice = max(READ_LEAST, size // 2)
        elif took < _READ_BUDGET / 2 and size == self._slice:
            self._slice = min(READ_LARGEST, self._slice * 2)

    # -- output -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue whole messages; they leave at the end of this turn of the loop."""
        if self._closing or not data:
            return
        self._output.append(data)
        self.pending += len(data)
        if not self._flushing and not self.blocked:
            self._flushing = True
            self._loop.call_soon(self._flush)

    @property
    def idle(self) -> bool:
        """Whether all that was given is out."""
        return not (self.blocked or self._output or self._closing or self._flushing)

    def pump(self) -> None:
        """Write what the feed has, unless the kernel takes nothing now."""
        if not self.blocked and not self._flushing and not self._closing:
            self._flush()

    def _flush(self) -> None:
        self._flushing = False
        if self.socket.fileno() == -1:
            return
        for _ in range(_WRITES):
            buffers = self._next_buffers()
            if not buffers:
                break
            wanted = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
            size = self._write(buffers)
            if size is None:
                return
            if size < wanted:
                self._set_blocked(True)
                return
            if wanted < _FED and len(buffers) < _IOV and not self._output:
                break  # that was all
        else:
            self._flushing = True
            self._loop.call_soon(self._flush)  # others come first
        self._set_blocked(False)
        if self._closing and not self._flushing:
            self._shut_down()

    def _set_blocked(self, blocked: bool) -> None:
        if blocked != self.blocked:
            self.blocked = blocked
            if blocked:
                if self.feed is not None:
                    self.feed.stand_alone()
                self._loop.add_writer(self.fd, self._flush)
            else:
                self._loop.remove_writer(self.fd)
            self._tell(0)

    def _next_buffers(self) -> list[bytes | memoryview]:
        """What goes out next: the rest of a started message, what is queued, then the feed."""
        if not self._output and not self._closing and self.feed is not None and not self.feed.rest:
            return self.feed.next_slices(_FED)
        buffers: list[bytes | memoryview] = []
        feed = None if self._closing else self.feed
        if feed is not None and feed.rest:
            buffers.append(feed.rest)
        if self._output:
            head = self._output[0]
            buffers.append(memoryview(head)[self._started :] if self._started else head)
            buffers += islice(self._output, 1, _IOV)
        if feed is not None and len(buffers) < _IOV:
            buffers += feed.next_slices(_FED)
        return buffers

    def _write(self, buffers: list[bytes | memoryview]) -> int | None:
        """One write call: bytes taken, 0 when the kernel takes none, None when the connection is lost."""
        try:
            size = self._send(buffers[0]) if len(buffers) == 1 else self._send_many(buffers)
        except (BlockingIOError, InterruptedError):
            size = 0
        except OSError as error:
            self._lost_output(error.strerror or str(error))
            return None
        self._bytes_out += size
        self._account(size)
        if self.blocked and size:
            self._tell(size)
        return size

    def _account(self, size: int) -> None:
        feed = None if self._closing else self.feed
        if self._output:
            of_rest = min(size, len(feed.rest)) if feed is not None else 0
            queued = min(size - of_rest, self.pending)
            self.pending -= queued
            size -= queued
            left = self._started + queued
            while self._output and left >= len(self._output[0]):
                left -= len(self._output.popleft())
            self._started = left
        if feed is not None:
            feed.sent(size)

    def _tell(self, size: int) -> None:
        if not self._closing:
            self._owner.transport_wrote(self, size)

    def _lost_output(self, text: str) -> None:
        if self._closing:
            self._destroy()
            return
        # What the peer said last, a NOTIFICATION perhaps, is still to be read: input reports the loss.
        self._output.clear()
        self.pending = self._started = 0
        if self.blocked:
            self.blocked = False
            self._loop.remove_writer(self.fd)
        self._loop.call_soon(self._lost_unless_closed, f"connection lost: {text}")

    def _lost_unless_closed(self, text: str) -> None:
        self.read_ready()
        if not self._closing:
            self._owner.transport_lost(self, text)

    # -- closing ----------------------------------------------------------------------------------

    def close(self, last: bytes = b"") -> None:
        """Send `last` in place of what has not been started, and close; with nothing to say, at once."""
        if self._closing:
            return
        if self.feed is not None:
            self.feed.stand_alone()
        self._closing = True
        self._loop.remove_reader(self.fd)
        if not last:
            self._destroy()
            return
        self._keep_started_message()
        self._output.append(last)
        self.pending = sum(map(len, self._output))
        self._linger = self._loop.call_later(_LINGER, self._destroy)
        self._flush()

    def _keep_started_message(self) -> None:
        """Drop the output but the rest of a message of which the peer has a part."""
        if self.feed is not None and self.feed.rest:
            self._output.clear()
            self._started = 0
            self._output.append(bytes(self.feed.rest))
            return
        head = self._output[0] if self._output else b""
        started, self._started = self._started, 0
        self._output.clear()
        end = 0
        while end < started and end + _HEADER <= len(head):
            end += max(_HEADER, int.from_bytes(head[end + 16 : end + 18], "big"))
        if started < end:
            self._output.append(head[started:end])

    def _shut_down(self) -> None:
        """All is out: tell the peer, and wait for it to close."""
        if self._shut:
            return
        self._shut = True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._destroy()
            return
        self._loop.add_reader(self.fd, self._discard)
        self._discard()

    def _discard(self) -> None:
        try:
            if not self.socket.recv(READ_LARGEST):
                self._destroy()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._destroy()

    def _destroy(self) -> None:
        if self.socket.fileno() == -1:
            return
        if self._linger is not None:
            self._linger.cancel()
        self._loop.remove_reader(self.fd)
        self._loop.remove_writer(self.fd)
        self.socket.close()
        self._output.clear()
        self.pending = 0
        self._owner.transport_closed(self)
