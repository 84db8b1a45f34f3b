"""What the ports of VIFs have received and sent, asked of the controller, against the frames that a lab has sent."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ovsctl.ovsdb import Select
from tests.forked import fork_vnet
from tests.labs import SharedLab
from tests.polling import until
from tests.servers import end, free_port, run_dir
from tests.vnet.packets.moves import HOSTS, PEERS, VIF, A, B, C, Moves, moves, udp
from vnet.cli.main import cli
from vnet.client import AsyncClient
from vnet.db.accounting import FIELDS

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


async def accounts(pool: Moves) -> dict[str, int]:
    """The moving VIF's account, by the names of what it counts."""
    async with AsyncClient(f"unix:{pool.lab.daemons.controller_socket}") as client:
        account = (await client.accounting(VIF.id)).vifs[VIF.id]
    return {name: getattr(account, name) for name in FIELDS}


async def announced(pool: Moves) -> bool:
    return (await accounts(pool))["from_vm_outside_packets"] > 1


async def test_an_account_tells_the_pool_from_outside_and_goes_with_the_vm(shared_lab: SharedLab) -> None:
    async with moves(shared_lab, "vlan") as pool:
        daemons, elsewhere = pool.lab.daemons, "0c:00:00:00:00:01"
        station = pool.lab.station("trunk0", 120)
        for host in HOSTS:
            daemons.kill(host)
            daemons.start_agent(host, pool.lab.ovs(host), options=("--account-interval", "1"))
        await asyncio.to_thread(daemons.settle)
        out, back = udp(VIF, elsewhere), Ether(src=elsewhere, dst=VIF.mac) / IP() / UDP() / Raw(b"!" * 40)
        # What guests and agents have announced is in the account that has this frame, too.
        await asyncio.to_thread(pool.lab.send, VIF.id, [out])
        await until(lambda: announced(pool), "the first account")
        wanted = await accounts(pool)

        async def counted() -> bool:
            found = await accounts(pool)
            more = [found[name] - wanted[name] for name in FIELDS]
            # The port that it leaves gets what its new host announces, until the source knows.
            assert max(more) <= 0 or more in ([0] * 8, [*[0] * 4, 1, 64, 0, 0]), more
            return min(more) == 0

        async def exchange(frames: int) -> None:
            """With a VIF on the other host, and with the station: each as many frames."""
            peer = PEERS[C]
            for source, packet, to, way in (
                (VIF.id, udp(VIF, peer.mac), peer.id, "from_vm_pool"),
                (VIF.id, out, station.name, "from_vm_outside"),
                (peer.id, udp(peer, VIF.mac), VIF.id, "to_vm_pool"),
                (station, back, VIF.id, "to_vm_outside"),
            ):
                sent = await asyncio.to_thread(pool.lab.send, source, [packet] * frames)
                assert sent.at(to) == [bytes(packet)] * frames
                wanted[f"{way}_packets"] += frames
                # From a VLAN a frame comes with its tag.
                wanted[f"{way}_bytes"] += frames * (len(packet) + 4 * way.startswith("to_vm"))
            await until(counted, f"{wanted}")

        await exchange(2)
        await pool.prepare()
        await pool.run(B, False)
        await pool.state(B, "active")
        await pool.finish()
        await asyncio.to_thread(daemons.settle)
        await exchange(3)
        daemons.kill("controller")
        daemons.start_controller()
        await exchange(1)
        command = ["--controller", f"unix:{daemons.controller_socket}", "vif", "traffic", VIF.id]
        _, shown = (await asyncio.to_thread(CliRunner().invoke, cli, command)).output.splitlines()
        assert shown.split()[:3] == [VIF.id, str(wanted["from_vm_pool_bytes"]), str(wanted["from_vm_outside_bytes"])]
        for host in HOSTS:
            daemons.kill(host)
            daemons.start_agent(host, pool.lab.ovs(host))
        await asyncio.to_thread(daemons.settle)
