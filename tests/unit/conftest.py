"""What holds for every unit test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that ran a command has logged as that does; the next one's loggers are not to."""
    yield
    structlog.reset_defaults()
