"""Every option of both programs is documented, and every option in the documentation exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from api.cli import main as podbgp
from bgpd.cli import main as podbgpd

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATIONS, LAB, API = ((ROOT / "docs" / name).read_text() for name in ("operations.md", "lab.md", "api.md"))
EVERYWHERE = {"--help", "--version"}
OTHERS = {
    "--allocate-node-cidrs", "--cluster-cidr", "--service-cluster-ip-range", "--validate", "--service-cidr",
    "--pod-network-cidr", "--control-plane-endpoint", "--register-with-taints",
}  # fmt: skip
"""Options of Kubernetes' programs, which the text names without them."""
TOOLS = (
    "kubectl", "kubeadm", "k3s", "kube-router", "buf", "docker", "useradd", "systemctl", ".ci/",
)  # fmt: skip
"""A command line that begins with one of these is theirs; so is a line that goes on from the one above."""
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


def options_of(command: click.Command) -> set[str]:
    options = (each for each in command.params if isinstance(each, click.Option))
    return {name for option in options for name in option.opts if name.startswith("--")}


COMMANDS = dict([*commands(podbgpd, "podbgpd"), *commands(podbgp, "podbgp")])
COMMON = options_of(podbgp) - EVERYWHERE
"""They may stand before and after the name of a command of `podbgp`."""
KNOWN = EVERYWHERE.union(*map(options_of, COMMANDS.values()))


def reference(words: str) -> str:
    """What the documentation says of one command in its reference."""
    program, *names = words.split()
    if program == "podbgp":
        return API
    if names == ["lab"]:
        return LAB.partition("\n## Options\n")[2].partition("\n## ")[0]
    text = OPERATIONS.partition("\n### Command line\n")[2].partition("\n### ")[0]
    if not names:
        return text.partition("\n**")[0]
    return text.partition(f"**`podbgpd {names[0]}")[2].partition("\n**")[0].partition(", and **")[0]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_in_the_reference(words: str) -> None:
    documented = set(FLAG.findall(reference(words)))
    assert options_of(COMMANDS[words]) <= documented, words


@pytest.mark.parametrize(
    "words", ["podbgpd agent", "podbgpd reflector", "podbgpd controller", "podbgpd sysctls"]
)
def test_the_reference_of_a_command_has_no_options_of_others(words: str) -> None:
    table = "\n".join(line for line in reference(words).splitlines() if line.startswith("| `"))
    first = {flag for row in table.splitlines() for flag in FLAG.findall(row.split(" | ")[0])}
    assert first == options_of(COMMANDS[words])


class Written(NamedTuple):
    """A piece of code in the documentation."""

    place: str
    text: str


def written(page: Path) -> Iterator[Written]:
    """Each line of a block, with those that it goes on in, and each span."""
    block, held = False, ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        place = f"{page.name}:{number}"
        if line.lstrip().startswith("```"):
            block, held = not block, ""
        elif block:
            held += line.strip()
            if held.endswith("\\"):
                held = held[:-1]
                continue
            for part in re.split(r"&&|;|\|\|? ", held.partition(" #")[0]):
                yield Written(place, part.strip().removeprefix("$ "))
            yield Written(place, held.partition(" #")[2].strip())
            held = ""
        else:
            for span in re.findall(r"`([^`]+)`", line):
                yield Written(place, span)


CODE = [each for page in PAGES for each in written(page) if FLAG.search(each.text)]


def faults(text: str) -> list[str]:
    """Options in a piece of code that do not exist."""
    words = text.removeprefix("/opt/podbgp/bin/").split()
    if text.lstrip("# ").startswith(TOOLS):
        return []
    if words[0] not in ("podbgp", "podbgpd"):
        return sorted(set(FLAG.findall(text)) - KNOWN - OTHERS)
    path = words[0]
    for word in words[1:]:
        path = f"{path} {word}" if f"{path} {word}" in COMMANDS else path
    allowed = options_of(COMMANDS[path]) | EVERYWHERE | (COMMON if words[0] == "podbgp" else set())
    return sorted(set(FLAG.findall(text)) - allowed)


def test_every_option_that_is_written_exists() -> None:
    assert len(CODE) > 80
    assert [(each.place, faults(each.text), each.text) for each in CODE if faults(each.text)] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("podbgp routes --table fib --output json", []),
        ("podbgp --api x watch routes --longer 10.0.0.0/8", []),
        ("podbgp status --table fib", ["--table"]),
        ("podbgpd agent --reflector-conf FILE", ["--reflector-conf"]),
        ("/opt/podbgp/bin/podbgpd check --kubernetes", ["--kubernetes"]),
        ("--cni-dirs", ["--cni-dirs"]),
        ("kubectl wait --for condition=x", []),
    ],
)
def test_a_wrong_option_is_found(text: str, wrong: list[str]) -> None:
    assert faults(text) == wrong


def test_words_of_commands_in_the_documentation_exist() -> None:
    called = {
        tuple(words[:2])
        for page in PAGES
        for each in written(page)
        if len(words := each.text.split()) > 1 and words[0] in ("podbgp", "podbgpd")
    }
    names = {(program, name) for program, name in called if re.fullmatch(r"[a-z]+", name)}
    assert {f"{program} {name}" for program, name in names} <= set(COMMANDS)
    assert {words for words in COMMANDS if words.count(" ") == 1} <= {" ".join(pair) for pair in names}
