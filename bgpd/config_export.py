"""`export`: what the paths of a peer or of a range of clients get on their way out of a reflector.

A table of its own under `[[peers]]` and `[[reflector.clients]]`.  What means nothing towards such a peer
(RFC 4271: LOCAL_PREF outside an AS, prepending inside it) is refused rather than ignored.
"""

from __future__ import annotations

from bgpd import config_values as values
from bgpd.config import ExportConfig
from bgpd.config_table import Table
from routes.path import PeerKind

_BIGGEST = 4294967295
MOST_PREPENDED = 16
MOST_ADD_PATHS = 16


def read_export(parent: Table, kind: PeerKind) -> ExportConfig:
    """The table `export` of a peer or range."""
    table = parent.table("export")
    added = table.distinct("communities", values.community)
    export = ExportConfig(
        local_pref=table.optional("local_pref", _maybe_number, None),
        med=table.optional("med", _maybe_number, None),
        prepend=table.optional("prepend", values.integer(0, MOST_PREPENDED), 0),
        add_communities=values.standard(added),
        add_large_communities=values.large(added),
    )
    if not parent.sound("asn"):
        return export
    if export.local_pref is not None and kind is PeerKind.EBGP:
        table.wrong("local_pref", "stays inside an AS (RFC 4271 section 5.1.5), and this is an eBGP peer")
    if export.prepend and kind is PeerKind.IBGP:
        table.wrong(
            "prepend", "is for eBGP peers: paths stay as they are inside an AS (RFC 4271 section 5.1.2)"
        )
    return export


def add_paths(value: object) -> int:
    """How many paths for each prefix (RFC 7911): one is what every session has anyway."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not (value == 0 or 2 <= value <= MOST_ADD_PATHS)
    ):
        raise values.UnfitError(
            f"must be 0 (one path for each prefix, without ADD-PATH) or an integer from 2 to {MOST_ADD_PATHS}"
        )
    return value


def _maybe_number(value: object) -> int | None:
    return values.integer(0, _BIGGEST)(value)
