"""What `podbgp peers` and `podbgp watch peers` show to a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType

from api import render_reflector, text
from api.convert import address_to_text, identifier_to_text
from api.layout import BAD, BOLD, GOOD, PLAIN, WARN, Column, Fields, Listing, Paragraph, commas, paragraph
from routes.path import PeerName
from routes.peer import Capabilities, GracefulRestart, Negotiated, PeerStatus, SessionState
from routes.prefix import Family


def peers(statuses: Sequence[PeerStatus], now: float, *, everyone: bool = False) -> list[RenderableType]:
    """One line a peer; of very many only some, unless `everyone` is asked for."""
    listing = Listing(
        [
            Column("PEER"),
            Column("AS", right=True),
            Column("ROLE"),
            Column("STATE"),
            Column("FOR", right=True),
            Column("RECEIVED", right=True),
            Column("ACCEPTED", right=True),
            Column("SENT", right=True),
            Column("LAG", right=True),
            Column("MESSAGES IN/OUT", right=True),
            Column("BYTES IN/OUT", right=True),
            Column("GROUPS", shrinks=True),
            Column("NOTE", note=True),
        ]
    )
    shown = render_reflector.worth_a_look(statuses, everyone=everyone)
    for status in shown:
        up = status.state is SessionState.ESTABLISHED
        counts = [counts for _, counts in status.families]
        role, lag, messages, size = render_reflector.peer_cells(status)
        listing.add(
            status.name,
            str(status.asn),
            role,
            "Shutdown" if status.admin_down else status.state.value,
            text.duration(now - status.since) if status.since else "",
            str(sum(c.received for c in counts)) if counts else "",
            str(sum(c.accepted for c in counts)) if counts else "",
            str(sum(c.advertised for c in counts)) if counts else "",
            lag,
            messages,
            size,
            render_reflector.peer_groups(status.reflection),
            peer_note(status, now),
            style=GOOD if up else BAD,
        )
    if not listing.rows:
        return [paragraph("No peers are configured.")]
    rest = render_reflector.left_out(statuses, len(shown))
    return [listing] if rest is None else [listing, rest]


def peer_note(status: PeerStatus, now: float) -> str:
    """What an operator should know at a glance."""
    notes = []
    if status.state is SessionState.ESTABLISHED:
        notes += [f"{family} not announced: {reason}" for family, reason in status.not_announced]
    elif status.last_error is not None:
        notes.append(f"{status.last_error.text} ({text.duration(now - status.last_error.at)} ago)")
    elif status.passive:
        notes.append("waits for the peer to connect")
    stale = sum(counts.stale for _, counts in status.families)
    if stale:
        notes.append(f"{stale} stale")
    return "; ".join(notes)


def peer(status: PeerStatus, now: float) -> list[RenderableType]:
    """Everything about one peer."""
    up = status.state is SessionState.ESTABLISHED
    state = (
        f"{status.state.value} for {text.duration(now - status.since)}"
        if status.since
        else status.state.value
    )
    parts: list[RenderableType] = [paragraph(status.name, BOLD)]
    fields = Fields()
    fields.add(
        "state", f"{state}, shut down by configuration" if status.admin_down else state, GOOD if up else BAD
    )
    fields.add("description", status.description)
    fields.add("AS", f"{status.asn} ({text.KIND[status.kind]}), ours {status.local_asn}")
    _reflection(fields, status)
    fields.add("BGP identifier", identifier_to_text(status.bgp_id) if status.bgp_id else "")
    fields.add("connection", _connection(status))
    fields.add("hold time", _hold_time(status) if up else "")
    fields.add("next attempt", f"in {text.duration(status.next_connect)}" if status.next_connect else "")
    fields.add("last error", _last_error(status, now), PLAIN if up else BAD)
    counters = status.counters
    fields.add(
        "received",
        f"{counters.messages_in} messages, {counters.updates_in} updates, {counters.bytes_in} bytes",
    )
    fields.add(
        "sent",
        f"{counters.messages_out} messages, {counters.updates_out} updates, {counters.bytes_out} bytes",
    )
    fields.add("sessions lost", str(counters.flaps))
    for family, reason in status.not_announced:
        fields.add(f"{family}", f"not announced: {reason}", WARN)
    parts.append(fields)
    if status.families:
        parts += ["", _family_counts(status)]
    if status.negotiated is not None:
        parts += ["", _capabilities(status.negotiated)]
    return parts


def _reflection(fields: Fields, status: PeerStatus) -> None:
    reflection = status.reflection
    if reflection is None:
        return
    fields.add("role", reflection.role)
    fields.add("update groups", render_reflector.peer_groups(reflection))
    fields.add("behind the log", f"{reflection.lag} messages" if reflection.groups else "")


def _connection(status: PeerStatus) -> str:
    if status.local_address is None or status.peer_address is None:
        return "passive: the peer connects" if status.passive else ""
    local, remote = address_to_text(status.local_address), address_to_text(status.peer_address)
    return f"{local} port {status.local_port} to {remote} port {status.peer_port}"


def _hold_time(status: PeerStatus) -> str:
    if not status.hold_time:
        return "none: no keepalives"
    left, keepalive = f"{status.hold_remaining:.0f}", f"{status.keepalive_time:g}"
    return f"{status.hold_time} s, {left} s left, keepalive every {keepalive} s"


def _last_error(status: PeerStatus, now: float) -> str:
    error = status.last_error
    if error is None:
        return ""
    who = {True: "sent by us", False: "sent by the peer", None: ""}[error.sent]
    code = f"code {error.code}, subcode {error.subcode}" if error.code else ""
    return commas(filter(None, [error.text, who, code, f"{text.duration(now - error.at)} ago"]))


def _family_counts(status: PeerStatus) -> Listing:
    listing = Listing(
        [
            Column("FAMILY"),
            Column("RECEIVED", right=True),
            Column("ACCEPTED", right=True),
            Column("ADVERTISED", right=True),
            Column("STALE", right=True),
            Column("END-OF-RIB"),
        ],
        indent=2,
    )
    for family, counts in status.families:
        seen = "received" if family in status.end_of_rib else "not yet"
        listing.add(str(family), *(str(count) for count in counts), seen)
    return listing


def _capabilities(negotiated: Negotiated) -> Listing:
    listing = Listing(
        [
            Column("CAPABILITY"),
            Column("SENT", shrinks=True),
            Column("RECEIVED", shrinks=True),
            Column("IN USE"),
        ],
        indent=2,
    )
    ours, theirs = negotiated.local_capabilities, negotiated.peer_capabilities
    for name, in_use in (
        ("families", _families(negotiated.families)),
        ("four-octet AS", _yes(negotiated.four_octet)),
        ("route refresh", _yes(negotiated.route_refresh)),
        ("enhanced route refresh", _yes(negotiated.enhanced_route_refresh)),
        ("extended messages", _yes(negotiated.extended_message)),
        ("extended next hop", _families(negotiated.extended_next_hop)),
        ("ADD-PATH send", _families(negotiated.add_path_send)),
        ("ADD-PATH receive", _families(negotiated.add_path_receive)),
        ("graceful restart", _yes(negotiated.graceful_restart is not None)),
        ("unknown", "-"),
    ):
        listing.add(name, _capability(name, ours), _capability(name, theirs), in_use)
    return listing


def _capability(name: str, value: Capabilities) -> str:
    return {
        "families": _families(value.families),
        "four-octet AS": "-" if value.four_octet_asn is None else str(value.four_octet_asn),
        "route refresh": _yes(value.route_refresh),
        "enhanced route refresh": _yes(value.enhanced_route_refresh),
        "extended messages": _yes(value.extended_message),
        "extended next hop": _families(value.extended_next_hop),
        "ADD-PATH send": _families(value.add_path_send),
        "ADD-PATH receive": _families(value.add_path_receive),
        "graceful restart": _graceful(value.graceful_restart),
        "unknown": " ".join(map(str, value.unknown)) or "-",
    }[name]


def _graceful(value: GracefulRestart | None) -> str:
    if value is None:
        return "-"
    kept = " ".join(str(family) for family, preserved in value.families if preserved)
    restarting = ", restarting" if value.restarting else ""
    return f"{value.restart_time} s{restarting}, keeps {kept or 'nothing'}"


def _families(values: Iterable[Family]) -> str:
    return " ".join(str(family) for family in sorted(values)) or "-"


def _yes(value: bool) -> str:
    return "yes" if value else "-"


def peer_change(status: PeerStatus, now: float, clock: str) -> Paragraph:
    """One line of a watch."""
    up = status.state is SessionState.ESTABLISHED
    note = peer_note(status, now)
    return paragraph(
        f"{clock}  {status.name}  {status.state.value}{': ' + note if note else ''}", GOOD if up else BAD
    )


def peer_removed(name: PeerName, clock: str) -> Paragraph:
    """One line of a watch."""
    return paragraph(f"{clock}  {name}  removed from the configuration", BAD)
