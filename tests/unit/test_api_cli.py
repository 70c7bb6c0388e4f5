"""`podbgp` against a served fake: what it prints, for people and for programs, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from api.cli import main
from routes.path import PeerName
from routes.peer import LastError, SessionState
from routes.view import Table
from tests.fakes.fake_daemon_view import (
    FakeDaemonView,
    ServedView,
    fib_view,
    path_view,
    peer_status,
    served,
)

PODBGP = [sys.executable, "-c", "from api.cli import main; main(prog_name='podbgp')"]
LOST = "its MED 20 is higher than the best path's 10, and the AS is the same"


@pytest.fixture(scope="module")
def daemon() -> Iterator[ServedView]:
    view = FakeDaemonView()
    view.put(Table.LOC_RIB, path_view("10.244.1.0/24", med=10), path_view("fd00:10:244:1::/64"))
    view.put(
        Table.ADJ_IN_PRE,
        path_view("10.244.1.0/24", med=10),
        replace(path_view("10.244.1.0/24", "192.0.2.2", best=False, reason=LOST), lost_at="med"),
        path_view("0.0.0.0/0", best=False, reason="refused: a default route that allow does not list"),
    )
    view.put(Table.ADJ_OUT, replace(path_view("10.244.9.0/24"), to=PeerName("192.0.2.2")))
    view.install(fib_view("10.244.1.0/24"), fib_view("10.244.2.0/24", reason="File exists"))
    view.install(fib_view("10.244.9.0/24", None))
    view.set_peer(peer_status("192.0.2.1", description="\x1b[31mred"))
    error = LastError("Bad Peer AS", 1_700_000_000.0, True, 2, 2)
    view.set_peer(peer_status("fe80::1%eth0", SessionState.ACTIVE, last_error=error))
    with capture_logs(), served(view) as it:
        yield it


def podbgp(daemon: ServedView, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--api", daemon.api, *arguments])


@pytest.mark.parametrize(
    ("command", "patterns"),
    [
        ("peers", [r"PEER +AS +STATE", r"192\.0\.2\.1 +65001 +Established +\d+d \d+h +5 +4 +1$",
                   r"fe80::1%eth0 +65001 +Active .* Bad Peer AS \(\d+d \d+h ago\)$"]),
        ("peers 192.0.2.1", [r"state +Established for", r"description +\\x1b\[31mred$",
                             r"ipv4 +5 +4 +1 +0 +not yet$"]),
        ("peers fe80::1%eth0", [r"last error +Bad Peer AS, sent by us, code 2, subcode 2"]),
        ("routes", [r"^> +10\.244\.1\.0/24 +192\.0\.2\.1 +192\.0\.2\.1 +65001 65010 +100 +10$",
                    r"^2 paths; >"]),
        ("routes --table adj-in-pre", [r"^x +0\.0\.0\.0/0 .* refused: a default",
                                       rf"192\.0\.2\.2 .* {LOST}$"]),
        ("routes -t adj-out", [r"10\.244\.9\.0/24 .* 192\.0\.2\.2 +65001", r"^1 path$"]),
        ("routes -t fib", [r"10\.244\.1\.0/24 +via 192\.0\.2\.1 dev eth0 +20 +installed$",
                           r"10\.244\.2\.0/24 .* not installed +File exists$", r"unreachable"]),
        ("routes 10.244.1.77 --longest", [r"10\.244\.1\.0/24", r"^1 path"]),
        ("routes 10.9.0.0/16 --longer", [r"^No routes\.$"]),
        ("routes 10.9.0.0/16 -t fib", [r"^No kernel entries\.$"]),
        ("route 10.244.1.7", [r"^10\.244\.1\.0/24 is in the kernel", r"kernel +ok",
                              r"> +best, from 192\.0\.2\.1", r"lost at med, from 192", LOST,
                              r"communities 65001:7", r"rule: allow 10\.244\.0\.0/16"]),
        ("route 0.0.0.0/0", [r"announced +ok", r"import +failed", r"next-hop +-", r"x +refused"]),
        ("route fd00::1", [r"^No peer announces fd00::1/128", r"announced +failed"]),
        ("status", [r"^podbgp 0\.1\.0, agent, AS 65000, router ID 192\.0\.2\.11$",
                    r"peers +1 of 2 established", r"waiting for End-of-RIB from 192\.0\.2\.2",
                    r"sysctl -w net\.ipv4\.ip_forward=1"]),
    ],
)  # fmt: skip
def test_people_get_tables(daemon: ServedView, command: str, patterns: list[str]) -> None:
    result = podbgp(daemon, *command.split())
    assert (result.exit_code, result.stderr) == (0, "")
    for pattern in patterns:
        assert re.search(pattern, result.stdout, re.MULTILINE), f"{pattern} not in\n{result.stdout}"
    assert "\x1b" not in result.stdout, "no colours and no peer's escapes in a pipe"


def as_json(daemon: ServedView, *arguments: str) -> object:
    result = podbgp(daemon, *arguments, "--output", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


ATTRIBUTE_KEYS = (
    "origin as_path next_hop link_local med local_pref atomic_aggregate aggregator communities "
    "extended_communities large_communities originator_id cluster_list unknown"
)


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("peers", "name description kind asn local_asn state since admin_down passive local_address "
                  "local_port peer_address peer_port bgp_id hold_time hold_remaining keepalive_time "
                  "next_connect families end_of_rib not_announced counters last_error negotiated "
                  "reflection"),
        ("routes", "prefix attributes received_attributes source path_id accepted rule best multipath "
                   "lost_at reason stale to group members"),
        ("routes -t fib", "prefix next_hops metric installed held reason preferred_source"),
        ("route 10.244.1.0/24", "target prefix failed text paths fib advertised_to more_specific told "
                                "reflected"),
        ("status", "version role asn router_id started config_path config_error peers peers_established "
                   "convergence tables fib warnings groups duplicates first_duplicates"),
        ("shutdown", "sessions_closed entries_removed entries_left errors"),
    ],
)  # fmt: skip
def test_programs_get_documents_with_stable_keys(daemon: ServedView, command: str, keys: str) -> None:
    document = as_json(daemon, *command.split())
    one = document[0] if isinstance(document, list) else document
    assert isinstance(one, dict)
    assert list(one) == keys.split()
    documented = (Path(__file__).parents[2] / "docs/api.md").read_text()
    assert [key for key in keys.split() if f"`{key}`" not in documented] == []


def test_a_path_document_has_every_attribute(daemon: ServedView) -> None:
    paths = as_json(daemon, "routes", "10.244.1.0/24")
    assert isinstance(paths, list)
    (path,) = paths
    assert list(path["attributes"]) == ATTRIBUTE_KEYS.split()
    assert path["attributes"]["communities"] == ["65001:7"]
    assert (path["attributes"]["med"], path["attributes"]["originator_id"]) == (10, None)


def test_jsonl_is_a_document_a_line(daemon: ServedView) -> None:
    lines = podbgp(daemon, "routes", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["prefix"] for line in lines] == ["10.244.1.0/24", "fd00:10:244:1::/64"]


def test_limit_bounds_a_listing(daemon: ServedView) -> None:
    assert len(podbgp(daemon, "routes", "-o", "jsonl", "--limit", "1").stdout.splitlines()) == 1


def test_shutdown_passes_on_what_was_asked(daemon: ServedView) -> None:
    result = podbgp(daemon, "shutdown", "--flush", "--message", "maintenance", "--yes")
    assert "2 sessions closed, 3 kernel entries removed, 0 left in place" in result.stdout
    assert daemon.view.shutdowns[-1] == (True, "maintenance")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ("routes 10.0.0.1/8", 2, "'10.0.0.1/8' is neither prefix nor address: 10.0.0.1/8 has host bits set"),
        ("route pod", 2, "'pod' is neither prefix nor address"),
        ("routes --longer", 2, "--longer needs PREFIX"),
        ("routes --table rib", 2, "'rib' is not one of"),
        ("watch routes 10.0.0.1 --longest", 2, "--longest can't be watched"),
        ("--api here status", 2, "'here' is no address to serve the API on"),
        ("routes -t fib --peer 192.0.2.1", 2, "podbgp: filter.peer: '192.0.2.1' selects nothing"),
        ("peers nobody", 1, "'nobody' is not configured; the peers are 192.0.2.1, fe80::1%eth0"),
        ("--api unix:///nowhere/api.sock peers", 1, "podbgp: cannot reach podbgpd at "
         "unix:///nowhere/api.sock: is it running? (podbgpd agent --config FILE)"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(
    daemon: ServedView, arguments: str, code: int, sentence: str
) -> None:
    result = podbgp(daemon, *arguments.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in " ".join(result.stderr.split())


def test_the_api_can_be_named_by_the_environment_and_by_either_place_of_the_option(
    daemon: ServedView,
) -> None:
    run = CliRunner().invoke
    assert run(main, ["status"], env={"PODBGP_API": daemon.api}).exit_code == 0
    assert run(main, ["status", "--api", daemon.api], env={"PODBGP_API": "nonsense"}).exit_code == 0
    bad = run(main, ["status"], env={"PODBGP_API": "nonsense"})
    assert (bad.exit_code, "PODBGP_API: 'nonsense'" in bad.stderr) == (2, True)


def test_a_socket_without_permission_says_who_may(daemon: ServedView) -> None:
    # The code is loaded as root, who may read it wherever it lies, and then gives all rights up.
    code = (
        "import os, grpc; from api import cli, commands; "
        "grpc.insecure_channel('unix:///nobody').close(); "  # loads what grpc loads with the first channel
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); cli.main(prog_name='podbgp')"
    )
    Path(daemon.api.removeprefix("unix://")).parent.parent.chmod(0o755)
    command = [sys.executable, "-c", code, "--api", daemon.api, "status"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "permission denied; run this as root, or in the group" in result.stderr


@pytest.fixture
def watching(daemon: ServedView) -> Iterator[subprocess.Popen[str]]:
    command = [*PODBGP, "--api", daemon.api, "watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_watch_tells_changes_and_ends_quietly_with_ctrl_c(
    daemon: ServedView, watching: subprocess.Popen[str]
) -> None:
    assert watching.stdout is not None
    lines = [watching.stdout.readline() for _ in range(3)]
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  10\.244\.1\.0/24  via 192\.0\.2\.1 from 192\.0\.2\.1 \(best\)\n", lines[0]
    )
    assert lines[2].startswith("-- that is all for now")
    daemon.run(lambda: daemon.view.put(Table.LOC_RIB, path_view("10.244.7.0/24")))
    assert "10.244.7.0/24  via" in watching.stdout.readline()
    daemon.run(lambda: daemon.view.drop(Table.LOC_RIB, "10.244.7.0/24"))
    assert watching.stdout.readline().endswith("10.244.7.0/24  gone\n")
    watching.send_signal(signal.SIGINT)
    assert watching.communicate(timeout=10) == ("", "")
    assert watching.returncode == 130


def test_watch_ends_with_the_daemon_and_says_so() -> None:
    view = FakeDaemonView()
    view.set_peer(peer_status("192.0.2.1"))
    with served(view) as daemon:
        command = [*PODBGP, "--api", daemon.api, "watch", "peers", "--output", "jsonl"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            events = [json.loads(process.stdout.readline())["event"] for _ in range(2)]
            assert events == ["peer", "end_of_snapshot"]
            daemon.stop()
            assert process.communicate(timeout=10) == ("", "podbgp: the daemon is shutting down\n")
            assert process.returncode == 1


def on_a_terminal(columns: int, *arguments: str) -> str:
    """The output of `podbgp` on a terminal of that width."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")} | {
        "TERM": "xterm"
    }
    try:
        process = subprocess.Popen([*PODBGP, *arguments], stdout=follower, stdin=follower, env=environment)
    finally:
        os.close(follower)
    output = b""
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        while True:
            try:
                data = terminal.read(65536)
            except OSError:  # EIO: the last writer has closed the terminal
                break
            output += data
    assert process.wait(10) == 0
    return output.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "command", ["peers", "peers fe80::1%eth0", "routes -t adj-in-pre", "route 10.244.1.7"]
)
def test_80_columns_are_enough_and_a_terminal_gets_colours(daemon: ServedView, command: str) -> None:
    coloured = on_a_terminal(80, "--api", daemon.api, *command.split())
    text = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert text != coloured
    assert max(map(len, text.splitlines())) <= 80
    if command.startswith("route"):
        assert LOST in " ".join(text.split()), "a reason is never cut"


def test_it_starts_fast(daemon: ServedView) -> None:
    took = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run([*PODBGP, "--api", daemon.api, "peers"], check=True, capture_output=True, timeout=60)
        took.append(time.monotonic() - start)
    assert min(took) < 1.5, "0.25 s on an idle machine"
