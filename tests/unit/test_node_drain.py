"""A node leaves traffic step by step, and comes back at once."""

from __future__ import annotations

import pytest

from bgpd.node.drain import SHUTDOWN_TIME, DrainFacts, plan

SERVING = DrainFacts(True, False, False, 0.0, pods=4, local_endpoints=2)
CORDONED = SERVING._replace(unschedulable=True)
LATER = CORDONED._replace(leaving_for=SHUTDOWN_TIME)
STEPS = [
    ("in service", SERVING, (False, True, True)),
    ("cordoned: others may take over", CORDONED, (True, True, True)),
    ("endpoints still here", LATER, (True, True, True)),
    ("endpoints moved: services first", LATER._replace(local_endpoints=0), (True, False, True)),
    ("the last pod went", LATER._replace(local_endpoints=0, pods=0), (True, False, False)),
    ("a DaemonSet's pod is bound to it", LATER._replace(local_endpoints=0, pods=1), (True, False, True)),
    ("uncordoned", SERVING._replace(pods=1, local_endpoints=0), (False, True, True)),
]


@pytest.mark.parametrize(("facts", "wanted"), [(facts, wanted) for _, facts, wanted in STEPS],
                         ids=[name for name, _, _ in STEPS])  # fmt: skip
def test_the_steps_of_a_drain(facts: DrainFacts, wanted: tuple[bool, bool, bool]) -> None:
    assert plan(facts)[:3] == wanted
    assert plan(facts).reason


def test_nothing_is_withdrawn_before_others_had_time_to_take_over() -> None:
    empty = CORDONED._replace(pods=0, local_endpoints=0)
    assert plan(empty._replace(leaving_for=SHUTDOWN_TIME - 0.1))[:3] == (True, True, True)
    assert plan(empty._replace(leaving_for=SHUTDOWN_TIME))[:3] == (True, False, False)


def test_a_node_being_deleted_drains_like_a_cordoned_one() -> None:
    deleted = LATER._replace(unschedulable=False, deleting=True)
    assert plan(deleted)[:3] == plan(LATER)[:3]
    assert "being deleted" in plan(deleted).reason


def test_a_deleted_node_withdraws_everything_at_once() -> None:
    assert plan(SERVING._replace(exists=False))[:3] == (True, False, False)


def test_the_reason_says_what_is_waited_for() -> None:
    assert "4 pods are still here, 2 service endpoints among them" in plan(LATER).reason
    assert (
        "1 pod is still here, services are withdrawn"
        in plan(LATER._replace(pods=1, local_endpoints=0)).reason
    )
