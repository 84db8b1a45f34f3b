"""One VIF floods with new connections: it fills its own share of the tracker, is named for it, and the others notice nothing."""

from __future__ import annotations

import pytest

from ovsctl.ovsdb import Select
from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, pool_of, vif
from vnet.objects import Protocol, SecurityGroup, Verdict
from vnet.sim.packets import End, Talk

pytestmark = pytest.mark.usefixtures("ovs")

MOST = 20
SHUT = SecurityGroup("shut", 1, Verdict.DROP, Verdict.ALLOW)
SERVER = End("0a:00:00:00:00:02", "10.1.0.2")
FLOODING, OTHER = End("0a:00:00:00:00:01", "10.1.0.1"), End("0a:00:00:00:00:03", "10.1.0.3")


def zone(host: HostUnderTest, number: int) -> str:
    return str(host.agent.compiler.view.ports[f"vm{number}/0"])


def limited(host: HostUnderTest) -> set[str]:
    """The zones that have the limit."""
    text = host.switch.appctl("dpctl/ct-get-limits")
    return {line.split(",")[0] for line in text.splitlines() if f"limit={MOST}," in line}


def connections(host: HostUnderTest, number: int) -> int:
    text = host.switch.appctl("dpctl/dump-conntrack")
    return sum(f"zone={zone(host, number)}" in line.split(",") for line in text.splitlines())


async def test_a_flood_fills_its_own_share_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vnet.agent.connection_limits.MAX_CONNECTIONS", MOST)
    monkeypatch.setattr("vnet.agent.connection_limits.PERIOD_S", 0.1)
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        monkeypatch.setattr("vnet.agent.switch_access.control_socket", lambda _: host.switch.control)
        await pool.insert(SHUT)
        await pool.insert(*(vif(n, host="xen1", groups=() if n == 2 else ("shut",)) for n in (1, 2, 3)))
        for number in (1, 2, 3):
            host.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", "xen1")
        both = {f"zone={zone(host, n)}" for n in (1, 3)}
        await until(lambda: limited(host) == both, "limits of the zones in use")
        for source_port in range(50000, 50000 + 3 * MOST):
            flood = Talk(FLOODING, SERVER, Protocol.UDP, 53, source_port)
            host.switch.appctl("netdev-dummy/receive", "p1", flood.frame().hex())
        await until(lambda: "vm1/0" in host.agent.limits.problems, "a VIF at its limit")
        assert connections(host, 1) == MOST

        async def told() -> bool:
            (rows,) = await pool.client.transact(Select("Agent", (), ("problems",)))
            return f"has {MOST} connections" in rows[0]["problems"].get("vif vm1/0", "")

        await until(told, "status names it")
        talk = Talk(OTHER, SERVER, Protocol.UDP, 53)
        host.switch.appctl("netdev-dummy/receive", "p3", talk.frame().hex())
        await until(lambda: connections(host, 3) == 1, "another VIF's new connection")
        assert list(host.agent.limits.problems) == ["vm1/0"]

        host.switch.appctl("dpctl/ct-del-limits", f"zone={zone(host, 1)}")  # as a restart of ovs-vswitchd does
        await until(lambda: limited(host) == both, "the limit again")
        await pool.update("Vif", ("id", "vm1/0"), groups=frozenset())
        await until(lambda: limited(host) == both - {f"zone={zone(host, 1)}"}, "no limit for a VIF in no group")
        await until(lambda: not host.agent.limits.problems, "no problem")
