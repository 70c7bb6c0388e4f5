"""`[[policies]]` and own prefixes with attributes: what a file means, and what is said of mistakes in it."""

from __future__ import annotations

import pytest

from bgpd.config import Config
from bgpd.config_file import parse
from bgpd.config_table import InvalidConfigError
from bgpd.errors import ConfigError
from routes.own_path import OwnPath
from routes.prefix import Prefix
from routes.route_policy import (
    Action,
    AsPathMatch,
    PrefixRange,
    RouteMatch,
    RoutePolicy,
    RouteRule,
    RouteSet,
)

SPEAKER = '[speaker]\nasn = 65000\nrouter_id = "192.0.2.11"\n'
PEER = '[[peers]]\naddress = "192.0.2.1"\nasn = 64601\n'
IBGP = '[[peers]]\naddress = "192.0.2.2"\nasn = 65000\n'
IMPORT = '[import]\nallow = ["10.0.0.0/8"]\n'
WHOLE = """
[[policies]]
name = "from-tor"
default = "accept"
[[policies.rules]]
name = "r1"
match = { prefixes = ["10.0.0.0/8", { prefix = "10.1.0.0/16", ge = 24 }, { prefix = "::/0", le = 64 }] }
action = "reject"
[[policies.rules]]
name = "r2"
action = "continue"
[policies.rules.match]
as_path = { contains = [1], originated_by = [2], neighbor = [3, 4], min_length = 1, max_length = 9 }
communities = ["65000:1", "1:2:3", "no-export"]
[policies.rules.set]
local_pref = 50
med = 0
prepend = 2
add_communities = ["65000:2", "4:5:6"]
remove_communities = ["65000:1", "1:2:3"]
[[policies]]
name = "empty"
"""


def configured(text: str) -> Config:
    return parse(SPEAKER + IMPORT + text, "agent.toml")


def complaints(text: str) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        configured(text)
    return str(caught.value)


def within(text: str, ge: int, le: int) -> PrefixRange:
    return PrefixRange(Prefix.parse(text), ge, le)


def test_a_file_with_everything() -> None:
    config = configured(PEER + 'import_policies = ["from-tor", "empty"]\n' + WHOLE)
    first = RouteRule(
        "r1",
        Action.REJECT,
        RouteMatch((within("10.0.0.0/8", 8, 8), within("10.1.0.0/16", 24, 32), within("::/0", 0, 64))),
    )
    second = RouteRule(
        "r2",
        Action.CONTINUE,
        RouteMatch(
            as_path=AsPathMatch((1,), (2,), (3, 4), 1, 9),
            communities=(65000 << 16 | 1, 0xFFFFFF01),
            large_communities=((1, 2, 3),),
        ),
        RouteSet(50, 0, 2, (65000 << 16 | 2,), ((4, 5, 6),), (65000 << 16 | 1,), ((1, 2, 3),)),
    )
    assert config.policies == (RoutePolicy("from-tor", (first, second), Action.ACCEPT), RoutePolicy("empty"))
    (peer,) = config.peers
    assert (peer.import_policies, peer.export_policies) == (("from-tor", "empty"), ())
    assert config.named_policies(peer.import_policies) == config.policies
    with pytest.raises(ConfigError, match="there is no policy 'gone'"):
        config.named_policies(["gone"])


RULE = '[[policies]]\nname = "p"\n[[policies.rules]]\nname = "r"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (PEER + 'import_policies = ["x"]\n', "is no policy of this file: the file has no [[policies]]"),
        (
            PEER + 'export_policies = ["x"]\n' + WHOLE,
            'peers[0].export_policies[0] = "x": is no policy of this file: there are from-tor, empty',
        ),
        (PEER + 'import_policies = ["empty", "empty"]\n' + WHOLE, "is the same as import_policies[0]"),
        ('[[policies]]\nname = "a b"\n', "must be a name of 1 to 63 letters"),
        ('[[policies]]\nname = "a"\n[[policies]]\nname = "a"\n', "is the same as policies[0].name"),
        ('[[policies]]\nname = "a"\ndefault = "continue"\n', 'must be one of "accept", "reject"'),
        ('[[policies]]\ndefault = "accept"\n', "policies[0].name: is missing"),
        (RULE, "policies[0].rules[0].action: is missing"),
        (RULE + 'action = "drop"\n', 'must be one of "accept", "reject", "continue"'),
        (RULE + 'action = "continue"\n', "must have something to set, or the rule does nothing"),
        (RULE + 'action = "reject"\nset = { med = 1 }\n', "does nothing: a rejected path goes nowhere"),
        (RULE + 'action = "accept"\nset = {}\n', "must change something"),
        (RULE + 'action = "accept"\nmatch = {}\n', "must have a condition"),
        (RULE + 'action = "accept"\nmatch = { prefixes = [] }\n', "must not be empty: leave it out"),
        (
            RULE + 'action = "accept"\n[[policies.rules]]\nname = "r"\naction = "accept"\n',
            "is the same as rules[0].name",
        ),
        (
            RULE + 'action = "accept"\nmatch = { prefixes = [{ prefix = "10.0.0.0/8", le = 7 }] }\n',
            "le must be an integer from 8 to 32",
        ),
        (RULE + 'action = "accept"\nmatch = { as_path = { contains = [0] } }\n', "from 1 to 4294967294"),
        (
            RULE + 'action = "accept"\nmatch = { as_path = { min_length = 3, max_length = 2 } }\n',
            "must be at least min_length (3)",
        ),
        (RULE + 'action = "accept"\nmatch = { as_path = { regex = ".*" } }\n', "is no known key"),
        (RULE + 'action = "accept"\nset = { prepend = 17 }\n', "must be an integer from 1 to 16"),
        (
            RULE + 'action = "accept"\nset = { add_communities = ["1:1"], remove_communities = ["1:1"] }\n',
            "removes what add_communities adds",
        ),
        (
            RULE + f'action = "accept"\nmatch = {{ as_path = {{ contains = {list(range(1, 67))} }} }}\n',
            "must have at most 64 values",
        ),
    ],
)
def test_a_mistake_is_named_with_what_would_be_valid(text: str, complaint: str) -> None:
    assert complaint in complaints(text)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ('[[policies]]\nname = "p"\n', "is used by no import_policies or export_policies"),
        (PEER + 'import_policies = ["p"]\n' + RULE + 'action = "accept"\nset = { prepend = 1 }\n', "prepend"),
        (IBGP + 'export_policies = ["p"]\n' + RULE + 'action = "accept"\nset = { prepend = 1 }\n', "prepend"),
        (
            PEER + 'export_policies = ["p"]\n' + RULE + 'action = "accept"\nset = { local_pref = 1 }\n',
            "sets local_pref, which stays inside the AS, and this peer is an eBGP one",
        ),
    ],
)
def test_what_does_nothing_is_a_warning(text: str, warning: str) -> None:
    (problem,) = (each for each in configured(text).warnings if "polic" in each.key)
    assert warning in problem.text


def test_a_reflector_has_policies_for_its_ranges() -> None:
    text = (
        '[speaker]\nasn = 65000\nrouter_id = "192.0.2.1"\nlisten = ["192.0.2.1:179"]\n[reflector]\n'
        '[[reflector.clients]]\nrange = "192.0.2.0/24"\nasn = 65000\nexport_policies = ["empty"]\n'
    )
    config = parse(text + WHOLE, "reflector.toml")
    assert config.reflector is not None
    assert config.reflector.clients[0].export_policies == ("empty",)


POD = '{ prefix = "10.1.0.0/24", communities = ["65000:1", "1:2:3"], local_pref = 0, med = 7 }'


def test_own_prefixes_may_have_attributes() -> None:
    service = '{ prefix = "203.0.113.7/32", unreachable = false }'
    config = configured(f'[agent]\nadvertise = ["10.2.0.0/24", {POD}, {service}]\ndrain = true\n')
    assert config.agent.drain
    assert config.agent.advertise == (
        OwnPath(Prefix.parse("10.2.0.0/24")),
        OwnPath(Prefix.parse("10.1.0.0/24"), True, (65000 << 16 | 1,), ((1, 2, 3),), 0, 7),
        OwnPath(Prefix.parse("203.0.113.7/32"), unreachable=False),
    )


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ("{ med = 1 }", "must have the key prefix, and may have unreachable, communities"),
        ('{ prefix = "10.1.0.0/24", weight = 1 }', "and no others"),
        ('{ prefix = "10.1.0.1/24" }', 'prefix has host bits set; the prefix is "10.1.0.0/24"'),
        ('{ prefix = "0.0.0.0/0" }', "prefix is a default route"),
        ('{ prefix = "10.1.0.0/24", med = "1" }', "med must be an integer"),
        ('{ prefix = "10.1.0.0/24", communities = ["x"] }', "communities [0] must be a community as in"),
        ('{ prefix = "10.1.0.0/24", unreachable = 1 }', "unreachable must be true or false"),
        (f'"10.1.0.0/24", {POD}', "is the same as advertise[0]"),
        ('"10.1.0.0/16", "10.1.1.0/24"', "lies inside advertise[0]"),
        (f"{POD}, {POD.replace('0.0/24', '0.0/25')}", "lies inside advertise[0]"),
    ],
)
def test_mistakes_in_own_prefixes(entries: str, complaint: str) -> None:
    assert complaint in complaints(f"[agent]\nadvertise = [{entries}]\n")


def test_a_prefix_inside_another_one_may_say_something_else() -> None:
    config = configured(f'[agent]\nadvertise = ["10.1.0.0/16", {POD}]\n')
    assert len(config.agent.advertise) == 2
