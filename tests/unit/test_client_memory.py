"""Which clients a reflector remembers: the file is whole or it is the old one, and no file stops a start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bgpd import client_memory
from bgpd.client_memory import ClientMemory
from routes.path import PeerName
from tests.fakes.reflector_here import logged

A, B = PeerName("192.0.2.1"), PeerName("2001:db8::2")


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "clients"
    ClientMemory(str(file)).store([B, A])
    assert ClientMemory(str(file)).load() == frozenset({A, B})
    assert [each.name for each in file.parent.iterdir()] == ["clients"]


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    memory = ClientMemory(str(tmp_path / "clients"))
    memory.store([A])
    (tmp_path / "clients").unlink()
    memory.store([A])
    assert not (tmp_path / "clients").exists()
    memory.store([A, B])
    assert (tmp_path / "clients").exists()


def test_without_a_path_nobody_is_remembered() -> None:
    memory = ClientMemory("")
    memory.store([A])
    assert memory.load() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"clients": 5}', b'{"clients": [5]}', b"\xff\xfe", b'{"clients": ["' + b"x" * 99],
)
def test_a_file_that_is_not_ours_costs_a_warning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clients").write_bytes(content)
    with logged() as lines:
        assert ClientMemory(str(tmp_path / "clients")).load() is None
    assert [line["log_level"] for line in lines] == ["warning"]


def test_a_missing_file_is_a_first_start(tmp_path: Path) -> None:
    with logged() as lines:
        assert ClientMemory(str(tmp_path / "clients")).load() is None
    assert lines == []


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_memory, "MOST_BYTES", 10)
    (tmp_path / "clients").write_text('{"clients": []}')
    with logged() as lines:
        assert ClientMemory(str(tmp_path / "clients")).load() is None
    assert len(lines) == 1


def test_a_write_that_fails_leaves_the_old_file_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = ClientMemory(str(tmp_path / "clients"))
    memory.store([A])

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, logged() as lines:
        patched.setattr(os, "replace", refuse)
        memory.store([A, B])
    assert len(lines) == 1
    assert ClientMemory(str(tmp_path / "clients")).load() == frozenset({A})
    memory.store([A, B])
    assert ClientMemory(str(tmp_path / "clients")).load() == frozenset({A, B})
