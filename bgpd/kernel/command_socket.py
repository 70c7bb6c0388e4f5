"""The socket that commands go out on: bulk transactions and dumps, blocking.

Owns one pyroute2 `IPRSocket` in the namespace of the process.  It must never receive multicast: `Monitor`
has a socket of its own, whose filter knows this one by its port id.

A transaction is one send of many messages of which only the last asks for an acknowledgement.  `send`
returns when the kernel has run them all; by then its errors are queued with our sequence numbers, and the
acknowledgement is the fence behind them.  `send` and `recv` release the GIL.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from struct import Struct
from typing import Protocol, Self, TypeVar

from pyroute2 import IPRSocket

from bgpd.errors import KernelError
from bgpd.kernel import rtnetlink as nl
from routes.fib import Failure

RECEIVE_BUFFER = 8 << 20
"""Bytes: every message of a chunk can fail, and each queued error takes about a kilobyte."""
REPLY_TIMEOUT = 30
"""Seconds; the kernel answers before `send` returns, so waiting means that an answer was lost."""
DUMP_ATTEMPTS = 8
DUMP_READ = 1 << 16
SO_RCVBUFFORCE = 33


class DumpReader(Protocol):
    """Takes the buffers of one dump."""

    @property
    def done(self) -> bool:
        """Whether the end of the dump was seen."""

    @property
    def interrupted(self) -> bool:
        """Whether what is dumped changed meanwhile (NLM_F_DUMP_INTR): what was read may have holes."""

    def take(self, data: bytes) -> None:
        """Read one buffer."""


Reader = TypeVar("Reader", bound=DumpReader)


def dump(request: bytes, make_reader: Callable[[], Reader]) -> Reader:
    """Dump what `request` asks for; again, with a new reader, when the kernel says it was interrupted.

    Each dump has a socket of its own: one that was left half-way would make the next fail.
    """
    for _ in range(DUMP_ATTEMPTS):
        reader = make_reader()
        with CommandSocket() as sock:
            sock.dump_into(request, reader)
        if not reader.interrupted:
            return reader
    raise KernelError(f"{DUMP_ATTEMPTS} dumps in a row were interrupted by changes")


class CommandSocket:
    """Sends commands to the kernel and collects the answers.  For one thread at a time."""

    def __init__(self) -> None:
        try:
            self._owner = IPRSocket(ext_ack=True, strict_check=True, groups=0)
            self._owner.bind(groups=0)
            self._socket: socket.socket = self._owner.socket
            self._socket.setsockopt(nl.SOL_NETLINK, nl.NETLINK_CAP_ACK, 1)
            grow_receive_buffer(self._socket, RECEIVE_BUFFER)
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, Struct("@ll").pack(REPLY_TIMEOUT, 0)
            )
        except OSError as error:
            raise KernelError(f"no netlink socket: {error.strerror}") from error
        self._seq = 0

    @property
    def port_id(self) -> int:
        """What the kernel marks the notifications of our own changes with."""
        return int(self._socket.getsockname()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._owner.close()

    def next_seq(self, count: int = 1) -> int:
        """Reserve sequence numbers; they start again before 32 bits are used up, and are never 0."""
        if self._seq + count > 0x7FFF_FFFF:
            self._seq = 0
        self._seq += count
        return self._seq - count + 1

    def transact(self, data: bytes, last_seq: int) -> dict[int, Failure]:
        """Send messages of which the last asks for an acknowledgement; their failures by number."""
        self._send(data)
        failures: dict[int, Failure] = {}
        while True:
            received = self._receive()
            for message in nl.messages(received):
                if message.kind != nl.NLMSG_ERROR:
                    continue
                failure = nl.failure_of(received, message)
                if failure is not None:
                    failures[message.seq] = failure
                if message.seq == last_seq:
                    return failures

    def dump_into(self, request: bytes, reader: DumpReader) -> None:
        """Send a dump request and give every buffer of the answer to the reader."""
        seq = self.next_seq()
        self._send(request[:8] + nl.U32.pack(seq) + request[12:])
        while not reader.done:
            received = self._receive()
            if nl.u32(received, 8) == seq:
                reader.take(received)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError(f"netlink send: {error.strerror}") from error

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(DUMP_READ)
        except BlockingIOError as error:
            raise KernelError(f"the kernel did not answer within {REPLY_TIMEOUT} seconds") from error
        except OSError as error:
            raise KernelError(f"netlink receive: {error.strerror}") from error


def grow_receive_buffer(sock: socket.socket, size: int) -> None:
    """Set the receive buffer beyond net.core.rmem_max where we may, else as far as that allows."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
