"""Where the API is served: the one place that reads such an address, and that prepares a Unix socket.

A socket file that nobody listens on is left over from a daemon that was killed, and is replaced.  One that
somebody listens on is never touched, although gRPC itself would take it over in silence.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import NamedTuple

DEFAULT_LISTEN = "unix:///run/podbgp/api.sock"
MAX_SOCKET_PATH = 107
"""Bytes of `sun_path` (unix(7)), without the final zero."""
VALID = f"valid are unix:///ABSOLUTE/PATH (such as {DEFAULT_LISTEN}), ADDRESS:PORT and [IPV6]:PORT"


class ListenError(Exception):
    """The API can't be served there; the text says why and what to do."""


class ApiAddress(NamedTuple):
    """A Unix socket, or an address and TCP port."""

    path: str = ""
    """Of the Unix socket; empty for TCP."""
    host: str = ""
    port: int = 0

    @property
    def grpc_target(self) -> str:
        """As gRPC wants it, without name resolution."""
        if self.path:
            return f"unix:{self.path}"
        if ":" in self.host:
            return f"ipv6:%5B{self.host}%5D:{self.port}"
        return f"ipv4:{self.host}:{self.port}"

    @property
    def bind_target(self) -> str:
        """As gRPC's server wants it."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else self.bind_target


def parse_api_address(text: str) -> ApiAddress:
    """Read where the API is; ValueError, with a sentence, for anything else."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{text!r} names no absolute path; {VALID}")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ValueError(f"{text!r} is too long: a socket's path has at most {MAX_SOCKET_PATH} bytes")
        return ApiAddress(path=path)
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(f"{text!r} is no address to serve the API on; {VALID}") from None
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} has no port from 1 to 65535; {VALID}")
    if bracketed is not (address.version == 6):
        raise ValueError(f"{text!r}: brackets are for IPv6 addresses, which need them; {VALID}")
    return ApiAddress(host=str(address), port=int(port))


def prepare_socket(path: str) -> None:
    """Make the folder, and remove a socket file that nobody listens on; raises `ListenError`."""
    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        text = f"the folder {folder} of the API's socket can't be made ({error.strerror})"
        raise ListenError(f"{text}; make it, or set [api] listen") from None
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"the API's socket {path} can't be looked at: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path} exists and is no socket; move it away, or set [api] listen")
    if _somebody_listens(path):
        raise ListenError(f"another process serves {path}; stop it, or set [api] listen to another path")
    Path(path).unlink(missing_ok=True)


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # a full backlog, or no permission: somebody is there
            return True
        return True
