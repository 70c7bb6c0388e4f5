"""What is taken of Kubernetes' own objects, and that the worst of them costs no more than a ValueError."""

from __future__ import annotations

import json

import pytest

from bgpd.kube.objects import decode_endpoint_slice, decode_node, decode_pod, decode_secret, decode_service
from routes.prefix import format_address


def service(**spec: object) -> bytes:
    return json.dumps({"metadata": {"name": "s", "namespace": "default"}, "spec": spec}).encode()


@pytest.mark.parametrize(
    ("port", "problem"),
    [
        ({"port": 80}, ""),
        ({"port": 53, "protocol": "UDP"}, ""),
        ({"port": 65535, "protocol": "SCTP"}, ""),
        ({"port": 0}, "spec.ports: 'TCP' 0 is no port"),
        ({"port": 65536}, "65536 is no port"),
        ({"port": -1}, "-1 is no port"),
        ({"port": 80, "protocol": "tcp } flush ruleset"}, "'tcp } flush ruleset' 80 is no port"),
        ({"port": 80, "protocol": "T\u00c7P"}, "is no port"),
    ],
)
def test_only_what_is_a_port_reaches_the_packet_filter(port: dict[str, object], problem: str) -> None:
    found = decode_service(service(ports=[port]))
    assert bool(found.ports) == (not problem)
    assert problem in "".join(found.problems)


def test_a_service_says_no_more_than_so_much_about_its_ports() -> None:
    assert len(decode_service(service(ports=[{"port": -each} for each in range(1000)])).problems) <= 64


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "::", "10.0.0.1/8", "1.2.3", "fe80::1%e"]
)
def test_what_is_no_unicast_address_is_left_out_and_told(text: str) -> None:
    found = decode_service(service(externalIPs=[text, "203.0.113.7"]))
    assert [format_address(each) for each in found.external_ips] == ["203.0.113.7"]
    assert text in "".join(found.problems)


@pytest.mark.parametrize(
    "meta",
    [
        b'{"name": 7}',
        b'{"name": "x", "creationTimestamp": "0001-01-01T00:00:00"}',
        b'{"name": "x", "creationTimestamp": "9999-12-31T23:59:59-23:59"}',
        b'{"name": "x", "creationTimestamp": "yesterday"}',
        b'{"name": "x", "labels": {"a": 1}}',
        b'{"name": "\\ud800"}',
        b'{"name": "x", "labels": ' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}",
        b'{"name": "x", "uid": 1e999}',
    ],
)
@pytest.mark.parametrize(
    "decode", [decode_node, decode_service, decode_endpoint_slice, decode_pod, decode_secret]
)
def test_hostile_metadata_is_a_value_or_a_value_error(decode: object, meta: bytes) -> None:
    assert callable(decode)
    try:
        decode(b'{"metadata": ' + meta + b"}")
    except (ValueError, RecursionError):  # what a watch catches for each object (watch.py)
        return
