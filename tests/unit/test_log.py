"""What a log line may and may not do."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from bgpd import log as logs
from bgpd.config import Problem
from bgpd.throttle import Throttle
from routes.path import PeerKind
from routes.peer import SessionState
from routes.prefix import Family, Prefix, parse_address


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is process-wide: put back what other tests rely on."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def json_lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


OTHER = Problem("agent.toml", 9, "fib.zzz", "1", "is no known key")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_a_sentence_and_its_keys() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    structlog.get_logger().info("session up", peer="192.0.2.1", hold_time=90)
    (line,) = json_lines(stream)
    assert list(line) == ["time", "level", "event", "peer", "hold_time"]
    assert (line["level"], line["event"], line["hold_time"]) == ("info", "session up", 90)


def test_a_terminal_gets_text_and_everything_else_json() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    log = structlog.get_logger()
    logs.configure(stream=terminal)
    log.info("session up", peer="192.0.2.1")
    logs.configure(stream=pipe)
    log.info("session up", peer="192.0.2.1")
    assert terminal.getvalue().rstrip().endswith("session up  peer=192.0.2.1")
    assert json_lines(pipe)[0]["event"] == "session up"


@pytest.mark.parametrize(("form", "is_json"), [("text", False), ("json", True)])
def test_the_form_can_be_chosen(form: str, is_json: bool) -> None:
    stream = io.StringIO()
    logs.configure(form=form, stream=stream)
    structlog.get_logger().info("session up")
    assert stream.getvalue().startswith("{") is is_json


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured, plain = Terminal(), Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    logs.configure(stream=coloured)
    structlog.get_logger().info("session up")
    monkeypatch.setenv("NO_COLOR", "1")
    logs.configure(stream=plain)
    structlog.get_logger().info("session up")
    assert "\x1b" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_the_level_changes_under_loggers_that_exist() -> None:
    stream = io.StringIO()
    log = structlog.get_logger()
    logs.configure(level="info", stream=stream)
    log.debug("hidden")
    logs.configure(level="debug", stream=stream)
    log.debug("shown")
    logs.configure(level="error", stream=stream)
    log.warning("hidden too")
    assert [line["event"] for line in json_lines(stream)] == ["shown"]


def test_below_the_level_no_value_is_rendered() -> None:
    class Slow:
        def __str__(self) -> str:
            raise AssertionError("rendered although the level is off")

    logs.configure(level="info", stream=io.StringIO())
    structlog.get_logger().debug("update", detail=Slow())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Prefix.parse("10.244.1.0/24"), "10.244.1.0/24"),
        (parse_address("fd00::1"), "fd00::1"),
        (b"\x01\x02\x03", "010203"),
        (Family.IPV6, "ipv6"),
        (PeerKind.EBGP, "ebgp"),
        (SessionState.OPEN_SENT, "OpenSent"),
        ([Family.IPV4, 3], ["ipv4", 3]),
        (
            ConnectionRefusedError(111, "Connection refused"),
            "ConnectionRefusedError: [Errno 111] Connection refused",
        ),
        (float("inf"), "inf"),
        (None, None),
        (True, True),
    ],
)
def test_values_of_ours_are_readable(value: object, shown: object) -> None:
    assert logs.plain(value) == shown


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "hostile", ["\x1b[2Jgone", "a\nlevel=error forged", "\x9b31m", "\u202eflip", "\r", "\x00"]
)
def test_what_a_peer_sends_stays_on_its_line_and_cannot_drive_a_terminal(form: str, hostile: str) -> None:
    stream = Terminal()
    logs.configure(form=form, stream=stream)
    structlog.get_logger().warning(f"closed: {hostile}", reason=hostile, reasons=[hostile])
    line = stream.getvalue()
    coloured_level = "\x1b[33mwarning \x1b[0m"
    assert line.endswith("\n")
    assert line[:-1].replace(coloured_level, "").isprintable()


def test_long_values_are_cut() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    structlog.get_logger().warning("odd", text="x" * 100_000, many=list(range(100_000)), data=bytes(100_000))
    assert len(stream.getvalue()) < 5_000


def test_an_exception_has_its_traceback() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    log = structlog.get_logger()
    try:
        raise ValueError("broken")  # noqa: TRY301  raised here in order to be logged
    except ValueError as problem:
        log.exception("failed")
        log.error("failed", exc_info=problem)  # noqa: TRY400  the second way to hand over an exception
    for line in json_lines(stream):
        assert str(line["exception"]).endswith("ValueError: broken")
        assert line["level"] == "error"


@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), BrokenPipeError(), ValueError("closed")]
)
def test_a_log_that_cannot_be_written_stops_nothing(fault: Exception) -> None:
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise fault

    sink = logs.configure(stream=Broken())
    structlog.get_logger().info("session up")
    assert sink.lost == 1


def test_libraries_log_through_the_same_form() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("grpc.aio").error("connection %s lost", "7")
    logging.getLogger("grpc.aio").info("chatter")
    logging.getLogger("pyroute2").warning("wrong arguments %d", "no number")
    assert [(line["library"], line["level"], line["event"]) for line in json_lines(stream)] == [
        ("grpc.aio", "error", "connection 7 lost"),
        ("pyroute2", "warning", "wrong arguments %d"),
    ]


def test_a_library_cannot_flood_the_log() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    for number in range(10_000):
        logging.getLogger("asyncio").error("socket.accept() out of system resource %d", number)
    assert len(json_lines(stream)) == 10


def test_what_is_wrong_with_a_file_is_a_line_each() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logs.log_problems("error", [Problem("agent.toml", 3, "speaker.asn", "0", "must be an integer"), OTHER])
    assert [(line["level"], line["event"], line["line"], line["key"]) for line in json_lines(stream)] == [
        ("error", "configuration error", 3, "speaker.asn"),
        ("error", "configuration error", 9, "fib.zzz"),
    ]


class Recorder:
    """A logger that keeps its lines, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[tuple[str, dict[str, object]]] = []

    def log(self, _level: str, event: str, /, **keys: object) -> None:
        self.lines.append((event, keys))

    def clock(self) -> float:
        return self.now

    def throttle(self, **options: int) -> Throttle:
        return Throttle(self, clock=self.clock, **options)


def test_repeated_events_are_counted_instead_of_logged() -> None:
    seen = Recorder()
    throttle = seen.throttle(burst=2)
    for _ in range(50):
        throttle.warning(("192.0.2.1", "malformed"), "malformed update", peer="192.0.2.1")
    throttle.warning(("192.0.2.2", "malformed"), "malformed update", peer="192.0.2.2")
    assert [keys["peer"] for _, keys in seen.lines] == ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
    seen.now += 10
    throttle.warning(("192.0.2.1", "malformed"), "malformed update", peer="192.0.2.1")
    assert seen.lines[-1][1]["suppressed"] == 48


def test_the_end_of_a_storm_is_told_by_flush() -> None:
    seen = Recorder()
    throttle = seen.throttle(burst=1)
    for _ in range(5):
        throttle.warning("a", "refused")
    throttle.flush()
    assert len(seen.lines) == 1
    seen.now += 10
    throttle.flush()
    assert seen.lines[1] == ("refused", {"about": "a", "suppressed": 4})
    assert len(throttle) == 0


def test_many_keys_neither_fill_memory_nor_the_log() -> None:
    seen = Recorder()
    throttle = seen.throttle(burst=3, most_keys=100)
    for number in range(100_000):
        throttle.warning(number, "connection refused")
    assert len(throttle) <= 100
    assert len(seen.lines) == 30
    seen.now += 10
    throttle.flush()
    throttle.warning("next", "connection refused")
    told = sum(
        int(str(keys.get(key, 0))) for _, keys in seen.lines for key in ("suppressed", "suppressed_elsewhere")
    )
    assert told == 100_000 - 30
    assert len(seen.lines) <= 30 + 3 + 1


def test_a_crash_in_c_code_says_where_every_thread_was() -> None:
    crash = "def deep():\n os.kill(os.getpid(), 11)\nimport os; from bgpd import log; log.configure(); deep()"
    ended = subprocess.run([sys.executable, "-c", crash], capture_output=True, text=True, check=False)
    assert ended.returncode == -11
    assert "Segmentation fault" in ended.stderr
    assert "in deep" in ended.stderr
