"""The proof that the network keeps its three promises, by packets that were really sent.

Every pod reaches every pod, every node reaches every pod and back, and the address that the far end sees
is the sender's own.  All probes of a kind run at once from one loop; their sockets live in the
namespaces.  What was asked and what was answered are values; the presentation is elsewhere.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import NamedTuple

from bgpd.lab import netns
from bgpd.lab.icmp import ECHO_REPLY, echo_request, parse_echo
from bgpd.lab.plan import Address, Plan

PORT = 7777
REPEAT_EVERY = 0.25
"""A ping that is not answered is sent again after this many seconds, until time is up."""
IDENTIFIER = os.getpid() & 0xFFFF
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}


@dataclass(frozen=True, slots=True)
class Host:
    """A pod or a node, as one end of a probe."""

    name: str
    namespace: str
    node: str
    """The node that it is, or hangs on."""
    addresses: tuple[Address, ...]


class Probe(NamedTuple):
    """One question: does `source` reach this address of `target`?"""

    source: Host
    target: Host
    address: Address


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a probe."""

    probe: Probe
    reached: bool
    seen: Address | None = None
    """The address that the target saw."""
    own: Address | None = None
    """The address that the source had on its socket."""
    error: str = ""

    @property
    def unchanged(self) -> bool:
        """Whether the target saw the source's own address."""
        return self.seen is not None and self.seen == self.own and self.own in self.probe.source.addresses


def pod_hosts(plan: Plan) -> list[Host]:
    """The pods of a lab."""
    return [
        Host(pod.name, pod.namespace, node.name, pod.addresses) for node in plan.nodes for pod in node.pods
    ]


def node_hosts(plan: Plan) -> list[Host]:
    """The nodes of a lab; a node talks to its own pods from their gateway's address."""
    return [Host(node.name, node.namespace, node.name, node.addresses + node.gateways) for node in plan.nodes]


def probes(sources: Iterable[Host], targets: Iterable[Host]) -> list[Probe]:
    """Every source to every address of every target but itself."""
    goals = list(targets)
    return [
        Probe(source, target, address)
        for source in sources
        for target in goals
        if target.name != source.name
        for address in target.addresses
    ]


def between_nodes(asked: Iterable[Probe]) -> list[Probe]:
    """Those that must cross the fabric."""
    return [probe for probe in asked if probe.source.node != probe.target.node]


def ping(asked: Sequence[Probe], timeout: float, watch: Callable[[], None] = lambda: None) -> list[Answer]:
    """Ping all of them at once, again and again until answered or `timeout` seconds are over.

    `watch` is called several times a second, so that a capture can be drained meanwhile.
    """
    left = dict(enumerate(asked, start=1))
    with ExitStack() as stack:
        sockets = _raw_sockets(stack, asked)
        selector = stack.enter_context(selectors.DefaultSelector())
        for (_, version), raw in sockets.items():
            selector.register(raw, selectors.EVENT_READ, partial(_take_replies, raw, version, left))
        end = time.monotonic() + timeout
        while left and (now := time.monotonic()) < end:
            for sequence, probe in left.items():
                version = probe.address.version
                _send(
                    sockets[probe.source.namespace, version],
                    echo_request(version, IDENTIFIER, sequence),
                    probe.address,
                )
            again = min(end, now + REPEAT_EVERY)
            while left and (wait := again - time.monotonic()) > 0:
                _serve(selector, min(wait, 0.05))
                watch()
    return [Answer(probe, reached=sequence not in left) for sequence, probe in enumerate(asked, start=1)]


def _raw_sockets(stack: ExitStack, asked: Sequence[Probe]) -> dict[tuple[str, int], socket.socket]:
    sockets: dict[tuple[str, int], socket.socket] = {}
    for namespace, version in dict.fromkeys((p.source.namespace, p.address.version) for p in asked):
        raw = netns.open_socket(namespace, FAMILY[version], socket.SOCK_RAW, PROTOCOL[version])
        raw.setblocking(False)
        sockets[namespace, version] = stack.enter_context(raw)
    return sockets


def _send(raw: socket.socket, packet: bytes, address: Address) -> None:
    try:
        raw.sendto(packet, (str(address), 0))
    except OSError:
        return  # no route, or an ICMP error for an earlier one: this ping is not answered


def _serve(selector: selectors.BaseSelector, timeout: float) -> None:
    """Call what was registered with each socket that has something to read."""
    for key, _ in selector.select(timeout):
        ready: Callable[[], None] = key.data
        ready()


def _take_replies(raw: socket.socket, version: int, left: dict[int, Probe]) -> None:
    while True:
        try:
            packet, sender = raw.recvfrom(2048)
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP error that is queued on the socket
        echo = parse_echo(version, packet)
        if echo and echo.kind == ECHO_REPLY[version] and echo.identifier == IDENTIFIER:
            probe = left.get(echo.sequence)
            if probe and ip_address(sender[0]) == probe.address:
                del left[echo.sequence]


def connect(asked: Sequence[Probe], timeout: float) -> list[Answer]:
    """Open a TCP connection for each probe; the target answers with the address that it sees."""
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for namespace, address in dict.fromkeys((probe.target.namespace, probe.address) for probe in asked):
            listener = stack.enter_context(_listen(namespace, address))
            selector.register(listener, selectors.EVENT_READ, partial(_tell_caller, listener))
        clients = [_Client(probe, selector) for probe in asked]
        for client in clients:
            stack.enter_context(client.sock)
            client.open()
        end = time.monotonic() + timeout
        while any(not client.done for client in clients) and (wait := end - time.monotonic()) > 0:
            _serve(selector, wait)
        return [client.answer() for client in clients]


def _listen(namespace: str, address: Address) -> socket.socket:
    listener = netns.open_socket(namespace, FAMILY[address.version], socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((str(address), PORT))
    listener.listen(4096)
    listener.setblocking(False)
    return listener


def _tell_caller(listener: socket.socket) -> None:
    """Tell a caller the address that it is seen at."""
    try:
        caller, address = listener.accept()
    except BlockingIOError:
        return
    with caller:
        caller.sendall(str(address[0]).encode())


class _Client:
    """One connection of one probe."""

    def __init__(self, probe: Probe, selector: selectors.BaseSelector) -> None:
        self.probe = probe
        self.selector = selector
        family = FAMILY[probe.address.version]
        self.sock = netns.open_socket(probe.source.namespace, family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.done = False
        self.own: Address | None = None
        self.seen: Address | None = None
        self.error = "no answer in time"

    def open(self) -> None:
        try:
            self.sock.connect((str(self.probe.address), PORT))
        except BlockingIOError:
            self.selector.register(self.sock, selectors.EVENT_READ, self.ready)
        except OSError as error:
            self.done, self.error = True, str(error)
        else:
            self.selector.register(self.sock, selectors.EVENT_READ, self.ready)

    def ready(self) -> None:
        """Readable: the target's answer, or an error."""
        try:
            text = self.sock.recv(64)
            self.own = ip_address(self.sock.getsockname()[0])
            self.seen = ip_address(text.decode())
            self.error = ""
        except BlockingIOError:
            return
        except OSError as error:
            self.error = str(error)
        except ValueError:
            self.error = "the connection was closed without an answer"
        self.selector.unregister(self.sock)
        self.done = True

    def answer(self) -> Answer:
        return Answer(self.probe, self.seen is not None, self.seen, self.own, self.error)
