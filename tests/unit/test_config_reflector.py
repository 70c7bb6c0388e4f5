"""`[reflector]` and its ranges of clients: what they become, and what is said of those that are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bgpd.config import AllowEntry, ClientRange, Config, ExportConfig, MaxPrefixes, ReflectorConfig
from bgpd.config_file import parse
from bgpd.errors import ConfigError
from routes.path import PeerKind
from routes.prefix import Family, Prefix, parse_router_id

SPEAKER = '[speaker]\nasn = 65000\nrouter_id = "192.0.2.1"\nlisten = ["192.0.2.1:179", "[fd00::1]:179"]\n'
RANGE = '[[reflector.clients]]\nrange = "192.0.2.0/24"\nasn = 65000\n'
EXTERNAL = '[[reflector.clients]]\nrange = "192.0.2.0/24"\nasn = 64512\n'
PEER = '[[peers]]\naddress = "192.0.2.7"\nasn = 65000\n'
ROUTER = '[[peers]]\naddress = "192.0.2.254"\nasn = 64601\n'
ALLOW = '[import]\nallow = ["10.244.0.0/16"]\n'


def configured(text: str, folder: Path = Path()) -> Config:
    return parse(SPEAKER + text, str(folder / "reflector.toml"))


def reflector(text: str, folder: Path = Path()) -> ReflectorConfig:
    config = configured(text, folder)
    assert config.reflector is not None
    return config.reflector


def errors(text: str, folder: Path = Path()) -> list[str]:
    """What is wrong, without the file's name and line."""
    with pytest.raises(ConfigError) as caught:
        configured(text, folder)
    return [re.sub(r"^\S*reflector\.toml(:\d+)?: ", "", line) for line in str(caught.value).splitlines()]


def warnings(text: str, folder: Path = Path()) -> list[str]:
    return [f"{each.key}: {each.text}" for each in configured(text, folder).warnings]


def test_a_range_alone_makes_a_reflector() -> None:
    config = configured("[reflector]\n" + RANGE)
    assert config.role == "reflector"
    assert config.warnings == ()
    assert config.reflector == ReflectorConfig(
        parse_router_id("192.0.2.1"), (ClientRange(Prefix.parse("192.0.2.0/24"), 65000),)
    )
    assert config.api_listen == "unix:///run/podbgp-reflector/api.sock"


def test_a_file_without_the_section_is_an_agent_s() -> None:
    config = configured(PEER + ALLOW)
    assert (config.role, config.reflector) == ("agent", None)
    assert config.api_listen == "unix:///run/podbgp/api.sock"


def test_every_key_of_a_range_is_understood(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("s3cret\n")
    (tmp_path / "nodes").chmod(0o600)
    text = RANGE + (
        'password_file = "nodes"\nttl_security = 1\nfamilies = ["ipv6"]\nhold_time = 9\nmax_prefixes = 7\n'
        'max_sessions = 5\nallow = [{ prefix = "10.244.0.0/16", ge = 24 }]\nadd_paths = 4\n'
        'export = { local_pref = 200, med = 0, communities = ["65000:100", "64512:1:2", "no-export"] }\n'
    )
    (clients,) = reflector(text, tmp_path).clients
    assert clients == ClientRange(
        range=Prefix.parse("192.0.2.0/24"),
        asn=65000,
        password="s3cret",
        ttl_security=1,
        families=(Family.IPV6,),
        hold_time=9,
        max_prefixes=MaxPrefixes(7),
        max_sessions=5,
        allow=(AllowEntry(Prefix.parse("10.244.0.0/16"), 24, 32),),
        add_paths=4,
        export=ExportConfig(
            local_pref=200,
            med=0,
            add_communities=(65000 << 16 | 100, 0xFFFFFF01),
            add_large_communities=((64512, 1, 2),),
        ),
    )


def test_a_range_inherits_the_hold_time_of_the_speaker() -> None:
    (clients,) = reflector("hold_time = 9\n" + RANGE).clients
    assert clients.hold_time == 9


def test_the_keys_of_the_section_are_understood() -> None:
    found = reflector(
        '[reflector]\ncluster_id = "1.1.1.1"\naggregates = ["10.244.0.0/16"]\ndeferral_time = 9\n'
        'state_file = ""\n' + RANGE
    )
    assert (found.cluster_id, found.deferral_time, found.state_file) == (0x01010101, 9.0, "")
    assert found.aggregates == (Prefix.parse("10.244.0.0/16"),)


def test_peers_of_a_reflector_have_roles_and_an_export_policy() -> None:
    client, router = configured(
        f"[reflector]\n{PEER}client = true\nadd_paths = 2\n"
        f"{ROUTER}next_hop_self = true\nexport = {{ med = 5, prepend = 2 }}\n{ALLOW}"
    ).peers
    assert (client.client, client.add_paths, client.kind) == (True, 2, PeerKind.IBGP)
    assert (router.client, router.next_hop_self, router.export) == (
        False,
        True,
        ExportConfig(med=5, prepend=2),
    )


def test_another_length_of_the_same_range_is_another_range() -> None:
    nested = reflector(RANGE + RANGE.replace("/24", "/25")).clients
    assert [str(clients.range) for clients in nested] == ["192.0.2.0/24", "192.0.2.0/25"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # ranges
        (RANGE + RANGE, 'reflector.clients[1].range = "192.0.2.0/24": is the same as reflector.clients[0]'),
        (RANGE.replace("2.0/24", "2.1/24"), 'has host bits set; the prefix is "192.0.2.0/24"'),
        (RANGE.replace("192.0.2.0/24", "fe80::/10"), "is link-local; such a client needs a [[peers]] entry"),
        (RANGE.replace("192.0.2.0/24", "224.0.0.0/8"), "has no address that a client can have"),
        ("[[reflector.clients]]\nasn = 65000\n", "reflector.clients[0].range: is missing"),
        ('[[reflector.clients]]\nrange = "192.0.2.0/24"\n', "reflector.clients[0].asn: is missing"),
        (RANGE + "max_sessions = 0\n", "must be an integer from 1 to 50000"),
        (
            RANGE + "add_paths = 1\n",
            "add_paths = 1: must be 0 (one path for each prefix, without ADD-PATH) or",
        ),
        (RANGE + "add_paths = 17\n", "or an integer from 2 to 16"),
        (RANGE + "add_paths = true\n", "or an integer from 2 to 16"),
        (RANGE + 'allow = ["10.0.0.1/8"]\n', 'has host bits set; the prefix is "10.0.0.0/8"'),
        (RANGE + "families = []\n", 'must have "ipv4", "ipv6" or both'),
        (RANGE + 'password_file = "/nowhere"\n', "can't be read: No such file or directory"),
        (RANGE + "passive = true\n", "is no known key"),
        ("[reflector]\nclients = 5\n", "must be an array of tables"),
        # the section
        ('[reflector]\ncluster_id = "0.0.0.0"\n' + RANGE, "must be an IPv4 address in quotes other than"),
        ("[reflector]\ncluster_id = 1\n" + RANGE, "must be a string in quotes"),
        ('[reflector]\naggregates = ["10.0.0.0/24", "10.0.0.0/8"]\n' + RANGE, "lies inside aggregates[1]"),
        ('[reflector]\naggregates = ["::/0"]\n' + RANGE, "is a default route: it would draw all traffic"),
        ('[reflector]\naggregates = ["127.0.0.0/8"]\n' + RANGE, "is a range that no speaker accepts"),
        (
            '[reflector]\naggregates = ["10.0.0.0/8"]\n' + RANGE + ROUTER + ALLOW,
            "with next_hop_self = true for the eBGP peer 192.0.2.254",
        ),
        ("[reflector]\ndeferral_time = 0\n" + RANGE, "must be a number of seconds from 1 to 86400"),
        ('[reflector]\nstate_file = "x.json"\n' + RANGE, "must be an absolute path, or empty"),
        ("[reflector]\nclient = 5\n" + RANGE, "did you mean clients?"),
        # other sections
        (
            RANGE + '[agent]\nadvertise = ["nonsense"]\n',
            "agent: is for an agent's file, and [reflector] makes",
        ),
        (RANGE + "[fib]\nmetric = 5\n", "fib: is for an agent's file (a reflector has no kernel routes)"),
        # export
        (RANGE + "export = { prepend = 1 }\n", "is for eBGP peers: paths stay as they are inside an AS"),
        (EXTERNAL + "export = { local_pref = 1 }\n", "stays inside an AS"),
        (RANGE + "export = { prepend = 17 }\n", "must be an integer from 0 to 16"),
        (RANGE + "export = { med = -1 }\n", "must be an integer from 0 to 4294967295"),
        (RANGE + "export = { metric = 1 }\n", "export.metric = 1: is no known key"),
        (RANGE + 'export = { communities = ["1:65536"] }\n', 'has three numbers, as in "1:65536:0"'),
        (RANGE + 'export = { communities = ["NO_EXPORT"] }\n', 'or one of "no-export", "no-advertise"'),
        (RANGE + 'export = { communities = ["1:"] }\n', 'must be a community as in "65000:100"'),
        (RANGE + 'export = { communities = ["1:2:3:4"] }\n', "must be a community"),
        (RANGE + 'export = { communities = ["1:2:4294967296"] }\n', "must be a community"),
        (
            RANGE + 'export = { communities = ["no-export", "65535:65281"] }\n',
            "is the same as communities[0]",
        ),
        # peers
        (RANGE + ROUTER + "client = true\n" + ALLOW, "client = true: is for iBGP peers (RFC 4456)"),
        (RANGE + PEER + "export = { prepend = 1 }\n", "peers[0].export.prepend = 1: is for eBGP peers"),
        (
            PEER + "client = true\n" + ALLOW,
            "client = true: is only for a reflector, whose file has [reflector]",
        ),
        (PEER + "add_paths = 2\n" + ALLOW, "is only for a reflector"),
        (PEER + "next_hop_self = false\n" + ALLOW, "is only for a reflector"),
        (PEER + "export = { med = 1 }\n" + ALLOW, "peers[0].export: is only for a reflector"),
    ],
)
def test_a_mistake_is_named(text: str, expected: str) -> None:
    (found,) = errors(text)
    assert expected in found


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("", "has clients that connect, but speaker.listen has no address to connect to"),
        ('listen = ["[fd00::1]:179"]\n', "over IPv4, of which speaker.listen has no address"),
    ],
)
def test_clients_need_somewhere_to_connect_to(listen: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        parse(SPEAKER[: SPEAKER.index("listen")] + listen + RANGE, "reflector.toml")


def test_all_mistakes_are_named_at_once_with_their_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SPEAKER + RANGE.replace("65000", "0") + RANGE + PEER + "add_paths = 1\n[fib]\n", "r.toml")
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        "r.toml:7",
        "r.toml:9",
        "r.toml:14",
        "r.toml:15",
    ]


def test_the_kernel_demands_the_password_of_a_range_of_all_inside_it(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("s3cret\n")
    (tmp_path / "nodes").chmod(0o600)
    password = 'password_file = "nodes"\n'
    inner = RANGE.replace("/24", "/25")
    (found,) = errors(RANGE + password + inner, tmp_path)
    assert "overlap, and one of them has a password" in found
    assert errors(inner + RANGE + password, tmp_path)
    assert warnings(RANGE + inner + password, tmp_path) == []
    assert warnings(RANGE + password + inner + password, tmp_path) == []
    (doubt,) = warnings(RANGE + password + PEER, tmp_path)
    assert "is demanded of all that connect from 192.0.2.0/24, also of the peer 192.0.2.7" in doubt
    assert warnings(RANGE + password + PEER + password, tmp_path) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EXTERNAL + ALLOW, "reflector.clients[0].asn: is another AS than ours (65000)"),
        (EXTERNAL.replace("64512", "65000").replace("192.0.2.0/24", "0.0.0.0/0"), "admits everyone"),
        (RANGE + "allow = []\n", "is empty: nothing that these clients announce will be accepted"),
        (RANGE + ROUTER, "import.allow: is missing: nothing that eBGP peers announce will be accepted"),
        ("[reflector]\n" + PEER, "reflector.clients: is missing and no peer has client = true"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(text: str, expected: str) -> None:
    (doubt,) = warnings(text)
    assert expected in doubt


def test_ibgp_alone_needs_no_import_list() -> None:
    assert warnings(RANGE + PEER) == []
    assert warnings("[reflector]\n" + PEER + "client = true\n") == []


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("s3cret\n")
    assert "s3cret" not in repr(configured(RANGE + 'password_file = "nodes"\n', tmp_path))
