"""The configurations of docs/interoperability.md bring up a session, as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.interop.agent import password_file
from tests.interop.conftest import SPEAKERS, MakeAgent, MakeSpeaker
from tests.interop.harness.lan import LanHost
from tests.interop.harness.speaker import Neighbor

PAGE = (Path(__file__).parents[2] / "docs" / "interoperability.md").read_text()
FILES = dict(re.findall(r"^```\w+\n[#!] (/etc/\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
PATHS = {
    "frr": "/etc/frr/frr.conf",
    "bird": "/etc/bird/bird.conf",
    "gobgp": "/etc/gobgpd.conf",
    "openbgpd": "/etc/bgpd.conf",
}


@pytest.mark.parametrize("daemon", SPEAKERS)
def test_the_documented_configurations_work_together(
    make_agent: MakeAgent, make_speaker: MakeSpeaker, lan: list[LanHost], daemon: str
) -> None:
    us, them = lan
    speaker = make_speaker(daemon, them, 65001, Neighbor(us.ipv4, 65011, them.ipv4))
    speaker.text = FILES[PATHS[daemon]]
    password_file(us.folder / "router.password", "sesame")
    api = f'[api]\nlisten = "unix://{us.folder}/api.sock"\n'
    agent = make_agent(us, FILES["/etc/podbgp/agent.toml"] + api)
    speaker.start()
    agent.wait_ready()
    agent.wait_established(them.ipv4)
    seen = speaker.wait_best("10.244.1.0/24")
    assert (seen.next_hop, seen.as_path) == (us.ipv4, (65011,))
    if speaker.carries_other_family:
        assert speaker.wait_best("fd00:10:244:1::/64").next_hop == us.ipv6
    assert agent.client.status().config_error == ""
