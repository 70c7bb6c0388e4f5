"""What `podbgp service` is told: each address of each Service in order, also while Services come and go."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from bgpd.kube import services_view
from bgpd.kube.service_claims import Limits
from bgpd.kube.services import ServiceAnnouncements
from bgpd.kube.services_view import ServicesShown
from routes.node_view import ServiceQuery, ServiceVerdict
from routes.prefix import Prefix, format_address
from tests.fakes.service_objects import advertisement, endpoints, pool, prefixes, service

SERVICES = (
    service("web", "10.96.0.7", ingress="203.0.113.1"),
    service("idle", "10.96.0.8", ingress="203.0.113.2"),
    service("web", "10.96.0.9", namespace="zoo"),
    service("bare", "", namespace="attic", kind="ExternalName"),
)


@pytest.fixture
def announcements() -> ServiceAnnouncements:
    found = ServiceAnnouncements("n1", Limits(prefixes("10.96.0.0/16"), [pool("p", "203.0.113.0/24")]))
    found.advertisements_replaced([advertisement("all")])
    for each in SERVICES:
        found.service_changed(each)
    found.slice_changed(endpoints("web", "n2"))
    return found


def lines(verdicts: Iterator[ServiceVerdict | None]) -> list[str]:
    return [
        f"{each.namespace}/{each.name} {format_address(each.address) if each.address else '-'} {each.rule}"
        for each in verdicts
        if each is not None
    ]


EVERYTHING = [
    "attic/bare - NothingToAnnounce",
    "default/idle 10.96.0.8 Announced",
    "default/idle 203.0.113.2 NoEndpoint",
    "default/web 10.96.0.7 Announced",
    "default/web 203.0.113.1 Announced",
    "zoo/web 10.96.0.9 Announced",
]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ServiceQuery(), EVERYTHING),
        (ServiceQuery("default"), EVERYTHING[1:5]),
        (ServiceQuery("default", "web"), EVERYTHING[3:5]),
        (ServiceQuery("default", after=("default", "idle")), EVERYTHING[3:5]),
        (ServiceQuery(after=("default", "web")), EVERYTHING[5:]),
        (ServiceQuery("default", "none"), ["default/none - NothingToAnnounce"]),
        (ServiceQuery("default", "web", after=("default", "web")), []),
        (ServiceQuery("nowhere"), []),
    ],
)
@pytest.mark.parametrize("run", [1, 2048])
def test_services_are_told_in_order(
    announcements: ServiceAnnouncements,
    query: ServiceQuery,
    expected: list[str],
    run: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services_view, "RUN", run)
    assert lines(ServicesShown(announcements, str).verdicts(query)) == expected


def test_a_service_deleted_while_it_is_listed_is_left_out(announcements: ServiceAnnouncements) -> None:
    verdicts = ServicesShown(announcements, str).verdicts(ServiceQuery())
    assert len(lines(islice(verdicts, 2))) == 1  # a pause, and the first
    announcements.service_deleted(("default", "web"))
    assert lines(verdicts) == [*EVERYTHING[1:3], EVERYTHING[5]]


def test_announced_paths_are_told_from_a_position_on(announcements: ServiceAnnouncements) -> None:
    shown = ServicesShown(announcements, str)
    everything = sorted(announcements.announced)
    assert len(everything) == 4
    for at, after in enumerate([None, *everything]):
        found = [path for path in shown.paths(after) if path is not None]
        assert [path.nlri for path in found] == everything[at:]
    assert Prefix.parse("203.0.113.1/32") in everything
