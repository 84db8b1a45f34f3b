"""Agents that reach the pool database by TLS: plugs, and renewal of every certificate while a VIF runs."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ovsctl.ovsdb import Select
from tests.authorities import LIFE, TestAuthority
from tests.polling import until
from tests.servers import run
from tests.vnet.agent.pool import TENANT, pool_of, vif

pytestmark = pytest.mark.usefixtures("ovs")


async def test_plugs_go_on_through_renewals_and_change_no_flow(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    async with pool_of("xen1", networks=[TENANT], authority=authority) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1), vif(2))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        before = host.flows()
        lost: list[bool] = []
        host.agent.pool_client.on_connection_change(lost.append)
        authority.server()
        authority.host("xen1")
        pool.server.restart()  # every connection is made anew, with the new certificates
        await until(lambda: lost == [False, True], "the agent's new connection")
        assert host.flows() == before
        host.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")


async def test_an_agent_with_an_expired_certificate_keeps_its_flows_and_comes_back_with_a_new_one(
    tmp_path: Path,
) -> None:
    authority = TestAuthority(tmp_path)
    async with pool_of("xen1", networks=[TENANT], authority=authority) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(vif(1), vif(2))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        before = host.flows()
        authority.host("xen1", LIFE + timedelta(hours=2))
        pool.server.restart()
        await until(lambda: "certificate verify failed" in pool.server.log.read_text(), "the refusal")
        assert host.flows() == before
        authority.host("xen1")
        host.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")


def test_an_agent_never_loads_the_library_that_makes_certificates(tmp_path: Path) -> None:
    """It is the controllers' alone: an agent's package comes without it. What an agent runs with is loaded by now."""
    TestAuthority(tmp_path).server()
    code = f"""
import sys
from pathlib import Path
from vnet.util.transport import tls_for
import vnet.agent.daemon, vnet.cli.agent, vnet.cli.main
assert tls_for(["ssl:127.0.0.1:1"], Path({str(tmp_path)!r}), "server")
print(sorted(name for name in sys.modules if name.split(".")[0] in ("cryptography", "uvicorn", "starlette")))
"""
    assert run(sys.executable, "-c", code) == "[]\n"


async def test_a_host_says_in_its_own_row_that_it_has_programmed_anothers_binding(tmp_path: Path) -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT], authority=TestAuthority(tmp_path)) as pool:
        await pool.insert(vif(1, host="xen1"))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await pool.update("Vif", ("id", "vm1/0"), incoming="xen2")
        pool.hosts["xen2"].add_port("p1", "vm1/0")
        held = await pool.wait_ready("vm1/0", "xen2")

        async def acked() -> dict[str, str]:
            (rows,) = await pool.client.transact(Select("Agent", (("host", "==", "xen1"),), ("acked",)))
            return dict(rows[0]["acked"])

        async def said() -> bool:
            return await acked() == {"vm1/0": f"xen2 {held.epoch}"}

        await until(said, "the acknowledgement")
        await pool.update("Vif", ("id", "vm1/0"), incoming=None)
        pool.hosts["xen2"].switch.server.vsctl("del-port", "br-int", "p1")

        async def forgotten() -> bool:
            return await acked() == {}

        await until(forgotten, "nobody waits for it")
        assert {host.agent.bindings.problems.get("vif vm1/0") for host in pool.hosts.values()} == {None}
