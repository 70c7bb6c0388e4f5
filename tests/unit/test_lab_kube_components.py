"""Which Kubernetes components the lab takes, and what it says where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgpd.lab import kube_components
from bgpd.lab.command import LabError
from bgpd.lab.kube_components import ASSETS_VARIABLE, find_components, have_components


def program(folder: Path, name: str, says: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


@pytest.fixture(autouse=True)
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `make kube` keeps what it builds; empty."""
    folder = tmp_path / "built"
    monkeypatch.setattr(kube_components, "BUILT", folder)
    monkeypatch.setattr(kube_components, "CNI_PLUGINS", tmp_path)
    monkeypatch.delenv(ASSETS_VARIABLE, raising=False)
    return folder


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "assets"
    monkeypatch.setenv(ASSETS_VARIABLE, str(folder))
    return folder


def test_without_any_it_says_what_to_do(built: Path) -> None:
    with pytest.raises(LabError, match=rf"no kube-apiserver in {built}: run `make kube`.*{ASSETS_VARIABLE}"):
        find_components()
    assert not have_components()


@pytest.mark.parametrize("missing", ["kube-apiserver", "etcd"])
def test_a_folder_of_envtest_must_be_whole(assets: Path, missing: str) -> None:
    for name in {"kube-apiserver", "etcd"} - {missing}:
        program(assets, name, "Kubernetes v1.36.1")
    with pytest.raises(LabError, match=f"{assets}, where there is no {missing} that can be run"):
        find_components()


@pytest.mark.parametrize(
    ("says", "version", "gated"),
    [("Kubernetes v1.20.2", (1, 20), True), ("Kubernetes v1.36.1", (1, 36), False)],
)
def test_a_folder_of_envtest_is_taken_before_what_was_built(
    assets: Path, built: Path, says: str, version: tuple[int, int], gated: bool
) -> None:
    program(built, "kube-apiserver", "Kubernetes v1.20.2")
    program(assets, "kube-apiserver", says)
    program(assets, "etcd")
    found = find_components()
    assert (found.apiserver, found.etcd) == (assets / "kube-apiserver", assets / "etcd")
    assert (found.version, bool(found.gates)) == (version, gated)
    assert found.controller_manager is None
    assert not have_components()


def test_the_whole_set_is_needed_for_services(assets: Path) -> None:
    for name in ("kube-apiserver", "etcd", "kube-controller-manager"):
        program(assets, name, "Kubernetes v1.20.2")
    assert not have_components()
    program(assets, "kube-proxy")
    assert have_components()


def test_what_is_no_api_server_is_named(assets: Path) -> None:
    program(assets, "kube-apiserver", "usage: something else")
    program(assets, "etcd")
    with pytest.raises(LabError, match="says 'usage: something else"):
        find_components()
