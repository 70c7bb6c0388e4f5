"""`podbgpd`: one call, one exit code, and a sentence for what went wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result

from bgpd.cli import DEFAULT_CONFIG, DEFAULT_REFLECTOR_CONFIG, UNUSABLE, agent_answers, main
from bgpd.config import Config
from bgpd.config_file import load
from bgpd.errors import ConfigError, KernelError, PodbgpError
from bgpd.lab.run import LabOptions

VALID = """\
[speaker]
asn = 65000
router_id = "192.0.2.11"
[agent]
advertise = ["10.244.1.0/24"]
[[peers]]
address = "192.0.2.1"
asn = 65000
[[peers]]
address = "192.0.2.2"
asn = 64512
[import]
allow = ["10.244.0.0/16"]
"""
REFLECTOR = """\
[speaker]
asn = 65000
router_id = "192.0.2.1"
listen = ["192.0.2.1:179"]
[reflector]
[[reflector.clients]]
range = "192.0.2.0/24"
asn = 65000
[[peers]]
address = "192.0.2.2"
asn = 65000
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A valid configuration whose API socket is in a folder of its own."""
    path = tmp_path / "agent.toml"
    path.write_text(f'{VALID}[api]\nlisten = "unix://{tmp_path}/api.sock"\n')
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def python(*words: object) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )


def test_the_module_can_be_run_and_has_a_version() -> None:
    done = python("-m", "bgpd", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("podbgpd ")


def test_check_says_in_one_line_what_a_valid_file_amounts_to(file: Path) -> None:
    result = run("check", file)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == (
        f"{file}: valid for an agent: AS 65000, router ID 192.0.2.11, 2 peers (1 iBGP, 1 eBGP), "
        "1 prefix to advertise, 1 range allowed\n"
    )


def test_check_prints_warnings_and_stays_successful(file: Path) -> None:
    file.write_text(file.read_text().replace("[import]", "[import]\n#").replace("allow", "#"))
    result = run("check", file)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {file}:")


def test_check_names_every_mistake_and_exits_with_2(file: Path) -> None:
    file.write_text(file.read_text().replace("65000", "0"))
    result = run("check", file)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines()[0].startswith(f"{file}:2: speaker.asn = 0: must be")
    assert result.stderr.splitlines()[1].startswith(f"{file}:8: peers[0].asn = 0: must be")
    assert result.stderr.splitlines()[2] == "podbgpd: 2 errors"


def test_check_can_answer_a_program(file: Path) -> None:
    good = json.loads(run("check", file, "--output", "json").stdout)
    assert (good["valid"], good["errors"], good["warnings"]) == (True, [], [])
    file.write_text(file.read_text().replace("64512", "23456"))
    result = run("check", file, "--output", "json")
    assert result.exit_code == 2
    bad = json.loads(result.stdout)
    assert bad["valid"] is False
    assert [(error["line"], error["key"]) for error in bad["errors"]] == [(11, "peers[1].asn")]


@pytest.mark.parametrize(
    "command", [["check", "FILE"], ["agent", "--config", "FILE"], ["flush", "--config", "FILE"]]
)
def test_a_missing_file_is_a_mistake_of_the_command_line(tmp_path: Path, command: list[str]) -> None:
    missing = tmp_path / "missing.toml"
    result = run(*(missing if word == "FILE" else word for word in command))
    assert result.exit_code == 2
    assert f"{missing}: can't be read: No such file or directory" in result.stderr


@pytest.mark.parametrize("words", [["nonsense"], ["agent", "--colour"], ["lab", "--fabric", "cisco"]])
def test_a_wrong_command_line_exits_with_2(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_check_starts_without_the_daemon_s_libraries(file: Path) -> None:
    heavy = "{'grpc', 'pyroute2', 'exabgp', 'prometheus_client', 'structlog', 'rich'}"
    program = (
        f"import sys; from bgpd.cli import main; main(['check', '{file}'], standalone_mode=False); "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    assert python("-c", program).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("role", "config"), [("agent", DEFAULT_CONFIG), ("reflector", DEFAULT_REFLECTOR_CONFIG)]
)
def test_the_systemd_unit_starts_what_exists_and_knows_the_exit_codes(role: str, config: str) -> None:
    unit = (ROOT / "deploy" / "systemd" / f"podbgp-{role}.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and line[0].isalpha())
    program, *words = settings["ExecStart"].split()
    assert Path(program).name == "podbgpd"
    with main.make_context("podbgpd", list(words)) as context:
        name, command, rest = main.resolve_command(context, list(words))
        assert name == role
        assert command is not None
        params = command.make_context(role, rest).params
        assert (params["path"], params["kubernetes"]) == (config, False)
    assert settings["RestartPreventExitStatus"] == str(UNUSABLE)


def test_the_reflector_s_unit_has_the_folders_and_descriptors_of_the_example() -> None:
    unit = (ROOT / "deploy" / "systemd" / "podbgp-reflector.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and line[0].isalpha())
    config = load(ROOT / "deploy" / "reflector.example.toml")
    assert config.reflector is not None
    assert config.reflector.state_file.startswith(f"/var/lib/{settings['StateDirectory']}/")
    assert config.api_listen.startswith(f"unix:///run/{settings['RuntimeDirectory']}/")
    assert int(settings["LimitNOFILE"]) >= sum(each.max_sessions for each in config.reflector.clients) + 1000


class FakeRole(ModuleType):
    """Takes the place of bgpd.agent or bgpd.reflector."""

    def __init__(self, outcome: int | Exception) -> None:
        super().__init__("role")
        self._outcome = outcome
        self.configs: list[Config] = []

    def run(self, config: Config) -> int:
        self.configs.append(config)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (KernelError("netlink does not answer"), 1, "podbgpd: netlink does not answer\n"),
        (PodbgpError("the port is taken"), 1, "podbgpd: the port is taken\n"),
        (ConfigError("can't change while running"), 2, "podbgpd: can't change while running\n"),
    ],
)
@pytest.mark.parametrize("role", ["agent", "reflector"])
def test_the_end_of_a_role_is_the_exit_code(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    outcome: int | Exception,
    code: int,
    said: str,
) -> None:
    fake = FakeRole(outcome)
    monkeypatch.setitem(sys.modules, f"bgpd.{role}", fake)
    monkeypatch.setattr("bgpd.log.configure", Mock())
    if role == "reflector":
        file.write_text(REFLECTOR)
    result = run(role, "--config", file)
    assert (result.exit_code, result.stderr) == (code, said)
    assert [config.role for config in fake.configs] == [role]


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        (
            "agent",
            "REFLECTOR",
            "has [reflector], so it is a reflector's: run it with: podbgpd reflector --config",
        ),
        ("flush", "REFLECTOR", "has [reflector], so it is a reflector's"),
        (
            "reflector",
            "VALID",
            "has no [reflector], so it is an agent's: run it with: podbgpd agent --config",
        ),
    ],
)
def test_a_file_is_that_of_one_role(file: Path, command: str, text: str, said: str) -> None:
    file.write_text({"REFLECTOR": REFLECTOR, "VALID": VALID}[text])
    result = run(command, "--config", file)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"podbgpd: {file}: {said}")


def test_check_says_which_role_a_file_is_for(file: Path) -> None:
    file.write_text(REFLECTOR)
    result = run("check", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"{file}: valid for a reflector: AS 65000, router ID 192.0.2.1, cluster ID 192.0.2.1, "
        "1 range of clients, 1 peer (1 iBGP, 0 eBGP), 0 clients among them, 0 ranges allowed from eBGP\n"
    )
    assert json.loads(run("check", file, "--output", "json").stdout)["role"] == "reflector"


def test_the_agent_logs_what_is_doubtful_in_its_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(file.read_text().replace("[import]", "[import]\n#").replace("allow", "#"))
    log_problems = Mock()
    monkeypatch.setitem(sys.modules, "bgpd.agent", FakeRole(0))
    monkeypatch.setattr("bgpd.log.configure", Mock())
    monkeypatch.setattr("bgpd.log.log_problems", log_problems)
    assert run("agent", "--config", file).exit_code == 0
    (level, warnings), _ = log_problems.call_args
    assert level == "warning"
    assert [warning.key for warning in warnings] == ["import.allow"]


@pytest.mark.parametrize(
    ("command", "purpose"), [("agent", "change the kernel's routes"), ("flush", "remove the kernel's routes")]
)
def test_without_net_admin_it_ends_with_a_sentence(file: Path, command: str, purpose: str) -> None:
    program = [sys.executable, "-m", "bgpd", command, "--config", str(file)]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"podbgpd: the capability CAP_NET_ADMIN is needed to {purpose}")
    assert done.stderr.count("\n") == 1


def test_flush_leaves_a_running_agent_alone(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file.with_name("api.sock")))
        server.listen()
        result = run("flush", "--config", file)
    assert result.exit_code == 1
    assert "podbgp shutdown --flush" in result.stderr


def test_a_socket_that_a_killed_agent_left_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    assert not agent_answers(f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not agent_answers(f"unix://{path}")
        server.listen()
        assert agent_answers(f"unix://{path}")
    assert not agent_answers(f"unix://{path}")


def test_an_agent_on_a_tcp_port_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        assert agent_answers(listen)
    assert not agent_answers(listen)


def test_not_knowing_whether_an_agent_runs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PodbgpError, match="can't tell whether an agent runs"):
        agent_answers(f"unix://{tmp_path}/file/api.sock")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], LabOptions()),
        (["--fabric", "frr", "--nodes", "5", "--pods", "1"], LabOptions("frr", nodes=5, pods_per_node=1)),
        (["--keep", "--ipv4-only", "--timeout", "9"], LabOptions(keep=True, dual_stack=False, timeout=9)),
    ],
)
def test_lab_options(monkeypatch: pytest.MonkeyPatch, words: list[str], options: LabOptions) -> None:
    run_lab = Mock(return_value=3)
    monkeypatch.setattr("bgpd.lab.run.run_lab", run_lab)
    assert run("lab", *words).exit_code == 3
    run_lab.assert_called_once_with(options)


@pytest.mark.parametrize(("words", "name"), [(["--remove"], ""), (["--remove", "lab-3f9c"], "lab-3f9c")])
def test_lab_removal(monkeypatch: pytest.MonkeyPatch, words: list[str], name: str) -> None:
    remove_labs = Mock(return_value=0)
    monkeypatch.setattr("bgpd.lab.run.remove_labs", remove_labs)
    assert run("lab", *words).exit_code == 0
    remove_labs.assert_called_once_with(name)
