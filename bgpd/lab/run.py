"""`podbgpd lab`: build a network, show that it is dead, start the agents, prove that it lives, remove it.

Owns the order of the demonstration and its exit code, which is 0 only if everything was proved.  Whatever
happens on the way, Ctrl-C and SIGTERM included, what was built is removed, unless it was to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bgpd.errors import PodbgpError
from bgpd.lab import explore, fabric_bird, fabric_frr, prove, reflector_story, signals
from bgpd.lab.capture import Capture, Ping
from bgpd.lab.command import LabError, find_tool, show
from bgpd.lab.converge import wait_converged
from bgpd.lab.plan import POD_NETWORKS, Address, Fabric, Plan, make_plan
from bgpd.lab.present import Presenter
from bgpd.lab.prove import Answer, Host, Probe
from bgpd.lab.topology import Topology
from bgpd.lab.workspace import Workspace, claim, remove_all

QUIET_TIME = 0.5
"""Seconds in which nothing must be answered, before the agents start."""
PROOF_TIME = 5.0


@dataclass(frozen=True, slots=True)
class LabOptions:
    """What `podbgpd lab` was asked for."""

    fabric: str = Fabric.REFLECTOR
    """`reflector`, `mesh`, `frr` or `bird`."""
    nodes: int = 3
    pods_per_node: int = 2
    light_nodes: int = 0
    keep: bool = False
    dual_stack: bool = True
    timeout: float = 60.0
    """Seconds in which all routes must have been learned."""

    def plan(self, name_namespace: Callable[[str], str]) -> Plan:
        """The network that these options describe; LabError when there is none."""
        if self.fabric not in list(Fabric):
            raise LabError(f"there is no fabric {self.fabric!r}: use {', '.join(Fabric)}")
        return make_plan(
            name_namespace,
            fabric=Fabric(self.fabric),
            nodes=self.nodes,
            pods_per_node=self.pods_per_node,
            light_nodes=self.light_nodes,
            dual_stack=self.dual_stack,
        )


def run_lab(options: LabOptions, presenter: Presenter | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    out = presenter or Presenter()
    return judged(lambda: _run(options, out), out)


def judged(demonstrate: Callable[[], bool], out: Presenter) -> int:
    """Run a demonstration and say how it ended; the exit code."""
    try:
        with signals.raised():
            proved = demonstrate()
    except PodbgpError as error:
        out.failure(str(error))
        return 1
    except signals.Interrupted as interrupt:
        out.failure(str(interrupt))
        return 128 + interrupt.number
    if not proved:
        out.failure("not everything was proved")
        return 1
    out.done("everything was proved")
    return 0


def remove_labs(name: str = "", presenter: Presenter | None = None) -> int:
    """`podbgpd lab --remove`: remove kept and dead labs, or the named one; returns the exit code."""
    out = presenter or Presenter()
    try:
        removed = remove_all(name)
    except LabError as error:
        out.failure(str(error))
        return 1
    out.say(f"removed {', '.join(removed)}" if removed else "there is no lab to remove")
    return 0


def _run(options: LabOptions, out: Presenter) -> bool:
    _check_tools(options.plan(str))
    with ExitStack() as cleanup:
        with signals.held():
            workspace = claim()
            cleanup.callback(leave, workspace, out, keep=options.keep)
        topology = Topology(options.plan(workspace.namespace), workspace)
        cleanup.callback(_leave_topology, topology, options, out)
        return _demonstrate(topology, options, out)


def _check_tools(plan: Plan) -> None:
    """Refuse what can't work before anything is made."""
    for tool, package in (("ip", "iproute2"), ("sysctl", "procps"), ("ping", "iputils-ping")):
        find_tool(tool, package)
    if plan.fabric is Fabric.FRR:
        fabric_frr.check_installed()
    if plan.fabric is Fabric.BIRD:
        fabric_bird.check_installed()


def _demonstrate(topology: Topology, options: LabOptions, out: Presenter) -> bool:
    plan = topology.plan
    out.title(topology.workspace.name, plan)
    out.step("Building namespaces, links and pods")
    topology.build()
    topology.start_routers()
    running = "".join(f", {name}" for name in (*topology.routers, *topology.reflectors))
    out.say(f"{len(plan.namespaces)} namespaces{running}")
    proved = [_show_dead(plan, out)]
    light = f" and {len(plan.light_nodes)} light nodes, which are speakers in one process without a FIB"
    out.step(f"Starting the agents{light if plan.light_nodes else ''}")
    topology.start_agents()
    _converge(topology, options.timeout, out)
    proved.append(_prove(plan, out))
    _show_tables(topology, out)
    if topology.reflectors:
        _show_reflectors(topology, out)
        proved.append(reflector_story.lose_reflectors(topology, options.timeout, out))
        proved.append(reflector_story.add_node(topology, options.timeout, out))
    return all(proved)


def _show_dead(plan: Plan, out: Presenter) -> bool:
    """Before the agents run, pods on different nodes can't reach each other."""
    out.step("Before: can pods on different nodes reach each other?")
    pods = prove.pod_hosts(plan)
    answers = prove.ping(prove.between_nodes(prove.probes(pods, pods)), QUIET_TIME)
    reached = sum(answer.reached for answer in answers)
    good = reached == 0
    out.verdict("no pod reaches another", good, f"{reached} of {len(answers)} pings answered")
    _show_ping(plan, out)
    return good


def _show_ping(plan: Plan, out: Presenter) -> None:
    """One of these pings, as one would type it."""
    first, last = plan.nodes[0].pods[0], plan.nodes[-1].pods[-1]
    argv = explore.ping(first, last, "-c1", "-W1")
    out.command(argv)
    out.say(explore.ping_answer(argv))


def _converge(topology: Topology, timeout: float, out: Presenter) -> None:
    with out.progress("routes in the nodes' kernels") as count:
        spent = wait_converged(topology, timeout, count)
    plan = topology.plan
    total = sum(len(plan.learned(node)) for node in plan.nodes)
    out.say(f"{total} routes learned over BGP and in the kernels after {spent:.1f} s")


def _prove(plan: Plan, out: Presenter) -> bool:
    """The three rules: every pod to every pod, every node to every pod and back, addresses unchanged."""
    out.step("After: the three rules of pod networking")
    pods, nodes = prove.pod_hosts(plan), prove.node_hosts(plan)
    with Capture(plan.fabric_namespaces) as fabric:
        verdicts = [
            _prove_pings("every pod reaches every pod", pods, pods, fabric, out),
            _prove_pings("every node reaches every pod", nodes, pods, fabric, out),
            _prove_pings("every pod reaches every node", pods, nodes, fabric, out),
        ]
        _show_ping(plan, out)
        verdicts.append(_prove_plain(prove.between_nodes(prove.probes(pods, pods)), fabric, out))
    asked = prove.probes(pods + nodes, pods) + prove.probes(pods, nodes)
    verdicts.append(_prove_addresses(asked, out))
    return all(verdicts)


def _prove_pings(
    title: str, sources: Sequence[Host], targets: Sequence[Host], fabric: Capture, out: Presenter
) -> bool:
    answers = prove.ping(prove.probes(sources, targets), PROOF_TIME, fabric.drain)
    fabric.drain()
    good = all(answer.reached for answer in answers)
    out.verdict(title, good, f"{_tally(answers, lambda answer: answer.reached)} pings answered")
    out.unanswered([answer for answer in answers if not answer.reached])
    return good


def _prove_addresses(asked: list[Probe], out: Presenter) -> bool:
    answers = prove.connect(asked, PROOF_TIME)
    good = all(answer.unchanged for answer in answers)
    text = f"{_tally(answers, lambda answer: answer.unchanged)} see the sender's own address"
    out.verdict("the source stays unchanged", good, text + (": no NAT" if good else ""))
    out.unanswered([answer for answer in answers if not answer.unchanged])
    return good


def _prove_plain(asked: list[Probe], fabric: Capture, out: Presenter) -> bool:
    """Each ping between nodes was on the fabric as it was sent, and nothing was tunnelled."""
    seen = sum(Ping(source, probe.address) in fabric.pings for probe in asked for source in _own(probe))
    tunnelled = sum(fabric.tunnels.values())
    good = seen == len(asked) and not tunnelled
    text = (
        f"{seen} of {len(asked)} pings between nodes on the wire as plain IP, {tunnelled} packets tunnelled"
    )
    out.verdict("no encapsulation", good, text)
    return good


def _own(probe: Probe) -> list[Address]:
    """The source's address of the family that the probe is in."""
    return [address for address in probe.source.addresses if address.version == probe.address.version]


def _tally(answers: Sequence[Answer], good: Callable[[Answer], bool]) -> str:
    """`60 of 60 (30 IPv4, 30 IPv6)`, or by family how many of how many when some are missing."""
    families = []
    for version in (4, 6):
        mine = [answer for answer in answers if answer.probe.address.version == version]
        reached = sum(map(good, mine))
        if mine:
            families.append(f"{reached}{'' if reached == len(mine) else f' of {len(mine)}'} IPv{version}")
    return f"{sum(map(good, answers))} of {len(answers)} ({', '.join(families)})"


def _show_tables(topology: Topology, out: Presenter) -> None:
    """One node's peers, routes and kernel table, as its operator would look at them."""
    node = topology.plan.nodes[0]
    out.step(f"A look at {node.name}")
    colour = out.console.is_terminal
    pods = [str(network) for network in POD_NETWORKS[: len(node.pod_networks)]]
    routes = [("routes", each, "--longer") for each in pods] if topology.light_nodes else [("routes",)]
    commands = [explore.client(topology, node, *words) for words in (("peers",), *routes)]
    commands += [explore.kernel_table(node, network, colour=colour) for network in POD_NETWORKS[: len(pods)]]
    _run_shown(commands, out)


def _show_reflectors(topology: Topology, out: Presenter) -> None:
    """The reflectors as their operator would look at them; light nodes would be too many lines."""
    out.step("A look at the reflectors")
    names = list(topology.reflectors)
    commands = [explore.reflector_client(topology, names[-1], "status")]
    if not topology.light_nodes:
        commands = [explore.reflector_client(topology, name, "peers") for name in names]
        network = str(topology.plan.nodes[0].pod_networks[0])
        commands.append(explore.reflector_client(topology, names[0], "route", network))
    _run_shown(commands, out)


def _run_shown(commands: list[list[str]], out: Presenter) -> None:
    for argv in commands:
        out.command(argv)
        show(argv)


def _leave_topology(topology: Topology, options: LabOptions, out: Presenter) -> None:
    if not options.keep:
        topology.stop()
        return
    show_tour(explore.tour(topology), topology.workspace, out)


def leave(workspace: Workspace, out: Presenter, *, keep: bool) -> None:
    """Remove the lab, or let it outlive this process; nothing may interrupt that."""
    signals.ignore()
    if keep:
        workspace.keep()
        return
    workspace.remove()
    out.step(f"Removed every namespace of {workspace.name}")


def show_tour(tour: Iterable[tuple[str, list[str]]], workspace: Workspace, out: Presenter) -> None:
    """The commands that a kept lab is explored with; the last one removes it."""
    out.step("The lab stays up.  To explore it")
    remove = [explore.script("podbgpd"), "lab", "--remove", workspace.name]
    for what, argv in (*tour, ("remove it", remove)):
        out.say(f"# {what}")
        out.command(argv)
