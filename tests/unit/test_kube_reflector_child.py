"""The reflector beside an agent: started, told to leave, and never the agent's own end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bgpd.config_file import load_host
from bgpd.kube import reflector_child
from bgpd.kube.options import KubeOptions
from bgpd.kube.reflector_child import ReflectorChild, command
from tests.unit.test_kube_follower import until

OPTIONS = KubeOptions(load_host(None, "agent"), "n1")
NOTES = (
    "import sys; open(sys.argv[1], 'a').write('begun '); open(sys.argv[1], 'a').write(sys.stdin.readline())"
)


def keep(
    monkeypatch: pytest.MonkeyPatch, words: list[str], story: Callable[[ReflectorChild], Awaitable[None]]
) -> None:
    monkeypatch.setattr(reflector_child, "command", lambda _: words)
    monkeypatch.setattr(reflector_child, "FIRST_WAIT", 0.01)

    async def main() -> None:
        child = ReflectorChild(OPTIONS)
        keeping = asyncio.create_task(child.keep())
        child.want(wanted=True)
        await story(child)
        assert not keeping.done()
        keeping.cancel()
        await asyncio.wait([keeping])

    asyncio.run(main())


async def begun(notes: Path) -> None:
    await until(lambda: notes.exists() and notes.read_text() == "begun ")


def test_one_that_is_wanted_no_more_is_told_to_leave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notes = tmp_path / "notes"

    async def story(child: ReflectorChild) -> None:
        await begun(notes)
        assert child.running
        child.want(wanted=False)
        await until(lambda: not child.running)
        assert notes.read_text() == "begun leave\n"

    keep(monkeypatch, [sys.executable, "-c", NOTES, str(notes)], story)


def test_an_agent_that_ends_closes_the_pipe_and_sees_the_reflector_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"

    async def story(_: ReflectorChild) -> None:
        await begun(notes)

    ends = f"{NOTES}; open(sys.argv[1], 'a').write('end')"
    keep(monkeypatch, [sys.executable, "-c", ends, str(notes)], story)
    assert notes.read_text() == "begun end"


def test_an_agent_that_leaves_for_good_has_the_reflector_leave_for_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"

    async def story(child: ReflectorChild) -> None:
        await begun(notes)
        child.leave()

    keep(monkeypatch, [sys.executable, "-c", NOTES, str(notes)], story)
    assert notes.read_text() == "begun leave\n"


def test_a_host_that_can_start_nothing_more_does_not_end_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    async def refuses(*_: object, **__: object) -> object:
        tried.append(1)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuses)

    async def story(child: ReflectorChild) -> None:
        await until(lambda: len(tried) > 1)
        assert not child.running

    keep(monkeypatch, ["podbgpd"], story)


def test_the_reflector_follows_what_its_agent_follows() -> None:
    words = command(OPTIONS)
    assert words[1:7] == ["-m", "bgpd", "reflector", "--kubernetes", "--with-parent", "--node"]
