"""What `podbgp` shows to a person of a route reflector: update groups, duplicates, and who is told what.

Names are bounded here: five thousand of them help nobody, and `--output json` has them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType

from api import text
from api.convert import prefix_to_text
from api.layout import BOLD, DIM, PLAIN, WARN, Column, Fields, Listing, Paragraph, commas, counted, paragraph
from routes.path import LOCAL_PEER
from routes.peer import PeerStatus, Reflection, SessionState
from routes.view import DaemonStatus, GroupView, Told

NAMES_SHOWN = 10
PEERS_SHOWN = 100
"""Lines of `podbgp peers` beyond which only those are shown that need a look, up to as many."""


def names(values: Sequence[object]) -> str:
    """The first few in a sentence, and how many more there are."""
    more = len(values) - NAMES_SHOWN
    shown = commas(values[:NAMES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def worth_a_look(statuses: Sequence[PeerStatus], *, everyone: bool) -> list[PeerStatus]:
    """All peers, or of very many those that are down, and then those that are furthest behind."""
    if everyone or len(statuses) <= PEERS_SHOWN:
        return list(statuses)
    return sorted(statuses, key=_health)[:PEERS_SHOWN]


def _health(status: PeerStatus) -> tuple[bool, int]:
    lag = 0 if status.reflection is None else status.reflection.lag
    return status.state is SessionState.ESTABLISHED, -lag


def left_out(statuses: Sequence[PeerStatus], shown: int) -> Paragraph | None:
    """What a bounded list of peers does not show."""
    if shown == len(statuses):
        return None
    up = sum(status.state is SessionState.ESTABLISHED for status in statuses)
    return paragraph(
        f"{up} of {counted(len(statuses), 'peer')} established; these {shown} are down or furthest behind, "
        "if any are. --all shows all of them, and so does --output json.",
        DIM,
    )


def peer_cells(status: PeerStatus) -> tuple[str, str, str, str]:
    """Role, lag, messages and bytes of a reflector's peer; empty for an agent's."""
    reflection, counters = status.reflection, status.counters
    if reflection is None:
        return "", "", "", ""
    return (
        reflection.role,
        str(reflection.lag) if reflection.groups else "",
        f"{counters.messages_in}/{counters.messages_out}",
        f"{text.size(counters.bytes_in)}/{text.size(counters.bytes_out)}",
    )


def peer_groups(reflection: Reflection | None) -> str:
    """The names of a peer's groups."""
    return "" if reflection is None else commas(name for _, name in reflection.groups)


def groups(values: Iterable[GroupView]) -> list[RenderableType]:
    """The update groups, one line each."""
    headings = ("MEMBERS", "ENTRIES", "LOG", "WITHDRAWALS", "LAG")
    listing = Listing([Column("GROUP"), *(Column(each, right=True) for each in headings)], indent=2)
    for group in values:
        counts = (str(group.withdrawals), str(group.lag))
        listing.add(group.name, str(group.members), str(group.entries), text.size(group.log_bytes), *counts)
    return ["", listing] if listing.rows else []


def duplicates(value: DaemonStatus) -> list[RenderableType]:
    """Prefixes that two clients announce, the first few by name."""
    if not value.duplicates:
        return []
    what = "1 prefix is" if value.duplicates == 1 else f"{value.duplicates} prefixes are"
    fields = Fields()
    for nlri, first, second in value.first_duplicates:
        fields.add(prefix_to_text(nlri), f"{first} and {second}")
    return ["", paragraph(f"{what} announced by more than one client", WARN), fields]


def told(values: Sequence[Told]) -> list[RenderableType]:
    """Which update group is told which path of a prefix, and why not."""
    if not values:
        return []
    fields = Fields()
    for each in values:
        own = f", not {names(each.not_back_to)} itself" if each.not_back_to else ""
        path = "the aggregate" if each.source == LOCAL_PEER else f"the path from {each.source}"
        if each.reason:
            fields.add(each.group, f"not told {path}: {each.reason}", DIM)
        else:
            fields.add(each.group, f"{counted(each.peers, 'peer')} told {path}{own}", PLAIN)
    return ["", paragraph("Update groups", BOLD), fields]
