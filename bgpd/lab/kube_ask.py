"""Asking the lab's pods who they are, from any namespace: which pod answered, and whom did it see?

The other half of `kube_echo`.  One question is one new connection or datagram, as the proof that a service
leads somewhere needs it; every wait is bounded.  Blocks.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

import msgspec

from bgpd.lab import netns
from bgpd.lab.command import LabError
from bgpd.lab.plan import Address

TIMEOUT = 2.0
MOST_ANSWER = 4096
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Answer(msgspec.Struct):
    pod: str
    client: str


class Reply(msgspec.Struct, frozen=True):
    """What came back."""

    pod: str
    seen: Address
    """The address that the pod saw."""
    own: Address
    """The address that the asker had on its socket."""

    @property
    def untranslated(self) -> bool:
        """Whether the pod saw the asker's own address."""
        return self.seen == self.own


def ask(
    namespace: str, address: Address, port: int, protocol: str = "TCP", timeout: float = TIMEOUT
) -> Reply:
    """Send one question from a namespace to whatever is behind an address; LabError when nothing answers."""
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    with netns.open_socket(namespace, FAMILY[address.version], kind) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((str(address), port))
            sock.sendall(b"who are you?\n")
            answer = sock.recv(MOST_ANSWER)
            own = ip_address(sock.getsockname()[0])
        except OSError as error:
            raise LabError(f"{protocol} from {namespace} to {address} port {port}: {error}") from error
    try:
        read = msgspec.json.decode(answer, type=_Answer)
        return Reply(read.pod, ip_address(read.client), own)
    except (msgspec.MsgspecError, ValueError) as error:
        raise LabError(f"{address} port {port} answers {answer[:100]!r}: {error}") from error
