"""The command line of the controller."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bgpd.config import Endpoint
from bgpd.kube import controller
from bgpd.kube.controller import ControllerOptions
from bgpd.kube.controller_command import controller as command
from routes.prefix import parse_address


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[ControllerOptions]:
    found: list[ControllerOptions] = []

    def run(options: ControllerOptions) -> int:
        found.append(options)
        return 7

    monkeypatch.setattr(controller, "run", run)
    return found


def test_options_are_handed_on_and_the_exit_code_back(ran: list[ControllerOptions]) -> None:
    words = ["--kubeconfig", "k", "--server", "https://192.0.2.1:6443", "--namespace", "n"]
    result = CliRunner().invoke(command, [*words, "--metrics", "[::1]:9181"])
    assert result.exit_code == 7
    endpoint = Endpoint(parse_address("::1"), 9181)
    assert ran == [ControllerOptions("k", "https://192.0.2.1:6443", "n", endpoint)]


def test_a_file_says_where_metrics_are_unless_the_command_line_does(
    ran: list[ControllerOptions], tmp_path: Path
) -> None:
    file = tmp_path / "controller.toml"
    file.write_text('[metrics]\nlisten = "127.0.0.1:9181"\n[log]\nformat = "json"\n')
    CliRunner().invoke(command, ["--config", str(file)])
    CliRunner().invoke(command, ["--config", str(file), "--metrics", "127.0.0.1:9999"])
    assert [options.metrics.port for options in ran if options.metrics] == [9181, 9999]
    assert ran[0].namespace == "podbgp-system"


def test_a_wrong_address_is_refused_with_what_is_valid(ran: list[ControllerOptions]) -> None:
    result = CliRunner().invoke(command, ["--metrics", "9181"])
    assert result.exit_code == 2
    assert "must be an address and a port" in result.output
    assert ran == []


def test_credentials_that_are_none_are_said_to_be(tmp_path: Path) -> None:
    assert controller.run(ControllerOptions(str(tmp_path / "absent"))) == 1
