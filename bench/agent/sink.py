"""A receiver that only reads: run in a speaker's place, it shows what the feeder itself takes.

`python -m bench.agent.sink ADDRESS BYTES` connects as a speaker would, reads that many bytes and answers
with one.
"""

from __future__ import annotations

import socket
import sys


def main() -> None:
    address, count = sys.argv[1], int(sys.argv[2])
    buffer = bytearray(1 << 20)
    with socket.create_connection((address, 179)) as sock:
        while count > 0:
            got = sock.recv_into(buffer)
            if not got:
                raise SystemExit("the feeder closed early")
            count -= got
        sock.sendall(b"\x01")
        sock.recv(1)


if __name__ == "__main__":
    main()
