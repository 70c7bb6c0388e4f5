"""Label selectors select what Kubernetes' own would."""

from __future__ import annotations

import pytest

from bgpd.kube.selector import EVERYTHING, LabelSelector, Operator, Requirement

WEB = {"app": "web", "tier": "front"}


def requirement(operator: Operator, *values: str, key: str = "app") -> LabelSelector:
    return LabelSelector(requirements=(Requirement(key, operator, frozenset(values)),))


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        (EVERYTHING, True),
        (LabelSelector((("app", "web"),)), True),
        (LabelSelector((("app", "web"), ("tier", "back"))), False),
        (LabelSelector((("zone", ""),)), False),
        (requirement(Operator.IN, "dns", "web"), True),
        (requirement(Operator.IN, "dns"), False),
        (requirement(Operator.IN, "a", key="zone"), False),
        (requirement(Operator.NOT_IN, "dns"), True),
        (requirement(Operator.NOT_IN, "web"), False),
        (requirement(Operator.NOT_IN, "a", key="zone"), True),  # holds where the label is missing
        (requirement(Operator.EXISTS), True),
        (requirement(Operator.EXISTS, key="zone"), False),
        (requirement(Operator.DOES_NOT_EXIST, key="zone"), True),
        (requirement(Operator.DOES_NOT_EXIST), False),
        (LabelSelector((("app", "web"),), (Requirement("tier", Operator.EXISTS),)), True),
        (LabelSelector((("app", "web"),), (Requirement("zone", Operator.EXISTS),)), False),
    ],
)
def test_every_label_and_every_requirement_must_hold(selector: LabelSelector, selects: bool) -> None:
    assert selector.matches(WEB) is selects
