"""Finds stored paths by where their prefix lies, for when facts about a range of addresses change.

There is no index by range: it would cost something for each path, and facts change seldom.  One pass over the
known prefixes finds them, a few hundred nanoseconds for each that is longer than what was asked for.
This module must never change a table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from routes.adj_rib_in import AdjRibIn
from routes.node_prefixes import cut
from routes.path import PeerName
from routes.prefix import Prefix


def stored_inside(
    around: Collection[Prefix],
    holders: Mapping[Prefix, Iterable[AdjRibIn]],
    refusing: Iterable[AdjRibIn],
) -> dict[Prefix, dict[PeerName, AdjRibIn]]:
    """The tables with a path to each prefix in `around`, or inside one of them, all of one family.

    `holders` have accepted paths, `refusing` are the tables that have refused ones.
    """
    lengths = sorted({nlri.length for nlri in around})
    shortest = lengths[0] if lengths else 0

    def inside(nlri: Prefix) -> bool:
        length = nlri[1]
        return nlri in around or (
            length > shortest and any(cut(nlri, each) in around for each in lengths if each < length)
        )

    found: dict[Prefix, dict[PeerName, AdjRibIn]] = {}
    if not lengths:
        return found
    longer = (nlri for nlri in holders if nlri[1] > shortest and nlri not in around and inside(nlri))
    for nlri in chain(around, longer):
        found[nlri] = {table.peer: table for table in holders.get(nlri, ())}
    for table in refusing:
        for nlri in chain(table.plain.refused, table.ids):
            if inside(nlri):
                found.setdefault(nlri, {})[table.peer] = table
    return found
