"""Whose fault an error is decides what happens next."""

from __future__ import annotations


class PodbgpError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(PodbgpError):
    """The operator's: the configuration can't be used.  The text names file, key, value and what is valid."""


class PeerError(PodbgpError):
    """A peer's: drops or resets that session alone."""


class KernelError(PodbgpError):
    """The kernel refused or could not be reached: retry, then read everything again."""


class InvariantError(PodbgpError):
    """Ours: state that can't be.  Crash loudly rather than route on it."""
