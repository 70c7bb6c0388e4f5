"""What holds for every unit test."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs_of_its_own() -> Iterator[None]:
    """Logs go to standard error, as a daemon's do, and no test's settings reach the next one's loggers."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if type(each).__module__ != "bgpd.log"]
