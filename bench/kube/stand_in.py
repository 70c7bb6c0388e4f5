"""The stand-in API server as a process of its own, which fills itself and says what it was asked.

    python -m bench.kube.stand_in HOST:PORT

Lines of JSON on standard input: {"nodes": N}, {"services": N, "each": M, "over": NODES}, {"beats": N}, {};
one line of JSON answers each.  It ends with its input.
"""

from __future__ import annotations

import json
import sys
import time
from random import Random

from bench.kube import objects
from bgpd.lab.stand_in_api_server import StandInApiServer

Asked = dict[str, int]


def main(listen: str) -> None:
    """Serve until standard input ends."""
    host, _, port = listen.rpartition(":")
    with StandInApiServer(host=host, port=int(port)) as server:
        print(json.dumps({"ready": server.url}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_do(server, json.loads(line))), flush=True)


def _do(server: StandInApiServer, asked: Asked) -> objects.Json:
    if "nodes" in asked:
        for number in range(asked["nodes"]):
            server.create(objects.node(number))
    if "services" in asked:
        random = Random(1)
        for number in range(asked["services"]):
            service = objects.service(number)
            server.create(service)
            server.patch("Service", f"s{number}", {"status": service["status"]}, namespace="default",
                         subresource="status")  # fmt: skip
            placed = [random.randrange(1, asked["over"]) for _ in range(asked["each"])]
            server.create(objects.endpoint_slice(number, placed))
    if "beats" in asked:
        _beat(server, asked["beats"])
    load = server.load
    return {
        "requests": {f"{verb} {what}": count for (verb, what), count in load.requests.items()},
        "sent": {f"{verb} {what}": count for (verb, what), count in load.sent.items()},
        "watches": server.watches,
    }


def _beat(server: StandInApiServer, count: int) -> None:
    """A heartbeat of each Node, as kubelets send every five minutes."""
    for number in range(count):
        beat = {"type": "Ready", "status": "True", "lastHeartbeatTime": str(time.time())}
        patch = {"status": {"conditions": [beat]}}
        server.patch("Node", objects.node_name(number), patch, subresource="status", patch_type="strategic")


if __name__ == "__main__":
    main(sys.argv[1])
