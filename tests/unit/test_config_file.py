"""A configuration file: what it becomes, and what is said of one that is wrong."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bgpd.config import AllowEntry, Config, Endpoint, MaxPrefixes
from bgpd.config_file import MAX_BYTES, load, parse
from bgpd.config_table import InvalidConfigError
from bgpd.errors import ConfigError
from routes.own_path import OwnPath
from routes.path import PeerKind
from routes.prefix import Family, Prefix, parse_address, parse_router_id

SPEAKER = '[speaker]\nasn = 65000\nrouter_id = "192.0.2.11"\n'
PEER = '[[peers]]\naddress = "192.0.2.1"\nasn = 65000\n'


def configured(text: str) -> Config:
    return parse(SPEAKER + text, "agent.toml")


def errors(text: str) -> list[str]:
    """What is wrong with `text`, without the file's name and line."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "agent.toml")
    return [re.sub(r"^agent\.toml(:\d+)?: ", "", line) for line in str(caught.value).splitlines()]


def error(text: str) -> str:
    """The one thing that is wrong with `text`, which follows a sound `[speaker]`."""
    (only,) = errors(SPEAKER + text)
    return only


def test_the_documented_names_are_understood() -> None:
    config = configured(
        'listen = ["192.0.2.11:179", "[2001:db8::11]:1179"]\n'
        '[agent]\nadvertise = ["10.244.1.0/24", "fd00:10:244:1::/64"]\n'
        '[[peers]]\naddress = "192.0.2.1"\nasn = 65000\n'
        '[[peers]]\naddress = "fe80::1%eth0"\nasn = 64512\nmax_prefixes = 500\nfamilies = ["ipv6"]\n'
        '[import]\nallow = ["10.244.0.0/16", { prefix = "fd00:10:244::/48", ge = 64, le = 64 }, "::/0"]\n'
        '[fib]\nprotocol = 180\n[api]\nlisten = "unix:///run/x.sock"\n[metrics]\nlisten = "127.0.0.1:9179"\n'
        '[log]\nlevel = "debug"\nformat = "json"\n'
    )
    assert (config.speaker.asn, config.speaker.router_id) == (65000, parse_router_id("192.0.2.11"))
    assert config.speaker.listen[1] == Endpoint(parse_address("2001:db8::11"), 1179)
    assert config.agent.advertise == (
        OwnPath(Prefix.parse("10.244.1.0/24")),
        OwnPath(Prefix.parse("fd00:10:244:1::/64")),
    )
    assert [(peer.name, peer.kind, peer.interface) for peer in config.peers] == [
        ("192.0.2.1", PeerKind.IBGP, ""),
        ("fe80::1%eth0", PeerKind.EBGP, "eth0"),
    ]
    assert config.peers[1].max_prefixes == MaxPrefixes(500)
    assert config.peers[1].families == (Family.IPV6,)
    assert config.imports.allow == (
        AllowEntry(Prefix.parse("10.244.0.0/16"), 16, 32),
        AllowEntry(Prefix.parse("fd00:10:244::/48"), 64, 64),
        AllowEntry(Prefix.parse("::/0"), 0, 0),
    )
    assert config.fib.protocol == 180
    assert config.api_listen == "unix:///run/x.sock"
    assert config.metrics_listen == Endpoint(parse_address("127.0.0.1"), 9179)
    assert (config.log_level, config.log_format) == ("debug", "json")


def test_two_lines_are_enough() -> None:
    config = configured("")
    assert config.peers == ()
    assert config.warnings == ()
    assert config.fib.protocol == 179


def test_peers_inherit_from_the_speaker() -> None:
    (peer,) = configured("hold_time = 9\ngraceful_restart = false\n" + PEER).peers
    assert (peer.hold_time, peer.graceful_restart) == (9, False)


def test_a_peer_has_one_name_however_it_is_written() -> None:
    (peer,) = configured('[[peers]]\naddress = "2001:DB8:0::1"\nasn = 1\n').peers
    assert peer.name == "2001:db8::1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # speaker
        ("hold_time = 2", "speaker.hold_time = 2: must be 0 (no hold timer) or an integer from 3 to 65535"),
        ("connect_retry = 90", "speaker.connect_retry = 90: must leave connect_retry_max (60) at least"),
        ("connect_retry = true", "speaker.connect_retry = true: must be a number of seconds"),
        ("restart_time = 4096", "speaker.restart_time = 4096: must be an integer from 1 to 4095"),
        ('listen = ["192.0.2.11"]', 'as in "192.0.2.11:179"'),
        ('listen = ["::1:179"]', 'as in "[::1]:179"'),
        ('listen = ["[192.0.2.1]:179"]', "must have brackets around an IPv6 address, and around that only"),
        ('listen = ["[::1]:0"]', "a port from 1 to 65535"),
        ('listen = ["localhost:179"]', "must be an IPv4 or IPv6 address (names are not resolved)"),
        ('listen = ["[::ffff:192.0.2.1]:179"]', 'is an IPv4-mapped address; write "192.0.2.1"'),
        ('listen = ["[fe80::1]:179"]', 'is link-local; listen on all addresses instead: "[::]:179"'),
        ('listen = ["1.2.3.4:179", "1.2.3.4:179"]', 'listen[1] = "1.2.3.4:179": is the same as listen[0]'),
        ('listen = "1.2.3.4:179"', "must be an array, in square brackets"),
        # advertise
        ('[agent]\nadvertise = ["10.244.1.5/24"]', 'has host bits set; the prefix is "10.244.1.0/24"'),
        ('[agent]\nadvertise = ["10.244.1.0"]', 'has no length; for this one address write "10.244.1.0/32"'),
        ('[agent]\nadvertise = ["10.0.0.0/255.0.0.0"]', "must have a length from 0 to 32 after the slash"),
        ('[agent]\nadvertise = ["fd00::/129"]', "must have a length from 0 to 128 after the slash"),
        ('[agent]\nadvertise = ["0.0.0.0/0"]', "is a default route"),
        ('[agent]\nadvertise = ["127.0.0.0/24"]', "is a range that no speaker accepts"),
        ('[agent]\nadvertise = ["::ffff:10.0.0.0/120"]', "IPv4-mapped"),
        ('[agent]\nadvertise = ["10.0.0.0/24", "10.0.0.0/24"]', "is the same as advertise[0]"),
        ('[agent]\nadvertise = ["10.0.0.0/24", "10.0.0.0/8"]', "[0] = \"10.0.0.0/24\": lies inside"),
        ('[agent]\nadvertise = ["10.0.0.0/8", "a00::/16", "10.1.0.0/24"]', "lies inside advertise[0]"),
        ('[agent]\nadvertise = [5]', "agent.advertise[0] = 5: must be a string in quotes"),
        ('[agent]\nnext_hop_ipv4 = "fd00::1"', "must be an IPv4 address"),
        ('[agent]\nnext_hop_ipv6 = "fe80::1"', "must not be a link-local address"),
        # allow
        ('[import]\nallow = ["10.0.0.1/8"]', 'import.allow[0] = "10.0.0.1/8": has host bits set'),
        ('[import]\nallow = ["10.0.0.0/8", "10.0.0.0/8"]', "is the same as allow[0]"),
        ('[import]\nallow = [{ prefix = "10.0.0.0/8", ge = 7 }]', "ge must be an integer from 8 to 32"),
        ('[import]\nallow = [{ prefix = "10.0.0.0/8", ge = 24, le = 23 }]', "le must be an integer from 24"),
        ('[import]\nallow = [{ prefix = "0.0.0.0/0", le = 24 }]', "admits the default route alone"),
        ('[import]\nallow = [{ network = "10.0.0.0/8" }]', "must have the key prefix"),
        ('[import]\nallow = [10]', "must be a prefix, or a table"),
        # fib
        ("[fib]\nprotocol = 186", "fib.protocol = 186: is one that FRR's zebra takes for its own"),
        ("[fib]\nprotocol = 11", "FRR's zebra"),
        ("[fib]\nprotocol = 12", "is BIRD's"),
        ("[fib]\nprotocol = 2", "is the kernel's own"),
        ("[fib]\nprotocol = 256", "must be an integer from 5 to 255"),
        ("[fib]\ntable = 255", "is the kernel's table of local addresses"),
        ("[fib]\ntable = 0", "must be an integer from 1 to 4294967295"),
        ("[fib]\nmetric = 0", "must be an integer from 1"),
        ("[fib]\nunreachable_metric = 20", "must leave unreachable_metric (20) above metric (20)"),
        ("[fib]\nunreachable_metric = 1024", "must be above 1024"),
        ("[fib]\nmetric = 4294967295", "fib.metric = 4294967295: must leave unreachable_metric"),
        ("[fib]\nmultipath = 0", "must be an integer from 1 to 128"),
        ('[fib]\nresolve_via_default = "yes"', "must be true or false, without quotes"),
        ('[fib]\npreferred_source_ipv4 = "224.0.0.1"', "must be a unicast address"),
        ('[fib]\nonlink = ["10.0.0.1/24"]', 'fib.onlink[0] = "10.0.0.1/24": has host bits set'),
        # the rest
        ('[api]\nlisten = "unix:podbgp.sock"', "is no address to serve the API on; valid are unix:///"),
        ('[api]\nlisten = "unix:///' + "x" * 107 + '"', "is no address to serve the API on"),
        ('[api]\nlisten = "unix:///a\\u001b"', "must have printable characters only"),
        ('[api]\nlisten = "localhost:50051"', "is no address to serve the API on"),
        ('[metrics]\nlisten = "9179"', "must be an address and a port"),
        ('[log]\nlevel = "loud"', 'must be one of "debug", "info", "warning", "error"'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_valid(text: str, expected: str) -> None:
    assert expected in error(text)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('address = "fe80::1"\nasn = 1', 'needs the interface that it is on, as in "fe80::1%eth0"'),
        ('address = "fe80::1%an/interface"\nasn = 1', "needs the interface"),
        ('address = "192.0.2.1%eth0"\nasn = 1', 'which only link-local addresses have; write "192.0.2.1"'),
        ('address = "::ffff:192.0.2.1"\nasn = 1', "IPv4-mapped"),
        ('address = "192.0.2.0/24"\nasn = 1', "must be an address, without a /length"),
        ('address = "tor1.example"\nasn = 1', "names are not resolved"),
        ('address = "224.0.0.5"\nasn = 1', "must be a unicast address"),
        ('address = "0.0.0.0"\nasn = 1', "must be a unicast address"),
        ('address = "192.0.2.1"\nasn = 23456', "is AS_TRANS"),
        ('address = "192.0.2.1"\nasn = 4294967295', "must be an integer from 1 to 4294967294"),
        ('address = "192.0.2.1"\nasn = 0', "must be an integer from 1"),
        ('address = "192.0.2.1"\nasn = "65001"', "without quotes"),
        ('address = "192.0.2.1"\nasn = true', "must be an integer"),
        ('address = "192.0.2.1"', "peers[0].asn: is missing and has no default"),
        ("asn = 1", "peers[0].address: is missing and has no default"),
        ('address = "192.0.2.1"\nasn = 1\nport = 0', "must be an integer from 1 to 65535"),
        ('address = "192.0.2.1"\nasn = 1\nttl_security = 1\nmultihop = 2', "exclude each other"),
        ('address = "fe80::1%e"\nasn = 1\nmultihop = 2', "makes no sense for a link-local address"),
        ('address = "192.0.2.1"\nasn = 1\npassive = true', "speaker.listen has no address"),
        ('address = "192.0.2.1"\nasn = 1\nhold_time = 1', "must be 0 (no hold timer) or an integer from 3"),
        ('address = "192.0.2.1"\nasn = 1\nfamilies = []', 'must have "ipv4", "ipv6" or both'),
        ('address = "192.0.2.1"\nasn = 1\nfamilies = ["ipv4", "ipv4"]', "is the same as families[0]"),
        ('address = "192.0.2.1"\nasn = 1\nfamilies = ["vpnv4"]', 'must be one of "ipv4", "ipv6"'),
        ('address = "192.0.2.1"\nasn = 1\nmax_prefixes = 0', "must be an integer from 1"),
        ('address = "192.0.2.1"\nasn = 1\nmax_prefixes = {}', "peers[0].max_prefixes.limit: is missing"),
        ('address = "192.0.2.1"\nasn = 1\nmax_prefixes = { limit = 1, action = "a" }', 'one of "warn"'),
        ('address = "192.0.2.1"\nasn = 1\nallowas_in = 11', "must be an integer from 0 to 10"),
        ('address = "192.0.2.1"\nasn = 1\ndescription = "a\\u001bb"', "printable characters"),
        ('address = "192.0.2.1"\nasn = 1\nsource_address = "192.0.2.1"', "is the address of the peer"),
        ('address = "192.0.2.1"\nasn = 1\nsource_address = "2001:db8::1"', "the peer's family, ipv4"),
        ('address = "fe80::1%e"\nasn = 1\nsource_address = "2001:db8::1"', "must both be link-local"),
        ('address = "192.0.2.1"\nasn = 1\npassword = "x"', "did you mean password_file?"),
    ],
)  # fmt: skip
def test_a_wrong_peer_is_named(keys: str, expected: str) -> None:
    assert expected in error(f"[[peers]]\n{keys}\n")


def test_a_peer_must_not_be_this_speaker() -> None:
    found = error('listen = ["192.0.2.1:179"]\n' + PEER)
    assert "is this speaker itself" in found


def test_the_same_peer_twice_is_an_error() -> None:
    first = '[[peers]]\naddress = "2001:db8::1"\nasn = 1\n'
    assert "is the same neighbour as peers[0]" in error(first + first.replace("2001:db8::1", "2001:DB8:0::1"))


def test_one_link_local_address_on_two_links_is_two_peers() -> None:
    one = '[[peers]]\naddress = "fe80::1%eth0"\nasn = 1\n'
    assert len(configured(one + one.replace("eth0", "eth1")).peers) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[fib]\nmultipaths = 4", "fib.multipaths = 4: is no known key; did you mean multipath?"),
        ("protocol = 179", "speaker.protocol = 179: is no known key; it belongs under [fib]"),
        ("source-address = 1", "speaker.source-address = 1: is no known key"),
        ("[metric]\nlisten = 1", "metric: is no known key; did you mean metrics?"),
        ("[fib]\nzzz = 1", "fib.zzz = 1: is no known key; known here: protocol, table, metric"),
        (PEER + "pasive = true", "peers[0].pasive = true: is no known key; did you mean passive?"),
        (
            '[peers]\naddress = "192.0.2.1"',
            "must be an array of tables, with two brackets around each header",
        ),
        ("[[fib]]\nmetric = 2", "must be a table"),
    ],
)
def test_an_unknown_key_comes_with_a_suggestion(text: str, expected: str) -> None:
    assert expected in error(text)


def test_a_key_outside_of_every_section_is_told_where_it_belongs() -> None:
    assert errors('asn = 65000\nrouter_id = "192.0.2.1"\n' + SPEAKER) == [
        "asn = 65000: is no known key; it belongs under [speaker]",
        'router_id = "192.0.2.1": is no known key; it belongs under [speaker]',
    ]


def test_a_password_in_the_file_is_not_repeated() -> None:
    assert "hunter2" not in error(PEER + 'password = "hunter2"\n')
    assert "hunter2" not in "\n".join(errors(SPEAKER + PEER + 'password = "hunter2" oops\n'))


def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse(
            '[speaker]\nasn = 0\nrouter_id = "0.0.0.0"\nlisten = [\n  "1.2.3.4:179",\n  "nowhere",\n]\n'
            '[[peers]]\naddress = "192.0.2.1"\nasn = 1\n\n'
            '[[peers]]\naddress = "192.0.2.2"\ncolour = 1\nasn = 0\n'
            "[fib]\nprotocol = 186\n",
            "/etc/podbgp/agent.toml",
        )
    problems = caught.value.problems
    assert [(problem.line, problem.key) for problem in problems] == [
        (2, "speaker.asn"),
        (3, "speaker.router_id"),
        (6, "speaker.listen[1]"),
        (14, "peers[1].colour"),
        (15, "peers[1].asn"),
        (17, "fib.protocol"),
    ]
    assert str(problems[0]).startswith("/etc/podbgp/agent.toml:2: speaker.asn = 0: must be")


def test_a_file_full_of_mistakes_is_refused_quickly_and_briefly() -> None:
    many = ", ".join(f'"10.{number >> 8}.{number & 255}.0/16"' for number in range(40_000))
    started = time.monotonic()
    with pytest.raises(InvalidConfigError) as caught:
        configured(f"[agent]\nadvertise = [{many}]\n")
    assert time.monotonic() - started < 10
    assert len(caught.value.problems) == 101


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("[speaker]\nasn = 65000\nrouter_id = 192.0.2.11\n", 3, "needs quotes"),
        ("[speaker]\nasn 65000\n", 2, "is not valid TOML"),
        ("[speaker]\nasn = 1\nasn = 2\n", 3, "is not valid TOML: Cannot overwrite a value"),
        ("[speaker]\nasn = [1,\n", 2, "is not valid TOML"),
        ("", 0, "speaker.asn: is missing"),
        ("x = " + "[" * 5000, 0, "nested too deeply"),
        ("x = " + "1" * 5000, 0, "a number that is too long"),
    ],
)
def test_a_file_that_is_not_toml(text: str, line: int, expected: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        parse(text, "agent.toml")
    first = caught.value.problems[0]
    assert first.line == line
    assert expected in str(first)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PEER, "import.allow: is missing"),
        (PEER + 'multihop = 4\n[import]\nallow = ["::/0"]', "multihop = 4: changes nothing for an iBGP peer"),
        ('[api]\nlisten = "127.0.0.1:50051"', "has no access control"),
    ],
)
def test_what_is_valid_but_probably_not_meant_is_a_warning(text: str, expected: str) -> None:
    (warning,) = configured(text).warnings
    assert expected in str(warning)


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    path.write_bytes(b"#" * (MAX_BYTES + 1))


def _binary(path: Path) -> None:
    path.write_bytes(b"[speaker]\n\xff\xfe")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda _path: None, "can't be read: No such file or directory"),
        (_directory, "can't be read: is not a regular file"),
        (_fifo, "can't be read: is not a regular file"),
        (_huge, "can't be read: is larger than"),
        (_binary, ":2: is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, make: Callable[[Path], None], expected: str) -> None:
    path = tmp_path / "agent.toml"
    make(path)
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load(path)


def with_password(tmp_path: Path, content: bytes, mode: int = 0o640) -> Config:
    """A configuration in `tmp_path` whose peer has a password file beside it."""
    secret = tmp_path / "tor1.password"
    secret.write_bytes(content)
    secret.chmod(mode)
    file = tmp_path / "agent.toml"
    file.write_text(SPEAKER + PEER + 'password_file = "tor1.password"\n[import]\nallow = []\n')
    return load(file)


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n"])
def test_a_password_is_the_line_in_a_file_beside_the_configuration(tmp_path: Path, content: bytes) -> None:
    config = with_password(tmp_path, content)
    assert config.peers[0].password == "s3cret"
    assert config.warnings == ()
    assert "s3cret" not in repr(config)


def test_a_password_that_everyone_may_read_is_a_warning_with_its_remedy(tmp_path: Path) -> None:
    (warning,) = with_password(tmp_path, b"s3cret\n", mode=0o644).warnings
    assert f"chmod o= {tmp_path}/tor1.password" in warning.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"x" * 81, "holds 81 bytes; TCP MD5 takes at most 80"),
        ("ä".encode() * 41, "holds 82 bytes"),
        (b"one\ntwo\n", "has more than one line"),
        (b"windows\r\n", "a carriage return, perhaps"),
        (b"\xff", "does not hold UTF-8 text"),
        (b"x" * 5000, "is larger than 4096 bytes"),
    ],
)
def test_a_password_that_can_not_be_used(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_password(tmp_path, content)
    assert "peers[0].password_file" in str(caught.value)
    assert expected in str(caught.value)
    assert content.decode("latin-1").strip() not in str(caught.value) or not content.strip()


def test_a_missing_password_file_is_an_error() -> None:
    assert "can't be read: No such file" in error(PEER + 'password_file = "/nonexistent/password"')
