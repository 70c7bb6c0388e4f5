"""What a lab with reflectors shows beyond reachability: they may die, and nodes may come.

Reflectors are killed (`kill -9`) one after the other and come back while pods ping each other every 10 ms;
then a node joins without anyone's configuration being touched.  Owns the order of that and its verdicts.
Packets and kernel routes are judged by `ping`, `ip monitor` and `ip route`; agents are asked only for the
state of their sessions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from api.client import Client
from bgpd.lab import explore, prove
from bgpd.lab.command import LabError, show
from bgpd.lab.converge import wait_converged
from bgpd.lab.plan import Node
from bgpd.lab.present import Presenter
from bgpd.lab.topology import Topology
from bgpd.lab.witness import Seen, Witness, pings_between
from routes.peer import PeerStatus, SessionState

LOOK = 1.0
"""Seconds that each state is left to last, so that it can do harm."""
POLL = 0.05
PROOF_TIME = 5.0


def agent_peers(topology: Topology, node: Node) -> list[PeerStatus]:
    """The sessions of a node's agent, as it says itself."""
    with Client(f"unix://{topology.agents[node.name].socket}") as client:
        return list(client.peers())


def sessions_up(topology: Topology) -> int:
    """Established sessions of all agents together."""
    peers = [peer for node in topology.plan.nodes for peer in agent_peers(topology, node)]
    return sum(peer.state is SessionState.ESTABLISHED for peer in peers)


def _at_most(topology: Topology, sessions: int) -> bool:
    return sessions_up(topology) <= sessions


def tables_complete(topology: Topology) -> bool:
    """Whether every agent has every reflector's End-of-RIB, in each family."""
    families = 2 if topology.plan.dual_stack else 1
    return all(
        peer.state is SessionState.ESTABLISHED and len(peer.end_of_rib) == families
        for node in topology.plan.nodes
        for peer in agent_peers(topology, node)
    )


def wait_until(true: Callable[[], bool], timeout: float, what: str) -> float:
    """The seconds that it took; LabError when it is too late."""
    started = time.monotonic()
    while not true():
        spent = time.monotonic() - started
        if spent > timeout:
            raise LabError(f"after {timeout:g} s still not: {what}")
        time.sleep(POLL)
    return time.monotonic() - started


def lose_reflectors(topology: Topology, timeout: float, out: Presenter) -> bool:
    """Kill one, then all, and start them again; whether nobody noticed."""
    out.step("The reflectors die, while pods ping each other every 10 ms in both directions")
    nodes = topology.plan.nodes
    watched = list(dict.fromkeys((nodes[0], nodes[1], nodes[-1])))
    first_pods = {node.pods[0] for node in watched}
    pings = [p for p in pings_between(watched) if {p.source, p.target} <= first_pods]
    with Witness(topology, pings) as witness:
        _kill_all(topology, timeout, out)
        _show_held(topology, watched[1], out)
        for reflector in topology.reflectors.values():
            reflector.process.start()
        spent = wait_until(lambda: tables_complete(topology), timeout, "every agent has both tables again")
        out.say(f"all reflectors are back: every agent has their tables again after {spent:.1f} s")
        time.sleep(LOOK)
        seen = witness.stop()
    return _judge(seen, out)


def _kill_all(topology: Topology, timeout: float, out: Presenter) -> None:
    left = sessions_up(topology)
    for name, reflector in topology.reflectors.items():
        reflector.process.kill()
        left -= len(topology.plan.nodes)
        wait_until(partial(_at_most, topology, left), timeout, f"agents notice that {name} is dead")
        where = f" on {reflector.reflector.node}" if reflector.reflector.node else ""
        out.say(f"kill -9 {name}{where}: the agents have {left} sessions left")
        time.sleep(LOOK)


def _show_held(topology: Topology, node: Node, out: Presenter) -> None:
    """What an agent says while no reflector is there."""
    words = [("peers",), ("route", str(topology.plan.nodes[0].pod_networks[0]))]
    for argv in (explore.client(topology, node, *each) for each in words):
        out.command(argv)
        show(argv)


def _judge(seen: Seen, out: Presenter) -> bool:
    lost = sum(map(len, seen.lost.values()))
    out.verdict("no ping was lost", not lost, f"{seen.answered} answered, {lost} lost")
    for ping, probes in seen.lost.items():
        out.say(f"     {ping}: {len(probes)} lost")
    deleted = seen.deleted
    out.verdict("no kernel route was deleted", not deleted, f"{len(deleted)} deletions on all nodes")
    for text in deleted[:10]:
        out.say(f"     {text}")
    return not lost and not deleted


def add_node(topology: Topology, timeout: float, out: Presenter) -> bool:
    """One more node: it needs its own file and nobody else's; whether all reach it."""
    before = _others(topology)
    out.step("A node joins, and nobody's configuration changes")
    started = time.monotonic()
    node = topology.join()
    wait_converged(topology, timeout)
    out.say(f"{node.name}: built, started, and in all kernels after {time.monotonic() - started:.1f} s")
    untouched = all(now == before[name] for name, now in _others(topology).items() if name in before)
    out.verdict("no other file was changed", untouched, f"{len(before)} agents and reflectors ran on")
    pods = prove.pod_hosts(topology.plan)
    new = [host for host in pods if host.node == node.name]
    old = [host for host in pods if host.node != node.name]
    answers = prove.ping(prove.probes(old, new) + prove.probes(new, old), PROOF_TIME)
    good = all(answer.reached for answer in answers)
    reached = sum(answer.reached for answer in answers)
    out.verdict(f"all pods reach those of {node.name}", good, f"{reached} of {len(answers)} pings answered")
    out.unanswered([answer for answer in answers if not answer.reached])
    return untouched and good


def _others(topology: Topology) -> dict[str, tuple[str, int]]:
    """The file and the process of every agent and reflector."""
    files = {name: agent.config for name, agent in topology.agents.items()}
    files |= {name: reflector.config for name, reflector in topology.reflectors.items()}
    pids = {name: agent.process.pid for name, agent in topology.agents.items()}
    pids |= {name: reflector.process.pid for name, reflector in topology.reflectors.items()}
    return {name: (file.read_text(), pids[name]) for name, file in files.items()}
