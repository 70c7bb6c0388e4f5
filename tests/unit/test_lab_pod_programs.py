"""The programs in the lab's pods: what they answer, and that nothing sent to them takes them down."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.lab.kube_dns import FORMAT_ERROR, HEADER, NAME_ERROR, NOT_IMPLEMENTED, answer, read_zone
from bgpd.lab.kube_ingress import forwarded, read_backend

ZONE = read_zone(["Web.Default.SVC.=10.96.7.1", "web.default.svc=fd00:10:96::7", "web.default.svc=10.96.7.2"])
A, AAAA, TXT = 1, 28, 16


def query(name: str, kind: int, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return HEADER.pack(7, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


@pytest.mark.parametrize(
    ("asked", "code", "addresses"),
    [
        (query("web.default.svc", A), 0, ["10.96.7.1", "10.96.7.2"]),
        (query("WEB.default.svc", AAAA), 0, ["fd00:10:96::7"]),
        (query("web.default.svc", TXT), 0, []),
        (query("other.default.svc", A), NAME_ERROR, []),
        (query("web.default.svc", A, flags=0x1000), NOT_IMPLEMENTED, []),
        (query("web.default.svc", A)[:-5], FORMAT_ERROR, []),
    ],
    ids=["IPv4", "IPv6, in capitals", "another type", "another name", "a status request", "cut short"],
)
def test_a_name_is_looked_up(asked: bytes, code: int, addresses: list[str]) -> None:
    said = answer(asked, ZONE)
    assert said is not None
    number, flags, _, count, *_ = HEADER.unpack_from(said)
    assert (number, flags & 0x8000, flags & 0xF, count) == (7, 0x8000, code, len(addresses))
    if addresses:
        size = len(ip_address(addresses[0]).packed)
        records = [said[-(index + 1) * (12 + size) :][12 : 12 + size] for index in range(count)][::-1]
        assert [str(ip_address(record)) for record in records] == addresses


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: HEADER.pack(7, 0, 1, 0, 0, 0) + tail))
def test_whatever_is_sent_the_dns_server_answers_or_is_silent(sent: bytes) -> None:
    said = answer(sent, ZONE)
    assert said is None or said[:2] == sent[:2]
    assert said is None or len(said) <= len(sent) + 200


def test_an_answer_is_never_answered() -> None:
    said = answer(query("web.default.svc", A), ZONE)
    assert said is not None
    assert answer(said, ZONE) is None


def test_only_the_proxy_says_who_the_client_is() -> None:
    head = b"GET /x HTTP/1.1\r\nHost: web\r\nx-Forwarded-For: 1.2.3.4\r\nConnection: keep-alive\r\n\r\n"
    assert forwarded(head, "192.0.2.200") == (
        b"GET /x HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 192.0.2.200\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    "head", [b"\r\n\r\n", b"GET /\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET / SMTP/1.0\r\n\r\n"]
)
def test_what_is_no_request_is_not_forwarded(head: bytes) -> None:
    assert forwarded(head, "192.0.2.200") is None


def test_backends_are_of_either_family() -> None:
    assert read_backend("10.96.7.1:80") == ("10.96.7.1", 80)
    assert read_backend("[fd00:10:96::7]:80") == ("fd00:10:96::7", 80)
