"""Logs: one line an event, a sentence and its keys, as text for a person or as JSON for a collector.

structlog carries the events; this module decides the form, the level and where they go, and takes what
libraries send to the standard `logging`.  Modules say `log = structlog.get_logger()` and
`log.info("session up", peer=...)`.  Level and form can change while the daemon runs, under loggers
that exist; a call below the level costs a comparison and builds nothing.

What peers send ends up in logs, so no value may do more than be printed: control characters are
escaped, lengths are bounded, and `bgpd/throttle.py` is for events that a peer can repeat as it likes.
A log that can't be written never stops the daemon.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Iterable, MutableMapping
from datetime import UTC, datetime
from enum import Enum
from typing import TextIO

import structlog

from bgpd.config import Problem
from bgpd.throttle import Throttle
from routes.prefix import FAMILY_BY_SIZE, Address, format_address

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

_LONGEST_TEXT = 1000
_LONGEST_TRACE = 20_000
_MOST_ITEMS = 20
_STDERR = 2
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}

Plain = str | int | float | bool | None | list["Plain"]
EventDict = MutableMapping[str, object]


class Sink:
    """Where lines go, and how.  A full disk or a closed pipe loses lines, counted, and nothing else."""

    def __init__(self, stream: TextIO, level: str, form: str) -> None:
        self._stream = stream
        terminal = stream.isatty()
        self.threshold = LEVELS[level]
        self.as_text = form == "text" or (form == "auto" and terminal)
        self.colours = terminal and "NO_COLOR" not in os.environ
        self.lost = 0

    def write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self.lost += 1


_sink = Sink(sys.stderr, "info", "json")


class Logger(structlog.BoundLoggerBase):
    """What `structlog.get_logger()` gives after `configure`."""

    def debug(self, event: str, **keys: object) -> None:
        if _sink.threshold <= 10:
            self._proxy_to_logger("debug", event, **keys)

    def info(self, event: str, **keys: object) -> None:
        if _sink.threshold <= 20:
            self._proxy_to_logger("info", event, **keys)

    def warning(self, event: str, **keys: object) -> None:
        if _sink.threshold <= 30:
            self._proxy_to_logger("warning", event, **keys)

    def error(self, event: str, **keys: object) -> None:
        if _sink.threshold <= 40:
            self._proxy_to_logger("error", event, **keys)

    def exception(self, event: str, **keys: object) -> None:
        """An error, with the traceback of the exception that is being handled."""
        keys.setdefault("exc_info", True)
        self.error(event, **keys)

    def critical(self, event: str, **keys: object) -> None:
        self._proxy_to_logger("critical", event, **keys)

    def log(self, level: str, event: str, **keys: object) -> None:
        if _sink.threshold <= LEVELS[level]:
            self._proxy_to_logger(level, event, **keys)


class _Lines:
    """What structlog writes to: whatever sink is the present one."""

    def write(self, line: str) -> None:
        _sink.write(line)

    debug = info = warning = error = critical = write


def configure(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> Sink:
    """Send all logs, those of libraries too, to `stream` (standard error).  Call again to change it.

    A crash in C code ends with every thread's Python stack, on standard error.
    """
    global _sink  # noqa: PLW0603  loggers exist before and after: the present sink is process-wide by nature
    _sink = Sink(stream or sys.stderr, level, form)
    structlog.configure(
        processors=[_finished, _rendered],
        wrapper_class=Logger,
        logger_factory=lambda *_names: _Lines(),
    )
    root = logging.getLogger()
    root.handlers[:] = [_FromLibraries()]
    root.setLevel(logging.INFO if level == "debug" else logging.WARNING)
    faulthandler.enable(_STDERR)
    return _sink


def log_problems(level: str, problems: Iterable[Problem]) -> None:
    """A line for each thing that is wrong with a configuration file, or doubtful."""
    log = structlog.get_logger()
    for problem in problems:
        log.log(level, f"configuration {level}", **problem._asdict())


def _finished(_logger: object, level: str, event: EventDict) -> EventDict:
    """The event with its time and level first, and nothing but plain values."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    trace = _trace(event.pop("exc_info", None))
    finished: EventDict = {"time": now, "level": level, "event": plain(event.pop("event", ""))}
    finished.update((key, plain(value)) for key, value in event.items())
    if trace:
        finished["exception"] = trace
    return finished


def _rendered(_logger: object, _level: str, event: EventDict) -> str:
    return render_text(event, colours=_sink.colours) if _sink.as_text else json.dumps(event)


def plain(value: object) -> Plain:
    """A value of ours as something that JSON has and a person can read."""
    match value:
        case None | bool():
            return value
        case Enum():
            return value.value if isinstance(value.value, str) else str(value)
        case int():
            return value
        case float():
            return round(value, 6) if math.isfinite(value) else str(value)
        case str():
            return _bounded(value)
        case bytes():
            return format_address(Address(value)) if len(value) in FAMILY_BY_SIZE else _bounded(value.hex())
        case BaseException():
            return _bounded(f"{type(value).__name__}: {value}".removesuffix(": "))
        case list() | tuple() | set() | frozenset() if not hasattr(value, "_fields"):
            shown: list[Plain] = [plain(item) for item, _ in zip(value, range(_MOST_ITEMS), strict=False)]
            return [*shown, f"and {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else shown
        case _:
            return _bounded(str(value))


def _bounded(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"


def _trace(found: object) -> str:
    """The traceback that `exc_info` stands for; its end is kept where it is too long."""
    exception = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    if not isinstance(exception, BaseException):
        return ""
    return "".join(traceback.format_exception(exception)).rstrip()[-_LONGEST_TRACE:]


def render_text(event: EventDict, *, colours: bool = False) -> str:
    """`2026-01-31T12:00:00.000Z info    session up  peer=192.0.2.1 hold_time=90`"""
    rest = dict(event)
    time, level, sentence = (str(rest.pop(key, "")) for key in ("time", "level", "event"))
    trace = str(rest.pop("exception", ""))
    keys = " ".join(f"{key}={_shown(value)}" for key, value in rest.items())
    padded = f"{level:<8}"
    if colours:
        padded = f"\x1b[{_COLOURS.get(level, '0')}m{padded}\x1b[0m"
    line = f"{time} {padded}{_printable(sentence)}  {keys}".rstrip()
    return "\n".join((line, *map(_printable, trace.splitlines())))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_shown, value)) + "]"
    text = str(value)
    simple = text.isprintable() and not set(text) & set(' "=,[]\\')
    return text if simple and text else json.dumps(text, ensure_ascii=not text.isprintable())


def _printable(text: str) -> str:
    """Without what moves a terminal's cursor, changes its colours, or starts a line."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


class _FromLibraries(logging.Handler):
    """What grpc, pyroute2, asyncio and others log, as events of ours with the library's name."""

    def __init__(self) -> None:
        super().__init__()
        self._throttle = Throttle(structlog.get_logger(), interval=60.0, burst=10)

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name, number in reversed(LEVELS.items()) if record.levelno >= number), "debug")
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # the caller's arguments do not fit its format
            text = str(record.msg)
        key = (record.name, str(record.msg))
        self._throttle.log(level, key, text, library=record.name, exc_info=record.exc_info)
