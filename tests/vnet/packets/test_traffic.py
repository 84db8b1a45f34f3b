"""What the ports of VIFs have received and sent, asked of the controller, against the frames that a lab has sent."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from ovsctl.ovsdb import Select
from tests.forked import fork_vnet
from tests.labs import SharedLab
from tests.polling import until
from tests.servers import end, free_port, run_dir
from tests.vnet.packets.moves import PEERS, VIF, A, B, C, Moves, moves, udp

BROADCAST = "ff:ff:ff:ff:ff:ff"
pytestmark = pytest.mark.usefixtures("netns")


async def counted(pool: Moves, vif: str = "") -> dict[str, Any]:
    transport = httpx.AsyncHTTPTransport(uds=str(pool.lab.daemons.controller_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        answer = await http.get("/v1/traffic", params={"vif": vif} if vif else {})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["missing"] == {}
    return found  # type: ignore[no-any-return]


def sent(found: dict[str, Any], source: str) -> dict[str, tuple[int, int]]:
    """What a host has sent through tunnels: packets and bytes, by the host that they went to."""
    return {each["to"]: (each["packets"], each["bytes"]) for each in found["tunnels"] if each["source"] == source}


async def test_counters_are_of_the_frames_that_a_vm_sent_and_got(shared_lab: SharedLab) -> None:
    async with moves(shared_lab, "vx") as pool:
        peer = PEERS[B]
        before = {vif: (await counted(pool, vif))["vifs"][vif] for vif in (VIF.id, peer.id)}
        frames = [bytes(udp(VIF, peer.mac))] * 5
        delivered = await asyncio.to_thread(pool.lab.send, VIF.id, frames)
        assert delivered.to == [peer.id] * 5
        after = {vif: (await counted(pool, vif))["vifs"][vif] for vif in (VIF.id, peer.id)}
        assert (after[VIF.id]["host"], after[peer.id]["host"]) == (A, B)

        def more(vif: str, name: str) -> int:
            return int(after[vif][name] - before[vif][name])

        size = sum(map(len, frames))
        assert (more(VIF.id, "from_vm_packets"), more(VIF.id, "from_vm_bytes"), more(VIF.id, "to_vm_packets")) == (
            5,
            size,
            0,
        )
        assert (more(peer.id, "to_vm_packets"), more(peer.id, "to_vm_bytes"), more(peer.id, "from_vm_packets")) == (
            5,
            size,
            0,
        )
        assert after[VIF.id]["at"] > before[VIF.id]["at"]
        assert (await counted(pool))["vifs"].keys() == {VIF.id, *(other.id for other in PEERS.values())}
        assert not (await pool.client.transact(Select("TrafficQuery")))[0], "no question is left"


async def test_counters_of_tunnels_are_of_what_went_to_each_host(shared_lab: SharedLab) -> None:
    """Agents and guests make themselves heard on all hosts, now and then: what goes to one alone is told by the difference."""
    async with moves(shared_lab, "gnv") as pool:
        peer = PEERS[B]
        one, everyone = bytes(udp(VIF, peer.mac)), bytes(udp(VIF, BROADCAST)) + bytes(900)
        delivered = await asyncio.to_thread(pool.lab.send, VIF.id, [one] * 5)
        assert delivered.to == [peer.id] * 5
        await asyncio.to_thread(pool.lab.send, VIF.id, [everyone] * 2)

        async def as_sent() -> bool:
            found = sent(await counted(pool), A)
            to_b, to_c = found.get(B, (0, 0)), found.get(C, (0, 0))
            return (to_b[0] - to_c[0], to_b[1] - to_c[1]) == (5, 5 * len(one)) and to_c[1] >= 2 * len(everyone)

        await until(as_sent, "what host A sent to B and to C")  # the switch brings its counters up to date by and by
        assert B not in sent(await counted(pool), B)
        assert (await counted(pool, VIF.id))["tunnels"] == [], "whoever asks for a VIF does not ask for them"


async def test_a_lab_serves_its_page_to_who_has_the_token_that_it_prints(shared_lab: SharedLab) -> None:
    with shared_lab.lent() as lab, run_dir() as path:
        port = free_port()
        command = ["lab", "web", "--name", lab.spec.name, "--port", str(port)]
        serving = fork_vnet(command, log=path / "log")
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

                async def answers() -> bool:
                    try:
                        return (await http.get("/")).status_code == 200
                    except httpx.ConnectError:
                        return False

                await until(answers, "the page")
                token = (path / "log").read_text().splitlines()[1]
                assert (await http.get("/v1/status")).status_code == 401
                answer = await http.get("/v1/status", headers={"Authorization": f"Bearer {token}"})
                assert answer.json()["hosts"] == 3
        finally:
            end(serving)
