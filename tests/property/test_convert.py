"""Nothing is lost between the core and the API: value → message → bytes → message → value, every field."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from api import convert, convert_node, convert_peer
from routes.duplicates import Duplicate
from routes.node_view import (
    ApiServerNews,
    ClusterKnown,
    IntentProblem,
    NodeDrain,
    NodeHost,
    NodeReadiness,
    NodeReflector,
    NodeStatus,
    ServiceVerdict,
    UnreadableObject,
)
from routes.own_path import OwnPath
from routes.path import (
    Aggregator,
    AsPath,
    AsSegment,
    Origin,
    Path,
    PathAttributes,
    PeerKind,
    PeerName,
    SegmentKind,
    Source,
    UnknownAttribute,
)
from routes.peer import (
    Capabilities,
    Counters,
    FamilyCounts,
    GracefulRestart,
    LastError,
    Negotiated,
    PeerStatus,
    Reflection,
    SessionState,
)
from routes.prefix import Address, Family, Prefix
from routes.view import (
    Convergence,
    DaemonStatus,
    Explanation,
    FibCount,
    FibView,
    Gate,
    GroupView,
    HostWarning,
    NextHopView,
    PathView,
    RouteChange,
    ShutdownReport,
    Table,
    TableCount,
    Told,
)

U32 = st.integers(0, 2**32 - 1)
COUNT = st.integers(0, 2**63)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.builds(PeerName, st.text("0123456789.:%eth", min_size=1, max_size=20))
TIME = st.floats(allow_nan=False, allow_infinity=False)
FLAG = st.booleans()
FAMILY = st.sampled_from(Family)
FAMILIES = st.frozensets(FAMILY)
KIND = st.sampled_from(PeerKind)
ADDRESS = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).map(Address)


def few(values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(values, max_size=3).map(tuple)


def every(value: Callable[..., object], /, **fields: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """`st.builds` with every field given: one that is added to a value later can't be forgotten here."""
    assert set(fields) == set(inspect.signature(value).parameters), value
    return st.builds(value, **fields)


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    address = draw(ADDRESS)
    bits = len(address) * 8
    length = draw(st.integers(0, bits))
    network = int.from_bytes(address, "big") >> (bits - length) << (bits - length)
    return Prefix(Address(network.to_bytes(len(address), "big")), length)


AS_PATH = few(st.builds(AsSegment, st.sampled_from(SegmentKind), few(U32))).map(AsPath.of)  # type: ignore[arg-type]  # `few` forgets the element type
ATTRIBUTES = every(
    PathAttributes,
    origin=st.sampled_from(Origin),
    as_path=AS_PATH,
    next_hop=ADDRESS,
    link_local=st.none() | ADDRESS,
    med=st.none() | U32,
    local_pref=st.none() | U32,
    atomic_aggregate=FLAG,
    aggregator=st.none() | st.builds(Aggregator, U32, U32),
    communities=few(U32),
    extended_communities=few(st.binary(min_size=8, max_size=8)),
    large_communities=few(st.tuples(U32, U32, U32)),
    originator_id=st.none() | U32,
    cluster_list=few(U32),
    unknown=few(st.builds(UnknownAttribute, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=5))),
)
SOURCE = every(Source, peer=NAME, kind=KIND, asn=U32, bgp_id=U32, address=ADDRESS, ifindex=U32)
PATH = every(Path, nlri=prefixes(), attributes=ATTRIBUTES, source=SOURCE, path_id=U32)
PATH_VIEW = every(
    PathView,
    path=PATH,
    attributes=ATTRIBUTES,
    accepted=FLAG,
    rule=TEXT,
    best=FLAG,
    multipath=FLAG,
    lost_at=TEXT,
    reason=TEXT,
    stale=FLAG,
    to=st.none() | NAME,
    group=TEXT,
    members=U32,
)
UNCHANGED_PATH_VIEW = st.builds(lambda path: PathView(path, path.attributes, True, "allow"), PATH)
NEXT_HOP = every(NextHopView, gateway=st.none() | ADDRESS, ifindex=U32, interface=TEXT, onlink=FLAG)
FIB_VIEW = every(
    FibView,
    nlri=prefixes(),
    next_hops=few(NEXT_HOP),
    metric=U32,
    installed=FLAG,
    held=FLAG,
    reason=TEXT,
    preferred_source=st.none() | ADDRESS,
)
SOME_PATHS = st.lists(UNCHANGED_PATH_VIEW, max_size=2).map(tuple)
SOME_ENTRIES = st.lists(FIB_VIEW, max_size=2).map(tuple)
CHANGE = every(RouteChange, nlri=prefixes(), paths=SOME_PATHS, fib=SOME_ENTRIES)
EXPLANATION = every(
    Explanation,
    target=prefixes(),
    nlri=st.none() | prefixes(),
    failed=st.none() | st.sampled_from(Gate),
    text=TEXT,
    paths=SOME_PATHS,
    fib=SOME_ENTRIES,
    advertised_to=few(NAME),
    more_specific=SOME_PATHS,
    told=few(st.builds(Told, TEXT, NAME, U32, TEXT, few(NAME))),
    reflected=FLAG,
)
GRACEFUL = every(
    GracefulRestart,
    restart_time=st.integers(0, 4095),
    restarting=FLAG,
    notification=FLAG,
    families=few(st.tuples(FAMILY, FLAG)),
)
CAPABILITIES = every(
    Capabilities,
    families=FAMILIES,
    four_octet_asn=st.none() | U32,
    route_refresh=FLAG,
    enhanced_route_refresh=FLAG,
    extended_message=FLAG,
    extended_next_hop=FAMILIES,
    add_path_send=FAMILIES,
    add_path_receive=FAMILIES,
    graceful_restart=st.none() | GRACEFUL,
    unknown=few(st.integers(0, 255)),
)
NEGOTIATED = every(
    Negotiated,
    kind=KIND,
    local_asn=U32,
    peer_asn=U32,
    peer_bgp_id=U32,
    local_address=ADDRESS,
    peer_address=ADDRESS,
    ifindex=U32,
    hold_time=U32,
    families=FAMILIES,
    four_octet=FLAG,
    extended_message=FLAG,
    extended_next_hop=FAMILIES,
    add_path_receive=FAMILIES,
    add_path_send=FAMILIES,
    route_refresh=FLAG,
    enhanced_route_refresh=FLAG,
    graceful_restart=st.none() | GRACEFUL,
    local_capabilities=CAPABILITIES,
    peer_capabilities=CAPABILITIES,
)
PEER = every(
    PeerStatus,
    name=NAME,
    kind=KIND,
    asn=U32,
    local_asn=U32,
    state=st.sampled_from(SessionState),
    admin_down=FLAG,
    local_address=st.none() | ADDRESS,
    peer_address=st.none() | ADDRESS,
    local_port=U32,
    peer_port=U32,
    bgp_id=U32,
    hold_time=U32,
    keepalive_time=TIME,
    hold_remaining=TIME,
    since=TIME,
    next_connect=TIME,
    negotiated=st.none() | NEGOTIATED,
    last_error=st.none() | st.builds(LastError, TEXT, TIME, st.none() | FLAG, U32, U32),
    counters=st.builds(Counters, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT),
    families=few(st.tuples(FAMILY, st.builds(FamilyCounts, COUNT, COUNT, COUNT, COUNT))),
    not_announced=few(st.tuples(FAMILY, TEXT)),
    end_of_rib=few(FAMILY),
    passive=FLAG,
    description=TEXT,
    reflection=st.none() | st.builds(Reflection, TEXT, few(st.tuples(FAMILY, TEXT)), COUNT),
)
STATUS = every(
    DaemonStatus,
    version=TEXT,
    role=TEXT,
    asn=U32,
    router_id=U32,
    started=TIME,
    convergence=st.builds(Convergence, FLAG, TIME, few(NAME), TIME),
    peers=U32,
    peers_established=U32,
    tables=few(st.builds(TableCount, st.sampled_from(Table), FAMILY, COUNT, COUNT)),
    fib=few(st.builds(FibCount, FAMILY, COUNT, COUNT, COUNT, COUNT)),
    warnings=few(st.builds(HostWarning, TEXT, TEXT, TEXT)),
    config_path=TEXT,
    config_error=TEXT,
    groups=few(st.builds(GroupView, TEXT, FAMILY, TEXT, U32, COUNT, COUNT, COUNT, COUNT)),
    duplicates=COUNT,
    first_duplicates=few(st.builds(Duplicate, prefixes(), NAME, NAME)),
    intent=st.none(),  # for the metrics; what the API shows of it is the node's status
)
NODE = every(
    NodeStatus,
    role=TEXT,
    config_path=TEXT,
    cluster=st.none()
    | every(
        ClusterKnown,
        node=TEXT,
        api_server=every(ApiServerNews, synced=FLAG, stale=FLAG, age=TIME, error=TEXT),
        waits=TEXT,
        problems=few(every(IntentProblem, kind=TEXT, name=TEXT, reason=TEXT, text=TEXT)),
        problem_count=U32,
        unreadable=few(every(UnreadableObject, name=TEXT, text=TEXT)),
        unreadable_count=U32,
    ),
    host=st.none()
    | every(
        NodeHost,
        readiness=every(NodeReadiness, can_forward=FLAG, ready=FLAG, reasons=few(TEXT)),
        drain=every(
            NodeDrain, graceful_shutdown=FLAG, announce_services=FLAG, announce_pods=FLAG, reason=TEXT
        ),
        cni_written=FLAG,
        cni_file=TEXT,
        reflector=every(NodeReflector, wanted=FLAG, running=FLAG),
        trouble=few(TEXT),
    ),
)
VERDICT = every(
    ServiceVerdict,
    namespace=TEXT,
    name=TEXT,
    address=st.none() | ADDRESS,
    kind=TEXT,
    announced=FLAG,
    rule=TEXT,
    prefixes=few(prefixes()),
    text=TEXT,
)
SERVICE_PATH = every(
    OwnPath,
    nlri=prefixes(),
    unreachable=st.just(False),
    communities=few(U32),
    large_communities=few(st.tuples(U32, U32, U32)),
    local_pref=st.none() | U32,
    med=st.none() | U32,
)
SHUTDOWN = st.builds(ShutdownReport, U32, U32, U32, few(TEXT))


def over_the_wire(
    value: object, to: Callable[[object], Message], back: Callable[[Message], object]
) -> object:
    message = to(value)
    return back(type(message).FromString(message.SerializeToString()))


PAIRS = [
    ("attributes", ATTRIBUTES, convert.attributes_to_message, convert.attributes_from_message),
    ("path", PATH_VIEW, convert.path_to_message, convert.path_from_message),
    ("path_unchanged", UNCHANGED_PATH_VIEW, convert.path_to_message, convert.path_from_message),
    ("fib", FIB_VIEW, convert.fib_to_message, convert.fib_from_message),
    ("change", CHANGE, convert.change_to_message, convert.change_from_message),
    ("explanation", EXPLANATION, convert.explanation_to_message, convert.explanation_from_message),
    ("peer", PEER, convert_peer.peer_to_message, convert_peer.peer_from_message),
    ("status", STATUS, convert_peer.status_to_message, convert_peer.status_from_message),
    ("node", NODE, convert_node.node_to_message, convert_node.node_from_message),
    ("verdict", VERDICT, convert_node.verdict_to_message, convert_node.verdict_from_message),
    ("service", SERVICE_PATH, convert_node.service_path_to_message, convert_node.service_path_from_message),
    ("shutdown", SHUTDOWN, convert_peer.shutdown_to_message, convert_peer.shutdown_from_message),
]


@pytest.mark.parametrize(("values", "to", "back"), [pair[1:] for pair in PAIRS], ids=[p[0] for p in PAIRS])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_value_survives_the_way_through_the_api(
    values: st.SearchStrategy[object],
    to: Callable[[object], Message],
    back: Callable[[Message], object],
    data: st.DataObject,
) -> None:
    value = data.draw(values)
    assert over_the_wire(value, to, back) == value


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.0/8", "fe80::1%eth0", "fe80:::1"])
def test_text_that_is_no_address_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no IP address"):
        convert.required_address(text)
