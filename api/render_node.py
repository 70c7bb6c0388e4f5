"""What `podbgp` shows to a person of a Kubernetes Node and its Services: answers, then their reasons."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.style import Style

from api import text
from api.convert import address_to_text, prefix_to_text
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
    commas,
    counted,
    paragraph,
)
from routes.node_view import ApiServerNews, ClusterKnown, NodeHost, NodeStatus, ServiceVerdict
from routes.own_path import OwnPath


def node(value: NodeStatus) -> list[RenderableType]:
    """The node as its daemon sees it."""
    if value.cluster is None:
        sentence = f"This {value.role} takes its intent from {value.config_path}, not from Kubernetes."
        return [paragraph(f"{sentence} podbgp status and podbgp peers show how it is.")]
    cluster, host = value.cluster, value.host
    fields = Fields()
    if host is not None:
        _add_host(fields, host)
    fields.add("API server", *_news(cluster.api_server))
    fields.add("waits", cluster.waits, WARN)
    parts: list[RenderableType] = [paragraph(f"Node {cluster.node}, {value.role}", BOLD), fields]
    return [*parts, *_problems(cluster)]


def _add_host(fields: Fields, host: NodeHost) -> None:
    readiness, drain = host.readiness, host.drain
    state = "yes" if readiness.ready else "no"
    fields.add("takes pods", state, GOOD if readiness.ready else BAD)
    for reason in readiness.reasons:
        fields.add("", f"because {reason}" if not readiness.ready else f"but {reason}", WARN)
    written = "written" if host.cni_written else "not written"
    fields.add("CNI configuration", f"{written}, {host.cni_file}", PLAIN if host.cni_written else WARN)
    fields.add("drain", drain.reason, WARN if drain.graceful_shutdown else PLAIN)
    if drain.graceful_shutdown:
        kept = [what for what, kept in _announced(host) if kept]
        fields.add("", f"announced as going: {commas(kept) or 'nothing'}")
    reflector = host.reflector
    if reflector.wanted:
        state, style = ("runs", GOOD) if reflector.running else ("should run, and does not", BAD)
        fields.add("reflector", f"this node is elected: its reflector {state}", style)
    for sentence in host.trouble:
        fields.add("host", sentence, BAD)


def _announced(host: NodeHost) -> tuple[tuple[str, bool], ...]:
    drain = host.drain
    return ("services", drain.announce_services), ("pod prefixes", drain.announce_pods)


def _news(news: ApiServerNews) -> tuple[str, Style]:
    if news.stale:
        age = text.duration(news.age)
        return f"not heard from for {age}, what is known stays in use: {news.error}", BAD
    if not news.synced:
        return f"not everything was heard of yet{': ' + news.error if news.error else ''}", WARN
    return (f"heard from; last trouble: {news.error}", WARN) if news.error else ("heard from", GOOD)


def _problems(cluster: ClusterKnown) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if cluster.problems:
        parts += ["", paragraph("Not taken as written", WARN)]
        fields = Fields()
        for problem in cluster.problems:
            fields.add(f"{problem.kind} {problem.name}", f"{problem.reason}: {problem.text}")
        parts.append(fields)
    if cluster.unreadable:
        parts += ["", paragraph("Can't be read: the last good state stays in use", WARN)]
        fields = Fields()
        for each in cluster.unreadable:
            fields.add(each.name, each.text)
        parts.append(fields)
    more = cluster.problem_count + cluster.unreadable_count - len(cluster.problems) - len(cluster.unreadable)
    return [*parts, paragraph(f"  and {more} more", DIM)] if more > 0 else parts


def verdicts(values: Sequence[ServiceVerdict], note: str, *, one: bool) -> list[RenderableType]:
    """One line an address; of one Service, a sentence for each."""
    notes: list[RenderableType] = [paragraph(note, WARN)] if note else []
    if one:
        return [*notes, *(paragraph(each.text, GOOD if each.announced else BAD) for each in values)]
    listing = Listing(
        [
            Column("SERVICE", shrinks=True),
            Column("KIND"),
            Column("ADDRESS"),
            Column("ANNOUNCED AS"),
            Column("RULE"),
        ]
    )
    for each in values:
        service = f"{each.namespace}/{each.name}"
        prefixes = commas(map(prefix_to_text, each.prefixes)) or "-"
        style = None if each.announced else DIM
        listing.add(service, each.kind, address_to_text(each.address), prefixes, each.rule, style=style)
    if not listing.rows:
        return [*notes, paragraph("No Services.")]
    announced = sum(each.announced for each in values)
    total = f"{announced} of {len(values)} announced; podbgp service NAMESPACE/NAME says why"
    return [*notes, listing, paragraph(total, DIM)]


def service_paths(paths: Sequence[OwnPath]) -> list[RenderableType]:
    """One line a prefix."""
    listing = Listing(
        [Column("PREFIX"), Column("PREF", right=True), Column("MED", right=True), Column("COMMUNITIES")]
    )
    for path in paths:
        communities = [*map(text.community, path.communities)]
        communities += map(text.large_community, path.large_communities)
        numbers = ("" if each is None else str(each) for each in (path.local_pref, path.med))
        listing.add(prefix_to_text(path.nlri), *numbers, " ".join(communities))
    if not listing.rows:
        return [paragraph("Nothing is announced for Services.")]
    return [listing, paragraph(counted(len(listing.rows), "path"), DIM)]
