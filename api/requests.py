"""Reads requests: anybody who reaches the socket can send anything, and learns what is wrong with it.

The counterpart of `convert.py` for what comes in: every function returns a checked value or raises
`CallError` with a sentence that names the field, its value, and what is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import grpc

from api.call import CallError, invalid
from api.convert import FAMILY_FROM, MATCH_FROM, TABLE_FROM
from api.daemon_view import DaemonView
from api.v1 import node_pb2, path_pb2
from api.v1 import route_pb2 as pb
from routes.node_view import ServiceQuery
from routes.path import LOCAL_PEER, PeerName
from routes.prefix import Prefix, host_prefix, parse_address
from routes.view import Match, RouteQuery, Table

Value = TypeVar("Value")
Default = TypeVar("Default")
Number = TypeVar("Number", bound=int)

MAX_TEXT = 64
"""The longest text of an address or prefix is 43 characters."""
MAX_NAME = 256
"""The names of Kubernetes' objects have at most 253 characters."""
MAX_SHUTDOWN_MESSAGE = 255
"""Bytes (RFC 9003 section 2)."""
NAMES_SHOWN = 10


def route_query(message: pb.RouteFilter, page_token: str, view: DaemonView) -> RouteQuery:
    """Which routes are asked for."""
    table = _enum("filter.table", message.table, TABLE_FROM, Table.LOC_RIB, pb.Table.Name)
    match = _enum("filter.match", message.match, MATCH_FROM, Match.EXACT, pb.Match.Name)
    family = _enum("filter.family", message.family, FAMILY_FROM, None, path_pb2.Family.Name)
    prefix = prefix_or_address("filter.prefix", message.prefix) if message.prefix else None
    if prefix is None and message.match:
        raise invalid("filter.match", f"{pb.Match.Name(message.match)} needs filter.prefix")
    if prefix is not None and family is not None and prefix.family is not family:
        raise invalid("filter.family", f"{family} never holds filter.prefix {prefix}")
    return RouteQuery(
        table=table,
        peer=_peer(message.peer, table, view) if message.peer else None,
        family=family,
        prefix=prefix,
        match=match,
        after=prefix_or_address("page_token", page_token) if page_token else None,
    )


def _enum(
    field: str,
    number: Number,
    known: Mapping[Number, Value],
    default: Default,
    name_of: Callable[[Number], str],
) -> Value | Default:
    if number == 0:
        return default
    if number not in known:
        valid = ", ".join(name_of(value) for value in known)
        raise invalid(field, f"{number} is unknown; valid are {valid}")
    return known[number]


def _peer(name: str, table: Table, view: DaemonView) -> PeerName:
    if table is Table.FIB:
        raise invalid("filter.peer", f"{name!r} selects nothing: the FIB is not kept for each peer")
    if name == LOCAL_PEER and table is not Table.ADJ_OUT:
        return LOCAL_PEER
    return known_peer("filter.peer", name, view)


def known_peer(field: str, name: str, view: DaemonView) -> PeerName:
    """The name of a configured peer; NOT_FOUND tells which there are."""
    peer = PeerName(name[:MAX_NAME])
    if view.peer(peer) is not None:
        return peer
    names: list[str] = [status.name for status, _ in zip(view.peers(), range(NAMES_SHOWN + 1), strict=False)]
    if len(names) > NAMES_SHOWN:
        names[NAMES_SHOWN:] = ["..."]
    there_are = f"the peers are {', '.join(names)}" if names else "there are none"
    raise CallError(grpc.StatusCode.NOT_FOUND, f"{field}: {peer!r} is not configured; {there_are}")


def prefix_or_address(field: str, text: str) -> Prefix:
    """A prefix, or an address as its host prefix."""
    if len(text) > MAX_TEXT:
        raise invalid(field, f"{text[:MAX_TEXT]!r}... is no prefix: at most {MAX_TEXT} characters are valid")
    try:
        return _parse(text)
    except ValueError as error:
        example = "valid are a prefix without host bits (10.244.0.0/16, fd00::/48) and an address"
        raise invalid(field, f"{text!r} is neither prefix nor address ({error}); {example}") from None


def _parse(text: str) -> Prefix:
    if "%" in text:
        raise ValueError("a zone is no part of a route")
    return Prefix.parse(text) if "/" in text else host_prefix(parse_address(text))


def explain_target(text: str) -> tuple[Prefix, Match]:
    """What to explain: a prefix as it is, an address by what covers it."""
    if not text:
        raise invalid("target", "is missing; valid are a prefix (10.244.1.0/24) and an address (10.244.1.7)")
    return prefix_or_address("target", text), Match.EXACT if "/" in text else Match.LONGEST


def service_query(message: node_pb2.ServiceFilter, page_token: str) -> ServiceQuery:
    """Which Services are asked for."""
    namespace, name = (
        _object_name("filter.namespace", message.namespace),
        _object_name("filter.name", message.name),
    )
    if name and not namespace:
        raise invalid("filter.name", f"{name!r} needs filter.namespace: each may have a Service of that name")
    return ServiceQuery(namespace, name, _after(page_token) if page_token else None)


def _object_name(field: str, text: str) -> str:
    if len(text) > MAX_NAME or "/" in text:
        valid = "valid are at most 253 characters without /"
        raise invalid(field, f"{text[:MAX_TEXT]!r} is no name of an object: {valid}")
    return text


def _after(token: str) -> tuple[str, str]:
    namespace, slash, name = token.partition("/")
    if not slash:
        raise invalid("page_token", f"{token[:MAX_TEXT]!r} is no next_page_token of a page before")
    return _object_name("page_token", namespace), _object_name("page_token", name)


def shutdown_message(text: str) -> str:
    """The text for the peers."""
    size = len(text.encode())
    if size > MAX_SHUTDOWN_MESSAGE:
        raise invalid("message", f"has {size} bytes; at most {MAX_SHUTDOWN_MESSAGE} are valid (RFC 9003)")
    return text
