"""What docs/services.md shows is what the code takes and says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from bgpd.kube.custom import decode_advertisement, decode_pool
from bgpd.kube.objects import decode_service
from bgpd.kube.pool_demand import is_ours
from bgpd.kube.pool_problems import Trouble
from bgpd.kube.service_claims import Rule

PAGE = (Path(__file__).parents[2] / "docs" / "services.md").read_text()
DECODERS = {
    "BGPAdvertisement": decode_advertisement,
    "BGPAddressPool": decode_pool,
    "Service": decode_service,
}


def shown() -> list[dict[str, object]]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    return [each for block in blocks for each in yaml.safe_load_all(block)]


def test_every_object_shown_is_taken() -> None:
    kinds = {str(each["kind"]) for each in shown()}
    assert kinds == set(DECODERS)
    for each in shown():
        DECODERS[str(each["kind"])](json.dumps(each).encode())
    services = [decode_service(json.dumps(each).encode()) for each in shown() if each["kind"] == "Service"]
    assert all(map(is_ours, services))


def test_every_rule_and_reason_named_exists() -> None:
    named = set(
        re.findall(r"`([A-Z][a-zA-Z]+)`", PAGE.split("## The packet's way")[0].split("What is refused")[1])
    )
    assert named == {
        rule.value
        for rule in Rule
        if rule
        not in {
            Rule.ANNOUNCED, Rule.GOING, Rule.NO_ENDPOINT, Rule.NO_LOCAL_ENDPOINT, Rule.NO_ADVERTISEMENT,
            Rule.OTHER_NODES, Rule.DRAINED, Rule.NOTHING_TO_ANNOUNCE,
        }
    } | {"Local"}  # fmt: skip
    for reason in (Trouble.EXHAUSTED, Trouble.OUTSIDE, Trouble.OVERLAP, Trouble.KEPT_OUT):
        assert f"`{reason}`" in PAGE
