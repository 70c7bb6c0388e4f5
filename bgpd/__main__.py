"""`python -m bgpd` is `podbgpd`."""

from __future__ import annotations

from bgpd.cli import main

main(prog_name="podbgpd")
