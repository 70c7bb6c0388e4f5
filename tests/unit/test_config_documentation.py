"""docs/configuration.md and the code say the same: keys, defaults, examples."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, fields
from enum import Enum, IntEnum
from pathlib import Path

import pytest

from bgpd import config as values
from bgpd.config_file import load, parse
from bgpd.config_table import InvalidConfigError
from routes.route_policy import AsPathMatch, RouteMatch, RoutePolicy, RouteRule, RouteSet

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
SECTIONS = (
    "speaker",
    "agent",
    "peers",
    "import",
    "policies",
    "policies.rules",
    "fib",
    "reflector",
    "reflector.clients",
    "api",
    "metrics",
    "log",
)
ARRAYS = ("peers", "policies", "reflector.clients")
NESTED = ("peers.max_prefixes.", "peers.export.", "policies.rules.match.", "policies.rules.set.")
"""Tables inside a section, which are described once although a range of clients has them too."""
SPEAKER = '[speaker]\nasn = 65000\nrouter_id = "192.0.2.11"\nlisten = ["192.0.2.11:179"]\n'
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)

ENTRY = re.compile(r"^### `([a-z0-9_.]+)`\n\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
DOCUMENTED = dict(ENTRY.findall(DOCUMENT))
"""The text of each key."""

HOMES: dict[type, str] = {
    values.SpeakerConfig: "speaker",
    values.AgentConfig: "agent",
    values.PeerConfig: "peers",
    values.MaxPrefixes: "peers.max_prefixes",
    values.ImportConfig: "import",
    values.FibConfig: "fib",
    values.ExportConfig: "peers.export",
    RoutePolicy: "policies",
    RouteRule: "policies.rules",
    RouteMatch: "policies.rules.match",
    AsPathMatch: "policies.rules.match.as_path",
    RouteSet: "policies.rules.set",
    values.ReflectorConfig: "reflector",
    values.ClientRange: "reflector.clients",
    values.Config: "",
}
"""The section that each dataclass is read from."""

DERIVED = {
    "peers.name": "from address",
    "peers.interface": "from address",
    "peers.kind": "from asn",
    "peers.range": "of a peer that has no entry",
    "reflector.clients.members": "of a reflector that knows the nodes",
    "path": "of the file itself",
    "warnings": "of the file itself",
}
"""Fields that have no key of their own."""

RENAMED = {
    "peers.password": "peers.password_file",
    "reflector.clients.password": "reflector.clients.password_file",
    "peers.export.add_communities": "peers.export.communities",
    "peers.export.add_large_communities": "peers.export.communities",
    "policies.rules.match.large_communities": "policies.rules.match.communities",
    "policies.rules.set.add_large_communities": "policies.rules.set.add_communities",
    "policies.rules.set.remove_large_communities": "policies.rules.set.remove_communities",
    "api_listen": "api.listen",
    "metrics_listen": "metrics.listen",
    "log_level": "log.level",
    "log_format": "log.format",
}
INHERITED = {
    "peers.hold_time": "speaker.hold_time",
    "peers.graceful_restart": "speaker.graceful_restart",
    "reflector.cluster_id": "speaker.router_id",
    "reflector.clients.hold_time": "speaker.hold_time",
}
"""Keys whose default is another key."""

NO_KEYS = ("speaker", "agent", "peers", "imports", "policies", "fib", "reflector")
"""Fields of a whole section."""

EMPTY = (values.ExportConfig(), RouteMatch(), AsPathMatch(), RouteSet())
"""Tables without a key."""

FIELDS = {
    RENAMED.get(name, name): field
    for owner, section in HOMES.items()
    for field in fields(owner)
    if (name := f"{section}.{field.name}".lstrip(".")) not in DERIVED and name not in NO_KEYS
}
"""Every field that an operator can set, by its key."""


def accepted_keys(section: str) -> set[str]:
    """The keys that the reader knows in a section, from its complaint about one that it doesn't."""
    header = f"[[{section}]]\n" if section in ARRAYS else f"[{section}]\n"
    if section == "policies.rules":
        header = "[[policies]]\n[[policies.rules]]\n"
    with pytest.raises(InvalidConfigError) as caught:
        parse(f"{header}qqqqqqqq = 1\n", "agent.toml")
    (complaint,) = (each.text for each in caught.value.problems if each.key.endswith("qqqqqqqq"))
    return {f"{section}.{key}" for key in complaint.partition("known here: ")[2].split(", ")}


def test_the_documented_keys_are_those_that_are_accepted() -> None:
    accepted = {key for section in SECTIONS for key in accepted_keys(section)}
    assert {key for key in DOCUMENTED if not key.startswith(NESTED)} == accepted


def test_every_field_is_documented_and_every_documented_key_is_a_field() -> None:
    assert set(DOCUMENTED) == set(FIELDS)


@pytest.mark.parametrize("key", DOCUMENTED)
def test_the_documented_default_is_the_one_in_the_code(key: str) -> None:
    field = FIELDS[key]
    facts = DOCUMENTED[key].partition("\n\n")[0]
    if field.default is MISSING and key not in INHERITED:
        assert "Required" in facts
        return
    (default,) = re.findall(r"Default: (none|`[^`]*`)\.", facts)
    if key in INHERITED:
        assert default == f"`{INHERITED[key]}`"
    elif default == "none":
        assert field.default in (None, (), "", *EMPTY)
    else:
        assert tomllib.loads(f"it = {default.strip('`')}")["it"] == plain(field.default)


def plain(value: object) -> object:
    """A default as TOML gives it."""
    if isinstance(value, Enum):
        return str(value) if isinstance(value, IntEnum) else value.value
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


@pytest.mark.parametrize("key", DOCUMENTED)
def test_every_key_has_a_meaning_beside_its_facts(key: str) -> None:
    facts, _, meaning = DOCUMENTED[key].partition("\n\n")
    assert re.match(r"[A-Z]", facts)
    assert meaning.strip()


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_valid(example: str, tmp_path: Path) -> None:
    for name in ("tor1.password", "nodes.password"):
        (tmp_path / name).write_text("s3cret\n")
    text = example if "[speaker]" in example else SPEAKER + example
    parse(text, str(tmp_path / "agent.toml"))


@pytest.mark.parametrize("key", DOCUMENTED)
def test_every_key_is_in_an_example(key: str) -> None:
    assert any(has(tomllib.loads(example), key.split(".")) for example in EXAMPLES)


def has(value: object, names: list[str]) -> bool:
    if not names:
        return True
    if isinstance(value, list):
        return any(has(item, names) for item in value)
    return isinstance(value, dict) and names[0] in value and has(value[names[0]], names[1:])


@pytest.mark.parametrize("role", ["agent", "reflector"])
def test_the_example_file_is_valid_and_without_warnings(role: str) -> None:
    config = load(ROOT / "deploy" / f"{role}.example.toml")
    assert config.role == role
    assert config.warnings == ()
    assert config.peers
