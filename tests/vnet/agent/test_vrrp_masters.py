"""The master of a virtual router is known while it advertises itself, by the switch's own counters."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.layers.vrrp import VRRPv3

from ovsctl.ovsdb import Select
from tests.polling import until
from tests.vnet.agent.pool import TENANT, pool_of, vif
from vnet.agent.vrrp_masters import HEARD_FOR

pytestmark = pytest.mark.usefixtures("ovs")


async def test_a_master_is_known_until_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vnet.agent.vrrp_masters.PERIOD_S", 3600)
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host, router = pool.hosts["xen1"], vif(1, vrrp=(10, 11))
        await pool.insert(router, vif(2))
        host.add_port("p1", "vm1/0")
        host.add_port("p2", "vm2/0")
        await pool.wait_ready("vm1/0", "xen1")
        watch = host.agent.routers
        head = Ether(src="00:00:5e:00:01:0a", dst="01:00:5e:00:00:12")
        claim = head / IP(src=router.addresses[0], dst="224.0.0.18", ttl=255, proto=112) / VRRPv3(vrid=10)

        async def advertised() -> bool:
            host.switch.appctl("netdev-dummy/receive", "p1", bytes(claim).hex())
            await watch.look()
            return watch.masters == {"vm1/0": "10"}

        async def written(masters: dict[str, str]) -> None:
            async def in_database() -> bool:
                ((row,),) = await pool.client.transact(Select("Agent", (), ("masters",)))
                return bool(row["masters"] == masters)

            await until(in_database, f"masters: {masters}")

        await until(advertised, "it is the master")
        await written({"vm1/0": "10"})
        looks = 0
        while watch.masters:
            await watch.look()
            looks += 1
        assert looks >= HEARD_FOR
        await written({})
