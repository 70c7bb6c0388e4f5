"""What `podbgp` shows to a person of routes and the daemon: values in, renderables for rich's console out."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType

from api import render_reflector, text
from api.convert import address_to_text, identifier_to_text, prefix_to_text
from api.layout import (
    BAD,
    BOLD,
    DIM,
    GOOD,
    PLAIN,
    WARN,
    Column,
    Fields,
    Listing,
    Paragraph,
    commas,
    counted,
    paragraph,
)
from routes.path import PeerKind
from routes.view import (
    DaemonStatus,
    Explanation,
    FibView,
    Gate,
    PathView,
    RouteChange,
    ShutdownReport,
    Table,
)

_NOT_OF_A_REFLECTOR = frozenset({Gate.NEXT_HOP, Gate.KERNEL})
LEGEND = "> best  = equal cost  x refused  s stale"


def paths(views: Iterable[PathView]) -> list[RenderableType]:
    """One line a path."""
    listing = Listing(
        [
            Column(""),
            Column("PREFIX"),
            Column("NEXT HOP"),
            Column("FROM"),
            Column("TO"),
            Column("AS PATH", shrinks=True),
            Column("PREF", right=True),
            Column("MED", right=True),
            Column("WHY NOT", note=True),
        ]
    )
    for view in views:
        attributes = view.attributes
        listing.add(
            path_mark_cell(view),
            prefix_to_text(view.path.nlri),
            text.path_next_hop(view),
            view.path.source.peer,
            _path_to(view),
            str(attributes.as_path),
            "" if attributes.local_pref is None else str(attributes.local_pref),
            "" if attributes.med is None else str(attributes.med),
            "" if view.best or view.multipath else view.reason or view.lost_at,
            style=None if view.accepted else DIM,
        )
    if not listing.rows:
        return [paragraph("No routes.")]
    legend = f"; {LEGEND}" if any(row[0] for row in listing.rows) else ""
    return [listing, paragraph(f"{counted(len(listing.rows), 'path')}{legend}", DIM)]


def path_mark_cell(view: PathView) -> str:
    """The mark at the start of a line; what peers were told has none."""
    return "" if view.to is not None or view.group else text.path_mark(view)


def _path_to(view: PathView) -> str:
    """Who is told: a peer, or a number of them in an update group."""
    if view.to is not None or not view.group:
        return view.to or ""
    return f"{view.group}: {counted(view.members, 'peer')}"


def fib(views: Iterable[FibView]) -> list[RenderableType]:
    """One line a next hop; the prefix at the first."""
    listing = Listing(
        [
            Column("PREFIX"),
            Column("NEXT HOP"),
            Column("SOURCE"),
            Column("METRIC", right=True),
            Column("KERNEL"),
            Column("WHY NOT", note=True),
        ]
    )
    count = 0
    for view in views:
        count += 1
        style = None if view.installed and not view.held else WARN if view.held else BAD
        first, *others = [text.next_hop(hop) for hop in view.next_hops] or ["unreachable"]
        listing.add(
            prefix_to_text(view.nlri),
            first,
            address_to_text(view.preferred_source),
            str(view.metric),
            text.fib_state(view),
            view.reason,
            style=style,
        )
        for hop in others:
            listing.add("", hop, "", "", "", "", style=style)
    if not count:
        return [paragraph("No kernel entries.")]
    return [listing, paragraph(counted(count, "entry"), DIM)]


def explanation(value: Explanation) -> list[RenderableType]:
    """The answer first, then the gates, then everything that led to it."""
    parts: list[RenderableType] = [paragraph(value.text, GOOD if value.failed is None else BAD), ""]
    parts.append(_gates(value))
    if value.nlri is None:
        return parts
    if value.paths:
        parts += [
            "",
            paragraph(f"Paths to {prefix_to_text(value.nlri)}", BOLD),
            *map(_path_fields, value.paths),
        ]
    if value.fib:
        parts += ["", paragraph("Kernel", BOLD), *map(_fib_fields, value.fib)]
    if value.advertised_to:
        parts += ["", paragraph(f"Advertised to {render_reflector.names(value.advertised_to)}")]
    parts += render_reflector.told(value.told)
    if value.more_specific:
        for view in value.more_specific:
            title = f"More specific, and not selected: {prefix_to_text(view.path.nlri)}"
            parts += ["", paragraph(title, BOLD), _path_fields(view)]
    return parts


def _gates(value: Explanation) -> Fields:
    fields = Fields()
    reached = True
    for gate in Gate:
        if value.reflected and gate in _NOT_OF_A_REFLECTOR:
            continue
        if gate is value.failed:
            fields.add(gate.value, "failed", BAD)
            reached = False
        else:
            fields.add(gate.value, "ok" if reached else "-", GOOD if reached else DIM)
    return fields


def _path_fields(view: PathView) -> Fields:
    source = view.path.source
    fields = Fields()
    style = BOLD if view.best or view.multipath else DIM if not view.accepted else PLAIN
    stale = ", stale" if view.stale else ""
    path_id = f", path ID {view.path.path_id}" if view.path.path_id else ""
    origin = f"from {source.peer} ({text.KIND[source.kind]}, AS {source.asn})"
    if source.kind is PeerKind.LOCAL:
        origin = "originated by this node"
    fields.add(text.path_mark(view) or "-", f"{text.path_state(view)}{stale}, {origin}{path_id}", style)
    if not (view.best or view.multipath):
        fields.add("", view.reason)
    fields.add("", f"next hop {text.path_next_hop(view)}, {text.attributes(view.attributes)}")
    if view.attributes != view.path.attributes:
        received = view.path.attributes
        next_hop = address_to_text(received.next_hop)
        fields.add("", f"as received: next hop {next_hop}, {text.attributes(received)}", DIM)
    fields.add("", f"import rule: {view.rule}" if view.rule else "")
    return fields


def _fib_fields(entry: FibView) -> Fields:
    fields = Fields()
    hops = commas(text.next_hop(hop) for hop in entry.next_hops) or "unreachable"
    source = "" if entry.preferred_source is None else f", source {address_to_text(entry.preferred_source)}"
    style = GOOD if entry.installed else BAD
    fields.add("-", f"{hops}, metric {entry.metric}{source}: {text.fib_state(entry)}", style)
    fields.add("", entry.reason)
    return fields


def status(value: DaemonStatus, now: float) -> list[RenderableType]:
    """The daemon as a whole."""
    router_id = identifier_to_text(value.router_id)
    title = f"podbgp {value.version}, {value.role}, AS {value.asn}, router ID {router_id}"
    fields = Fields()
    fields.add("up", text.duration(now - value.started))
    fields.add("configuration", value.config_path)
    fields.add("reload refused", value.config_error, BAD)
    all_up = value.peers_established == value.peers
    fields.add("peers", f"{value.peers_established} of {value.peers} established", GOOD if all_up else WARN)
    fields.add("convergence", _convergence(value, now), GOOD if value.convergence.complete else WARN)
    parts: list[RenderableType] = [paragraph(title, BOLD), fields]
    if value.tables:
        sizes = Listing(
            [Column("TABLE"), Column("FAMILY"), Column("PREFIXES", right=True), Column("PATHS", right=True)],
            indent=2,
        )
        for table in value.tables:
            sizes.add(table.table.value, str(table.family), str(table.prefixes), str(table.paths))
        parts += ["", sizes]
    if value.fib:
        names = ("WANTED", "INSTALLED", "FAILED", "HELD")
        kernel = Listing([Column("KERNEL"), *(Column(name, right=True) for name in names)], indent=2)
        for family, *counts in value.fib:
            kernel.add(str(family), *map(str, counts), style=BAD if counts[2] else None)
        parts += ["", kernel]
    parts += render_reflector.groups(value.groups)
    parts += render_reflector.duplicates(value)
    if value.warnings:
        parts += ["", paragraph("Warnings about this host, each with the command that mends it", WARN)]
        for warning in value.warnings:
            mend = Fields()
            mend.add("-", f"{warning.subject} ({warning.value})")
            mend.add("", warning.advice, BOLD)
            parts.append(mend)
    return parts


def _convergence(value: DaemonStatus, now: float) -> str:
    convergence = value.convergence
    held = (
        f"; held entries go in {text.duration(convergence.held_until - now)}"
        if convergence.held_until
        else ""
    )
    if convergence.complete:
        return f"complete {text.duration(convergence.at - value.started)} after the start{held}"
    return f"waiting for End-of-RIB from {render_reflector.names(convergence.waiting_for) or 'nobody'}{held}"


def route_change(change: RouteChange, table: Table, clock: str) -> Paragraph:
    """One line of a watch."""
    nlri = f"{clock}  {prefix_to_text(change.nlri)}"
    if not change.paths and not change.fib:
        return paragraph(f"{nlri}  gone", BAD)
    if table is Table.FIB:
        states = []
        for entry in change.fib:
            hops = commas(text.next_hop(hop) for hop in entry.next_hops) or "unreachable"
            states.append(f"{hops} ({text.fib_state(entry)}{': ' + entry.reason if entry.reason else ''})")
        return paragraph(f"{nlri}  {'; '.join(states)}")
    states = []
    for view in change.paths:
        to = f" to {_path_to(view)}" if _path_to(view) else ""
        state = "" if to else f" ({text.path_state(view)})"
        if to and view.reason:
            state = f" (not told: {view.reason})"
        states.append(f"via {text.path_next_hop(view)} from {view.path.source.peer}{to}{state}")
    return paragraph(f"{nlri}  {'; '.join(states)}")


def shutdown(report: ShutdownReport) -> list[RenderableType]:
    """What leaving did."""
    parts: list[RenderableType] = [
        paragraph(
            f"podbgpd is leaving: {counted(report.sessions_closed, 'session')} closed, "
            f"{counted(report.entries_removed, 'kernel entry')} removed, {report.entries_left} left in place."
        )
    ]
    return parts + [paragraph(error, BAD) for error in report.errors]
