"""`podbgp node` and `podbgp service` over the real server: answers and reasons, also without Kubernetes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from api.cli import main
from api.client import Client, ClientError, InvalidRequestError
from routes.node_view import (
    ApiServerNews,
    ClusterKnown,
    IntentProblem,
    NodeDrain,
    NodeHost,
    NodeReadiness,
    NodeReflector,
    NodeStatus,
    UnreadableObject,
)
from routes.own_path import OwnPath
from routes.prefix import Prefix
from tests.fakes.fake_daemon_view import FakeDaemonView, FakeServices, ServedView, served, verdict

IN_SERVICE = NodeDrain(False, True, True, "the node is in service")
CORDONED = NodeDrain(True, False, True, "the node is cordoned: 2 pods are still here")
WELL = ApiServerNews(synced=True, stale=False, age=0.0, error="")
AWAY = ApiServerNews(synced=True, stale=True, age=130.0, error="connection refused")
HOST = NodeHost(
    NodeReadiness(can_forward=True, ready=True, reasons=()),
    IN_SERVICE,
    cni_written=True,
    cni_file="/etc/cni/net.d/10-podbgp.conflist",
    reflector=NodeReflector(wanted=False, running=False),
)
CLUSTER = ClusterKnown("node1", WELL)
READY = NodeStatus("agent", "", CLUSTER, HOST)
WAITING = replace(
    READY,
    host=replace(
        HOST,
        readiness=NodeReadiness(False, False, ("0 of 2 peers know us: 192.0.2.1 (no session)",)),
        cni_written=False,
        drain=CORDONED,
        reflector=NodeReflector(wanted=True, running=False),
        trouble=("packet filter: nft is missing",),
    ),
)
SPOILED = replace(
    READY,
    cluster=replace(
        CLUSTER,
        api_server=AWAY,
        waits="the API server is away",
        problems=(IntentProblem("BGPPeer", "tor1", "NoPassword", "the Secret is missing\x1b[31m"),),
        problem_count=7,
        unreadable=(UnreadableObject("BGPPolicy bad", "spec.rules: not a list"),),
        unreadable_count=1,
    ),
)
VERDICTS = (
    verdict("shop/idle", "203.0.113.2"),
    verdict("shop/web", "10.96.0.7", "10.96.0.0/16", kind="ClusterIP"),
    verdict("shop/web", "203.0.113.1", "203.0.113.1/32"),
    verdict("zoo/api", "2001:db8::1", "2001:db8::1/128"),
)
PATHS = (
    OwnPath(Prefix.parse("10.96.0.0/16"), unreachable=False, local_pref=0, communities=(0xFFFF0000,)),
    OwnPath(Prefix.parse("203.0.113.1/32"), unreachable=False, large_communities=((65000, 1, 2),)),
    OwnPath(Prefix.parse("2001:db8::1/128"), unreachable=False, med=5),
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[ServedView]:
    with capture_logs(), served(FakeDaemonView()) as it:
        yield it


@pytest.fixture(autouse=True)
def cluster(daemon: ServedView) -> None:
    daemon.view.node_status = READY
    daemon.view.cluster_services = FakeServices(VERDICTS, PATHS)


@pytest.fixture
def client(daemon: ServedView) -> Iterator[Client]:
    with Client(daemon.api) as it:
        yield it


def podbgp(daemon: ServedView, command: str) -> Result:
    return CliRunner().invoke(main, ["--api", daemon.api, *command.split()])


def shows(result: Result, *patterns: str) -> None:
    assert (result.exit_code, result.stderr) == (0, "")
    for pattern in patterns:
        assert re.search(pattern, result.stdout, re.MULTILINE), f"{pattern} not in\n{result.stdout}"
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("status", "patterns"),
    [
        (READY, [r"^Node node1, agent$", r"takes pods +yes$", r"CNI configuration +written, /etc/cni",
                 r"drain +the node is in service$", r"API server +heard from$"]),
        (WAITING, [r"takes pods +no$", r"because 0 of 2 peers know us: 192\.0\.2\.1 \(no session\)",
                   r"CNI configuration +not written", r"drain +the node is cordoned: 2 pods",
                   r"announced as going: pod prefixes$", r"its reflector should run, and does not$",
                   r"host +packet filter: nft is missing$"]),
        (SPOILED, [r"API server +not heard from for 2m 10s, what is known stays in use: connection refused$",
                   r"waits +the API server is away$", r"^Not taken as written$",
                   r"BGPPeer tor1 +NoPassword: the Secret is missing\\x1b", r"^Can't be read",
                   r"BGPPolicy bad +spec\.rules: not a list$", r"^  and 6 more$"]),
        (replace(READY, host=None, role="reflector"), [r"^Node node1, reflector$", r"API server +heard"]),
        (NodeStatus("agent", "/etc/podbgp/agent.toml"),
         [r"^This agent takes its intent from /etc/podbgp/agent\.toml, not from Kubernetes\. podbgp status"]),
    ],
    ids=["ready", "waiting", "spoiled", "reflector", "file"],
)  # fmt: skip
def test_node_says_what_stands_in_its_way(
    daemon: ServedView, status: NodeStatus, patterns: list[str]
) -> None:
    daemon.view.node_status = status
    shows(podbgp(daemon, "node"), *patterns)


@pytest.mark.parametrize("status", [READY, WAITING, SPOILED, NodeStatus("agent", "/etc/podbgp/agent.toml")])
def test_programs_get_all_of_it_with_the_same_keys(daemon: ServedView, status: NodeStatus) -> None:
    daemon.view.node_status = status
    result = podbgp(daemon, "node --output json")
    document = json.loads(result.stdout)
    assert list(document) == ["source", "role", "config_path", "cluster", "host"]
    if status.cluster is None:
        assert (document["source"], document["cluster"], document["host"]) == ("file", None, None)
        return
    assert document["source"] == "kubernetes"
    assert set(document["cluster"]) == set(ClusterKnown.__slots__)
    assert set(document["host"]) == set(NodeHost.__slots__)
    assert document["cluster"]["problem_count"] == status.cluster.problem_count


@pytest.mark.parametrize(
    ("command", "patterns"),
    [
        ("service", [r"^SERVICE +KIND +ADDRESS +ANNOUNCED AS +RULE$",
                     r"^shop/web +ClusterIP +10\.96\.0\.7 +10\.96\.0\.0/16 +Announced$",
                     r"^shop/idle +LoadBalancerIP +203\.0\.113\.2 +- +NoEndpoint$",
                     r"^3 of 4 announced"]),
        ("service shop", [r"^2 of 3 announced"]),
        ("service shop/", [r"^2 of 3 announced"]),
        ("service shop/idle", [r"^LoadBalancerIP 203\.0\.113\.2 is not announced: no endpoint is ready$"]),
        ("service nowhere", [r"^No Services\.$"]),
        ("service --limit 1", [r"^0 of 1 announced"]),
        ("service --paths", [r"^10\.96\.0\.0/16 +0 +graceful-shutdown$", r"^203.* 65000:1:2$", r"^3 paths$"]),
        ("service --paths --limit 2", [r"^2 paths$"]),
    ],
)  # fmt: skip
def test_service_says_what_is_announced_and_why_not(
    daemon: ServedView, command: str, patterns: list[str]
) -> None:
    shows(podbgp(daemon, command), *patterns)


def test_why_a_list_is_short_is_said_to_people_and_programs(daemon: ServedView) -> None:
    note = "no BGPAdvertisement selects this node"
    daemon.view.cluster_services = FakeServices((), (), note)
    shows(podbgp(daemon, "service"), rf"^{note}$", r"^No Services\.$")
    shows(podbgp(daemon, "service --paths"), r"^Nothing is announced for Services\.$")
    result = podbgp(daemon, "service -o json")
    assert (json.loads(result.stdout), result.stderr) == ([], f"podbgp: {note}\n")


def test_service_documents_have_everything(daemon: ServedView) -> None:
    (document,) = json.loads(podbgp(daemon, "service shop/idle -o json").stdout)
    assert document == {
        "namespace": "shop", "name": "idle", "address": "203.0.113.2", "kind": "LoadBalancerIP",
        "announced": False, "rule": "NoEndpoint", "prefixes": [],
        "text": "LoadBalancerIP 203.0.113.2 is not announced: no endpoint is ready",
    }  # fmt: skip
    first, *_ = podbgp(daemon, "service --paths -o jsonl").stdout.splitlines()
    assert json.loads(first) == {
        "prefix": "10.96.0.0/16", "communities": ["graceful-shutdown"], "large_communities": [],
        "local_pref": 0, "med": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (NodeStatus("agent", "/etc/podbgp/agent.toml"),
         "podbgp: this agent takes its intent from /etc/podbgp/agent.toml, not from Kubernetes, so it knows "
         "no Services: podbgp routes --peer local shows what it announces\n"),
        (replace(READY, role="reflector", host=None),
         "podbgp: a reflector announces no Services: ask the agent of a node\n"),
    ],
)  # fmt: skip
def test_a_daemon_without_services_says_so(daemon: ServedView, status: NodeStatus, sentence: str) -> None:
    daemon.view.node_status, daemon.view.cluster_services = status, None
    for command in ("service", "service shop/web", "service --paths"):
        result = podbgp(daemon, command)
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", sentence)


@pytest.mark.parametrize("command", ["service /web", "service a/b/c", "service shop/web --paths"])
def test_words_that_make_no_sense_are_refused(daemon: ServedView, command: str) -> None:
    assert podbgp(daemon, command).exit_code == 2


def test_pages_cover_everything_once(client: Client) -> None:
    seen, token = [], ""
    while True:
        page = client.services(size=1, token=token)
        seen.append([f"{each.namespace}/{each.name}" for each in page.verdicts])
        if not page.next_token:
            break
        token = page.next_token
    assert seen == [["shop/idle"], ["shop/web", "shop/web"], ["zoo/api"]]


def test_pages_of_paths_cover_everything_once(client: Client) -> None:
    first, token = client.service_paths(size=2)
    rest, end = client.service_paths(size=2, token=token)
    assert ((*first, *rest), end) == (PATHS, "")


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda c: c.services("", "web"), "filter.name: 'web' needs filter.namespace"),
        (lambda c: c.services("a/b"), "filter.namespace: 'a/b' is no name of an object"),
        (lambda c: c.services("x" * 300), "filter.namespace: 'x"),
        (lambda c: c.services(token="shop"), "page_token: 'shop' is no next_page_token"),
        (lambda c: c.service_paths(token="shop/web"), "page_token: 'shop/web' is neither prefix nor address"),
    ],
)
def test_requests_that_make_no_sense_are_named(client: Client, ask: object, sentence: str) -> None:
    assert callable(ask)
    with pytest.raises(InvalidRequestError, match=re.escape(sentence)) as caught:
        ask(client)
    assert isinstance(caught.value, ClientError)
