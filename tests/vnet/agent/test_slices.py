"""A plug while the rules of large groups are compiled: its flows leave first, and the rules hold all at once. By counters, not by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest

from ovsctl.openflow import FlowMod, Meter
from ovsctl.ovsdb import Update
from tests.polling import until
from tests.vnet.agent.pool import TENANT, pool_of, vif
from vnet.agent.agent import RULES_OF_A_TURN
from vnet.compile import Category, FlowSource, Key, cookie
from vnet.db.rows import to_columns
from vnet.objects import Direction, PortRange, Protocol, Rule, SecurityGroup, Verdict

pytestmark = pytest.mark.usefixtures("ovs")

GROUPS = tuple(f"g{n}" for n in range(8))
PORTS = 600  # of a group: RULES_OF_A_TURN in two of them


def group(name: str, edition: int) -> SecurityGroup:
    ports = tuple(PortRange(port, port) for port in sorted(Random(edition).sample(range(1, 60000, 3), PORTS)))
    rule = Rule("many", Direction.INGRESS, Verdict.ALLOW, Protocol.TCP, ports)
    return SecurityGroup(name, GROUPS.index(name) + 1, Verdict.ALLOW, Verdict.DROP, (rule,))


async def test_a_plug_passes_before_the_rules_that_are_being_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await pool.insert(*(group(name, 1) for name in GROUPS), replace(vif(1), groups=GROUPS), vif(2, host="xen1"))
        host = pool.hosts["xen1"]
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: "vm2/0" in host.agent.compiler.view.vifs and host.agent.rows.settled, "the VIF's row")
        log: list[str] = []
        compiler, flows = host.agent.compiler, host.agent.flows
        compile_one, change = compiler._compile, flows.change

        def compiling(source: FlowSource) -> object:
            if source.category is Category.GROUP:
                if not log:  # a port comes while the first group's rules are compiled
                    host.add_port("p2", "vm2/0")
                log.append(source.name)
            return compile_one(source)

        async def sending(changes: Mapping[Key, FlowMod | Meter | None]) -> None:
            cookies = {mod.flow.cookie for mod in changes.values() if isinstance(mod, FlowMod)}
            if cookie(Category.VIF, "vm2/0") in cookies:
                log.append("the plug leaves")
            if any(found >> 40 & 0xFF == Category.GROUP for found in cookies):
                log.append("rules leave")
            await change(changes)

        monkeypatch.setattr(compiler, "_compile", compiling)
        monkeypatch.setattr(flows, "change", sending)
        row = [Update("SecurityGroup", (("name", "==", name),), to_columns(group(name, 2))) for name in GROUPS]
        await pool.client.transact(*row, Update("Pool", (), {"generation": 7}))
        await pool.wait_ready("vm2/0", "xen1")
        await until(lambda: "rules leave" in log, "the rules")
        assert PORTS < RULES_OF_A_TURN < len(GROUPS) * PORTS
        compiled = [entry for entry in log if entry in GROUPS]
        assert compiled == [*GROUPS], "each once"
        before = log[: log.index("the plug leaves")]
        assert len(before) < len(GROUPS) - 2, f"only {before} were compiled before its flows left"
        assert log.count("rules leave") == 1, "all at once"
        assert log.index("rules leave") > log.index(GROUPS[-1])
        assert not compiler.unfinished
        await until(
            lambda: host.agent.reports._written and host.agent.reports._written.generation == 7, "the generation"
        )


async def test_a_generation_is_reported_once_all_its_rules_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await pool.insert(*(group(name, 1) for name in GROUPS), replace(vif(1), groups=GROUPS))
        host = pool.hosts["xen1"]
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        stated: list[tuple[bool, int]] = []
        state = host.agent.reports._state

        def stating(key: tuple[str, ...], statement: object) -> None:
            if key == ("generation",):
                stated.append((host.agent.compiler.unfinished, host.agent.pool.generation))
            state(key, statement)  # type: ignore[arg-type]

        monkeypatch.setattr(host.agent.reports, "_state", stating)
        row = [Update("SecurityGroup", (("name", "==", name),), to_columns(group(name, 2))) for name in GROUPS]
        await pool.client.transact(*row, Update("Pool", (), {"generation": 7}))
        await until(
            lambda: host.agent.reports._written and host.agent.reports._written.generation == 7, "the generation"
        )
        assert (False, 7) in stated
        assert not any(unfinished for unfinished, _ in stated)
