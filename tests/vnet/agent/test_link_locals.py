"""Link-local addresses that guests choose, as agents grant them: on a real Open vSwitch and a real pool database."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import Ether

from ovsctl.ovsdb import Select, Update
from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, PoolUnderTest, now_ms, pool_of, vif
from vnet.agent.link_locals import AT_ONCE
from vnet.compile.guard import WATCHED
from vnet.objects import Vif
from vnet.objects.link_local import MAX_LINK_LOCALS, link_local

pytestmark = pytest.mark.usefixtures("ovs")

CHOICE = "fe80::1234"


def locked(number: int) -> Vif:
    return replace(vif(number), addresses=(f"10.1.0.{number}", f"fd00::{number}"))


def asks(host: HostUnderTest, number: int, address: str) -> None:
    """Duplicate address detection of a guest at port p<number>."""
    frame = Ether(src=vif(number).mac, dst="33:33:ff:00:00:01") / IPv6(src="::", dst="ff02::1:ff00:1", hlim=255)
    host.switch.appctl("netdev-dummy/receive", f"p{number}", bytes(frame / ICMPv6ND_NS(tgt=address)).hex())


async def started(pool: PoolUnderTest, **at: int) -> None:
    """A VIF with that number on each of these hosts."""
    await pool.insert(*(locked(number) for number in at.values()))
    for host, number in at.items():
        pool.hosts[host].add_port(f"p{number}", f"vm{number}/0")
        await pool.wait_ready(f"vm{number}/0", host)


async def choices(pool: PoolUnderTest, number: int, host: str) -> list[str]:
    binding = (await pool.bindings()).get((f"vm{number}/0", host))
    return [entry.address for entry in binding.link_locals] if binding is not None else []


def passes(host: HostUnderTest, address: str) -> int:
    """How many VIFs' flows let frames from an address pass."""
    return sum(f"ipv6_src={address} actions=resubmit" in flow for flow in host.flows("table=10"))


async def has(pool: PoolUnderTest, number: int, host: str, *addresses: str) -> None:
    async def known() -> bool:
        return await choices(pool, number, host) == [*addresses]

    await until(known, f"vm{number}/0 has {addresses} on {host}")
    await until(lambda: all(passes(pool.hosts[host], address) for address in addresses), "flows that let it pass")


async def refused(host: HostUnderTest, number: int, text: str) -> None:
    await until(lambda: text in host.agent.problems.get(f"vif vm{number}/0", ""), f"it is told: {text}")


async def test_the_first_has_it_and_the_other_is_told() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await started(pool, xen1=1, xen2=2)
        xen1, xen2 = pool.hosts["xen1"], pool.hosts["xen2"]
        asks(xen1, 1, CHOICE)
        await has(pool, 1, "xen1", CHOICE)
        await until(lambda: xen2.agent.compiler.view.bindings_of("tenant", "vm1/0")[0].link_locals, "xen2 has heard")
        for frames in (1, 2):
            asks(xen2, 2, CHOICE)
            await refused(xen2, 2, f"chose {CHOICE}, which VIF vm1/0 has: {frames} frames dropped")
        asks(xen2, 2, link_local(vif(1).mac))
        await refused(xen2, 2, f"chose {link_local(vif(1).mac)}, which VIF vm1/0 has: 1 frames dropped")
        assert await choices(pool, 2, "xen2") == []
        assert not passes(xen2, CHOICE)

        async def written() -> bool:
            (rows,) = await pool.client.transact(Select("Agent", (("host", "==", "xen2"),)))
            return "which VIF vm1/0 has" in rows[0]["problems"].get("vif vm2/0", "")

        await until(written, "status says so")
        assert {"link-local", "problem"} <= await pool.events()


async def test_two_hosts_that_granted_it_at_once_keep_one() -> None:
    """Each had granted it before it heard of the other; the earlier choice stays, whichever host sees it first."""
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await started(pool, xen1=1, xen2=2)
        xen1, xen2 = pool.hosts["xen1"], pool.hosts["xen2"]
        asks(xen2, 2, CHOICE)
        await has(pool, 2, "xen2", CHOICE)
        await until(lambda: xen1.agent.compiler.view.bindings_of("tenant", "vm2/0")[0].link_locals, "xen1 has heard")
        # As xen1's agent would have written it, had it not known yet.
        row = (("vif", "==", "vm1/0"),)
        await pool.client.transact(Update("Binding", row, {"link_locals": {CHOICE: 1}}))
        await has(pool, 2, "xen2")
        await has(pool, 1, "xen1", CHOICE)
        await refused(xen2, 2, f"chose {CHOICE}, which VIF vm1/0 has")
        await until(lambda: not passes(xen2, CHOICE), "its flow is gone")
        # A VIF that comes with the address by declaration has it before anybody who chose it.
        await pool.update("Vif", ("id", "vm2/0"), addresses=frozenset({"10.1.0.2", "fd00::2", CHOICE}))
        await has(pool, 1, "xen1")
        await until(lambda: passes(xen2, CHOICE), "its owner sends from it")
        await until(lambda: not passes(xen1, CHOICE), "its flow is gone")


async def test_an_address_that_went_from_its_holder_to_another_is_still_a_neighbours() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await started(pool, xen1=1, xen2=2)
        xen1, xen2 = pool.hosts["xen1"], pool.hosts["xen2"]
        await pool.insert(locked(3))
        xen1.add_port("p3", "vm3/0")
        await pool.wait_ready("vm3/0", "xen1")
        asks(xen1, 1, CHOICE)
        await has(pool, 1, "xen1", CHOICE)
        await until(lambda: xen2.agent.compiler.view.bindings_of("tenant", "vm1/0")[0].link_locals, "xen2 has heard")
        asks(xen2, 2, CHOICE)
        await refused(xen2, 2, "which VIF vm1/0 has")
        await pool.client.transact(
            Update("Binding", (("vif", "==", "vm1/0"),), {"link_locals": {}}),
            Update("Binding", (("vif", "==", "vm3/0"),), {"link_locals": {CHOICE: 1}}),
        )
        await until(lambda: xen2.agent.compiler.view.bindings_of("tenant", "vm3/0")[0].link_locals, "xen2 has heard")
        asks(xen2, 2, CHOICE)
        await refused(xen2, 2, "which VIF vm3/0 has")
        assert await choices(pool, 2, "xen2") == []


async def test_a_restarted_agent_changes_no_flow() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await started(pool, xen1=1)
        host = pool.hosts["xen1"]
        asks(host, 1, CHOICE)
        await has(pool, 1, "xen1", CHOICE)
        before = host.flows()
        await host.stop()
        host.start()
        await until(lambda: host.agent.flows.connected and host.agent.rows.settled, "the new agent")
        assert host.agent.flows.messages == 0
        assert host.flows() == before
        assert await choices(pool, 1, "xen1") == [CHOICE]


async def test_a_guest_chooses_so_many_and_no_more_at_once() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await started(pool, xen1=1)
        host = pool.hosts["xen1"]
        clock = Mock(return_value=now_ms())
        host.agent.link_locals._now_ms = clock  # type: ignore[misc]
        mine = [f"fe80::{n}" for n in range(1, MAX_LINK_LOCALS + 1)]
        for n, address in enumerate(mine, 1):
            asks(host, 1, address)
            await has(pool, 1, "xen1", *mine[:n])
        assert AT_ONCE == MAX_LINK_LOCALS
        asks(host, 1, "fe80::5")
        await refused(host, 1, "chose fe80::5, one more than it may in so short a time")
        # Ten seconds later there is one more, and the oldest goes.
        clock.return_value += 10_000
        asks(host, 1, "fe80::5")
        await has(pool, 1, "xen1", *mine[1:], "fe80::5")
        await until(lambda: not passes(host, "fe80::1"), "the oldest is not its own any more")
        assert "vif vm1/0" not in host.agent.problems


async def test_the_switch_lets_a_flood_reach_the_agent_at_five_frames_a_second() -> None:
    """What a VIF sends from addresses that are not its own costs the agent no more, and others nothing."""
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await started(pool, xen1=1)
        host = pool.hosts["xen1"]
        seen: list[bytes] = []
        host.agent.link_locals.frame_from = lambda _, __, frame: seen.append(frame)  # type: ignore[method-assign]
        frame = Ether(src=vif(1).mac, dst="33:33:00:00:00:01") / IPv6(src=CHOICE, dst="ff02::1")
        host.switch.appctl("netdev-dummy/receive", "p1", *[bytes(frame).hex()] * 100)  # at once, also on a busy machine
        ofport = host.agent.compiler.view.ports["vm1/0"]

        async def counted() -> bool:
            found = {meter.meter_id: stats for meter, stats in await host.agent.flows.metered()}
            stats = found[WATCHED | ofport]
            return stats.n_packets == 100 and len(seen) == 100 - stats.bands[0].n_packets

        await until(counted, "the agent got what the meter let pass")
        assert len(seen) < 100


async def test_what_a_vif_chose_goes_where_it_goes() -> None:
    """The destination has the flows before its port opens, and what either host grants meanwhile is the VIF's on both."""
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await started(pool, xen1=1)
        xen1, xen2 = pool.hosts["xen1"], pool.hosts["xen2"]
        asks(xen1, 1, CHOICE)
        await has(pool, 1, "xen1", CHOICE)
        await pool.update("Vif", ("id", "vm1/0"), host="xen1", incoming="xen2")
        xen2.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen2")
        await has(pool, 1, "xen2", CHOICE)
        asks(xen1, 1, "fe80::5678")
        await has(pool, 1, "xen1", CHOICE, "fe80::5678")
        await has(pool, 1, "xen2", CHOICE, "fe80::5678")
        # It has moved.
        await pool.update("Vif", ("id", "vm1/0"), host="xen2", incoming=None)
        xen1.switch.server.vsctl("del-port", "br-int", "p1")

        async def only_there() -> bool:
            return await pool.bound() == {("vm1/0", "xen2")}

        await until(only_there, "xen1 has let it go")
        await has(pool, 1, "xen2", CHOICE, "fe80::5678")
        assert passes(xen2, CHOICE)
        # Without a port anywhere it gives up what it chose.
        xen2.switch.server.vsctl("del-port", "br-int", "p1")
        await until(lambda: not xen2.agent.pool.mine, "it is nowhere")
        await pool.insert(locked(2))
        xen1.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")
        asks(xen1, 2, CHOICE)
        await has(pool, 2, "xen1", CHOICE)


async def test_nothing_is_remembered_of_a_vif_that_was_only_refused_and_goes() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await started(pool, xen1=1, xen2=2)
        asks(pool.hosts["xen2"], 2, link_local(vif(1).mac))
        link_locals = pool.hosts["xen2"].agent.link_locals
        await until(lambda: "vm2/0" in link_locals._budgets, "its question has cost it one")
        pool.hosts["xen2"].switch.server.vsctl("del-port", "br-int", "p2")
        await until(lambda: not link_locals._budgets, "nothing is left of it")
