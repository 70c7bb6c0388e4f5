"""Asking the lab's pods who they are, from any namespace: which pod answered, and whom did it see?

The other half of `kube_echo`.  One question is one new connection or datagram, as the proof that a service
leads somewhere needs it; every wait is bounded.  Blocks.
"""

from __future__ import annotations

import secrets
import socket
import struct
from ipaddress import ip_address

import msgspec

from bgpd.lab import netns
from bgpd.lab.command import LabError
from bgpd.lab.plan import Address

TIMEOUT = 2.0
MOST_ANSWER = 4096
DNS_HEADER = struct.Struct("!6H")
DNS_RECORD_HEAD = 12
DNS_TYPES = {4: 1, 6: 28}
DNS_SIZES = {4: 4, 6: 16}
RECURSION_DESIRED, RESPONSE_CODE = 0x0100, 0x000F
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Answer(msgspec.Struct):
    pod: str
    client: str
    forwarded_for: str = ""


class Reply(msgspec.Struct, frozen=True):
    """What came back."""

    pod: str
    seen: Address
    """The address that the pod saw."""
    own: Address
    """The address that the asker had on its socket."""
    forwarded_for: str = ""
    """The client's address as a proxy on the way told it."""

    @property
    def untranslated(self) -> bool:
        """Whether the pod saw the asker's own address."""
        return self.seen == self.own


def ask(
    namespace: str, address: Address, port: int, protocol: str = "TCP", timeout: float = TIMEOUT
) -> Reply:
    """Send one question from a namespace to whatever is behind an address; LabError when nothing answers.

    The protocol is TCP, UDP or HTTP.
    """
    question = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n" if protocol == "HTTP" else b"who are you?\n"
    answer, own = _exchange(namespace, address, port, question, protocol, timeout)
    if protocol == "HTTP":
        answer = _body(answer, f"{address} port {port}")
    try:
        read = msgspec.json.decode(answer, type=_Answer)
        return Reply(read.pod, ip_address(read.client), own, read.forwarded_for)
    except (msgspec.MsgspecError, ValueError) as error:
        raise LabError(f"{address} port {port} answers {answer[:100]!r}: {error}") from error


def look_up(
    namespace: str, server: Address, name: str, version: int = 4, timeout: float = TIMEOUT
) -> list[Address]:
    """The addresses of a name, asked from a namespace over UDP; LabError without an answer or such a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    number, kind, size = secrets.randbits(16), DNS_TYPES[version], DNS_SIZES[version]
    question = DNS_HEADER.pack(number, RECURSION_DESIRED, 1, 0, 0, 0) + labels + struct.pack("!xHH", kind, 1)
    answer, _ = _exchange(namespace, server, 53, question, "UDP", timeout)
    if len(answer) < len(question) or DNS_HEADER.unpack_from(answer)[0] != number:
        raise LabError(f"{server} answers {answer[:100]!r} to a question for {name}")
    _, flags, _, count, *_ = DNS_HEADER.unpack_from(answer)
    if code := flags & RESPONSE_CODE:
        raise LabError(f"{server} knows no {name}: response code {code}")
    records = [answer[len(question) + index * (DNS_RECORD_HEAD + size) :] for index in range(count)]
    return [ip_address(record[DNS_RECORD_HEAD : DNS_RECORD_HEAD + size]) for record in records]


def _exchange(
    namespace: str, address: Address, port: int, question: bytes, protocol: str, timeout: float
) -> tuple[bytes, Address]:
    """What came back, and the address that the asker had."""
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    with netns.open_socket(namespace, FAMILY[address.version], kind) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((str(address), port))
            sock.sendall(question)
            answer = sock.recv(MOST_ANSWER)
            while protocol == "HTTP" and len(answer) < MOST_ANSWER and (more := sock.recv(MOST_ANSWER)):
                answer += more
            return answer, ip_address(sock.getsockname()[0])
        except OSError as error:
            raise LabError(f"{protocol} from {namespace} to {address} port {port}: {error}") from error


def _body(answer: bytes, where: str) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise LabError(f"{where} answers {head[:100]!r}")
    return body
