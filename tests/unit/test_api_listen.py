"""Where the API listens: addresses, socket files, permissions, health and reflection."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from api.client import Client, ClientError
from api.listen import ApiAddress, ListenError, parse_api_address
from api.server import CONVERGED, OVERALL, SERVICES, ApiServer
from tests.fakes.fake_daemon_view import FakeDaemonView, served


@pytest.mark.parametrize(
    ("text", "expected", "target"),
    [
        ("unix:///run/podbgp/api.sock", ApiAddress("/run/podbgp/api.sock"), "unix:/run/podbgp/api.sock"),
        ("unix:/run/a.sock", ApiAddress("/run/a.sock"), "unix:/run/a.sock"),
        ("127.0.0.1:50051", ApiAddress("", "127.0.0.1", 50051), "ipv4:127.0.0.1:50051"),
        ("[::1]:50051", ApiAddress("", "::1", 50051), "ipv6:%5B::1%5D:50051"),
    ],
)
def test_addresses_are_read(text: str, expected: ApiAddress, target: str) -> None:
    assert parse_api_address(text) == expected
    assert expected.grpc_target == target
    assert parse_api_address(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no address to serve the API on; valid are unix:"),
        ("unix://run/api.sock", "names no absolute path"),
        ("unix:///" + "x" * 107, "is too long: a socket's path has at most 107 bytes"),
        ("localhost:50051", "is no address"),
        ("127.0.0.1", "is no address"),
        ("127.0.0.1:0", "has no port from 1 to 65535"),
        ("127.0.0.1:http", "has no port"),
        ("::1:50051", "brackets are for IPv6"),
        ("[127.0.0.1]:50051", "brackets are for IPv6"),
    ],
)
def test_other_text_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_api_address(text)


def test_the_socket_is_for_owner_and_group_and_goes_with_the_server() -> None:
    with served(FakeDaemonView()) as daemon:
        path = parse_api_address(daemon.api).path
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o660
        daemon.stop()
        assert not Path(path).exists()


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with served(FakeDaemonView(), listen=f"unix://{path}") as daemon, Client(daemon.api) as client:
        assert client.peers() == []


def test_a_socket_of_another_daemon_is_never_taken_over() -> None:
    with served(FakeDaemonView()) as daemon, Client(daemon.api) as client:
        with pytest.raises(ListenError, match=r"another process serves .*/api\.sock; stop it"):
            asyncio.run(ApiServer(FakeDaemonView(), daemon.api).start())
        assert client.peers() == []


def a_file(folder: Path) -> Path:
    (folder / "api.sock").write_text("keep me")
    return folder / "api.sock"


def below_a_file(folder: Path) -> Path:
    (folder / "run").write_text("")
    return folder / "run" / "podbgp" / "api.sock"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [(a_file, "exists and is no socket; move it away"), (below_a_file, r"can't be made \(Not a directory\)")],
)
def test_a_bad_place_for_the_socket_is_explained(
    tmp_path: Path, place: Callable[[Path], Path], sentence: str
) -> None:
    with pytest.raises(ListenError, match=sentence):
        asyncio.run(ApiServer(FakeDaemonView(), f"unix://{place(tmp_path)}").start())


def test_tcp_serves_all_but_shutdown_and_never_shares_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with served(FakeDaemonView(), listen=f"127.0.0.1:{port}") as daemon, Client(daemon.api) as client:
        assert client.status().role == "agent"
        with pytest.raises(ClientError, match="only served on a Unix socket") as caught:
            client.shutdown()
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(ListenError, match=f"can't listen on 127.0.0.1:{port}"):
            asyncio.run(ApiServer(FakeDaemonView(), daemon.api).start())


def test_health_is_told_for_the_server_its_services_and_convergence() -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    with served(FakeDaemonView()) as daemon, grpc.insecure_channel(daemon.api) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def check(name: str) -> object:
            return stub.Check(health_pb2.HealthCheckRequest(service=name)).status

        assert [check(name) for name in (OVERALL, *SERVICES)] == [serving] * 5
        assert check(CONVERGED) == not_serving
        daemon.await_in_loop(daemon.server.set_converged(True))
        assert check(CONVERGED) == serving


def test_reflection_lists_and_describes_the_services() -> None:
    with served(FakeDaemonView()) as daemon, grpc.insecure_channel(daemon.api) as channel:
        described = ProtoReflectionDescriptorDatabase(channel)
        assert set(SERVICES) < set(described.get_services())
        file = described.FindFileContainingSymbol("podbgp.v1.RouteService")
        assert file.name == "api/v1/route.proto"


def test_starting_leaves_the_umask_alone() -> None:
    before = os.umask(0o022)
    os.umask(before)
    with served(FakeDaemonView()):
        pass
    assert os.umask(before) == before
