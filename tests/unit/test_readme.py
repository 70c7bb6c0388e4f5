"""The README's files are valid, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bgpd.config_file import parse

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/configuration.md", "docs/operations.md")
CONFIGURATIONS = re.findall(
    r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


def test_it_opens_with_the_two_commands() -> None:
    first = (ROOT / "README.md").read_text().split("```")[1]
    assert re.findall(r"^make \w+", first, re.MULTILINE) == ["make demo", "make test"]


def test_the_two_nodes_of_the_quick_start_are_each_other_s_peers() -> None:
    one, two = (parse(text, "agent.toml") for text in CONFIGURATIONS)
    assert one.warnings == two.warnings == ()
    for here, there in ((one, two), (two, one)):
        assert [peer.address for peer in here.peers] == [there.speaker.listen[0].address]
        assert here.imports.allow[0].prefix.contains(there.agent.advertise[0].nlri)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target
