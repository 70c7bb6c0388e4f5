"""BGPCluster.status: the reflectors, how many Nodes there are, and what is wrong with them.

Reflectors are written at once, and so are conditions that turn; the count of Nodes waits (`status_desk.py`).
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bgpd.kube.conditions import Say
from bgpd.kube.custom_values import BgpCluster, Phase, ReflectorMode, Topology
from bgpd.kube.custom_values import Reflector as ReflectorSeen
from bgpd.kube.election import Reflector, Standing
from bgpd.kube.identity import reflector_router_id_of
from bgpd.kube.intent import MOST_NODES_IN_MESH
from bgpd.kube.node_checks import Check, NodeChecks
from bgpd.kube.objects import Node, Pod
from routes.prefix import format_address, format_router_id

MOST_REFLECTORS = 16
"""Of a status, and so of a Deployment."""
MOST_ADDRESSES = 8


# -- reflectors ---------------------------------------------------------------------------------------


def standing_from(cluster: BgpCluster, now: float) -> Standing:
    """What the status says, for a controller that begins to lead; times begin anew."""
    return Standing(
        tuple(
            Reflector(each.node, each.uid, each.addresses, each.router_id, each.phase, now)
            for each in cluster.status.reflectors
        )
    )


def dedicated(pods: Iterable[Pod], nodes: Mapping[str, Node]) -> tuple[Reflector, ...]:
    """The reflectors of a Deployment: one for each pod that runs, the oldest names first."""
    found = []
    for pod in sorted(pods, key=lambda pod: (pod.name, pod.uid)):
        node = nodes.get(pod.node)
        addresses = node.addresses if node is not None and pod.host_network else pod.addresses
        if node is None or not addresses or pod.over:
            continue
        phase = Phase.DRAINING if pod.deleting else Phase.ACTIVE if pod.ready else Phase.STARTING
        router_id = reflector_router_id_of(node.uid)
        found.append(Reflector(node.name, pod.uid, addresses, router_id, phase))
    return tuple(found[:MOST_REFLECTORS])


def reflectors_json(reflectors: Sequence[Reflector | ReflectorSeen]) -> list[dict[str, object]]:
    """`status.reflectors`, of which those that leave give way where there are too many."""
    order = sorted(reflectors, key=lambda each: each.phase is Phase.DRAINING)
    shown = {each.uid for each in order[:MOST_REFLECTORS]}
    return [
        {
            "node": each.node,
            "uid": each.uid,
            "addresses": [format_address(address) for address in each.addresses[:MOST_ADDRESSES]],
            "routerID": format_router_id(each.router_id),
            "phase": each.phase.value,
        }
        for each in reflectors
        if each.uid in shown
    ]


# -- conditions ---------------------------------------------------------------------------------------

_NODE_CONDITIONS = {
    "NodePrefixesUnique": (Check.DUPLICATE_PREFIX,),
    "NodePrefixesPresent": (Check.NO_PREFIX, Check.OUTSIDE, Check.INVALID),
    "RouterIDsUnique": (Check.DUPLICATE_ROUTER_ID,),
    "NodesReporting": (Check.NO_STATE,),
    "NodeStatesConsistent": (Check.FOREIGN,),
}
"""What each condition says of the Nodes."""


def node_conditions(checks: NodeChecks) -> list[Say]:
    """What all Nodes together are like."""
    said = []
    for kind, looked_at in _NODE_CONDITIONS.items():
        bad = [check for check in looked_at if checks.problems[check]]
        reason = bad[0].value if bad else "AsExpected"
        said.append(Say(kind, not bad, reason, "; ".join(checks.summary(check) for check in bad)))
    return said


def topology_conditions(cluster: BgpCluster, reflectors: Sequence[Reflector], nodes: int) -> list[Say]:
    """What the topology needs, and whether it is there."""
    if cluster.topology is Topology.MESH:
        fits = nodes <= MOST_NODES_IN_MESH
        text = f"{nodes} Nodes; a mesh has at most {MOST_NODES_IN_MESH}: use topology reflector or fabric"
        return [Say("MeshSize", fits, "Fits" if fits else "MeshTooLarge", "" if fits else text)]
    if cluster.topology is Topology.FABRIC:
        return []
    active = sum(each.phase is Phase.ACTIVE for each in reflectors)
    wanted = cluster.reflectors.count
    if cluster.reflectors.mode is ReflectorMode.DEDICATED:
        wanted = max(sum(each.phase is not Phase.DRAINING for each in reflectors), 1)
    else:
        wanted = min(wanted, max(nodes, 1))
    text = f"{active} of {wanted} are Active"
    if active >= wanted:
        return [Say("ReflectorsReady", True, "AllActive", text)]
    return [Say("ReflectorsReady", False, "SomeActive" if active else "NoneActive", text)]
