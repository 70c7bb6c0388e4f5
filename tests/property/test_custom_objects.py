"""Whatever an API server says, a decoder of podbgp.dev gives a value or a sentence, and nothing else.

And what a schema with its rules refuses, the decoder refuses.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import cast

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bgpd.kube import custom
from tests.fakes import crd_server
from tests.fakes.crd_server import Json, Schema

ROOT = Path(__file__).parents[2]
DECODERS = {
    "bgpclusters": custom.decode_cluster,
    "bgppeers": custom.decode_peer,
    "bgppolicies": custom.decode_policy,
    "bgpadvertisements": custom.decode_advertisement,
    "bgpaddresspools": custom.decode_pool,
    "bgpnodestates": custom.decode_node_state,
}
CRDS = {plural: crd_server.load(ROOT / f"deploy/crds/{plural}.yaml") for plural in DECODERS}
GOOD = {
    plural: cast(Schema, yaml.safe_load((ROOT / f"tests/unit/crd_examples/{plural}.yaml").read_text()))[
        "good"
    ]
    for plural in DECODERS
}
TEXTS = st.sampled_from(
    ["", "0.0.0.0/0", "10.244.0.0/16", "fd00::/48", "192.0.2.1", "::", "fe80::1%eth0", "1:2:3", "65536:1",
     "203.0.113.1-203.0.113.9", "IPv4", "Accept", "mesh", "A" * 300, "\u0000", "2026-01-31T12:00:00Z", "-"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-1, 2**33) | st.floats(allow_nan=False) | TEXTS | st.text()
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@st.composite
def objects(draw: st.DrawFn) -> tuple[str, Json]:
    """A good object of some kind with something, somewhere, replaced."""
    plural = draw(st.sampled_from(sorted(DECODERS)))
    value: Json = copy.deepcopy(draw(st.sampled_from(cast("list[Json]", GOOD[plural]))))
    place: Json = value
    key: str | int = ""
    parent: Json = None
    for _ in range(draw(st.integers(1, 5))):
        keys: list[str | int] = list(place) if isinstance(place, dict) else []
        keys = list(range(len(place))) if isinstance(place, list) else keys
        if not keys:
            break
        key, parent = draw(st.sampled_from(keys)), place
        place = cast("dict[str | int, Json]", place)[key]
    assume(parent is not None)
    cast("dict[str | int, Json]", parent)[key] = cast(Json, draw(ANYTHING))
    return plural, value


@given(objects())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_decoder_gives_a_value_or_a_sentence_and_is_as_strict_as_the_schema(case: tuple[str, Json]) -> None:
    plural, value = case
    try:
        DECODERS[plural](json.dumps(value).encode())
    except ValueError as error:
        text = str(error)
        assert text.startswith(f"{CRDS[plural].kind} ")
        assert text.isprintable()
        assert len(text) < 1_000
    else:
        assert isinstance(value, dict)
        assert crd_server.admit(CRDS[plural], value) == []


@given(st.binary(max_size=200))
def test_bytes_that_are_no_object_are_refused(raw: bytes) -> None:
    for decoder in DECODERS.values():
        with pytest.raises(ValueError, match=r"^BGP"):
            decoder(raw)
