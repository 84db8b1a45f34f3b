"""Documents through the API of a real controller: planned, applied once, refused when the pool changed, followed by hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.vnet.controller.daemons import DOCUMENT, Controller, controller
from tests.vnet.controller.databases import FakeAgent
from vnet.client import AsyncClient, Conflict, Invalid, VifSpec, VmSpec
from vnet.db.database import PoolDatabase

WITH_VM = DOCUMENT + b"vms: {web1: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.10]}]}}\n"


@pytest.fixture
def running(ovs: None) -> Iterator[Controller]:
    with controller() as made:
        yield made


async def apply(client: AsyncClient, document: bytes) -> int:
    """Apply; how many changes that was."""
    return len((await client.apply(document, wait_s=0)).plan.changes)


async def test_twice_is_once_and_taking_it_back_leaves_nothing(client: AsyncClient) -> None:
    before = await client.networks(), await client.hosts()
    assert await apply(client, WITH_VM) == 2
    first = await client.vif("web1/0")
    pool = await client.pool()
    assert await apply(client, WITH_VM) == 0
    assert (await client.vif("web1/0"), await client.pool()) == (first, pool)
    assert await apply(client, DOCUMENT) == 2
    assert (await client.networks(), await client.hosts(), await client.vms()) == (*before, [])


async def test_an_export_applies_to_nothing(client: AsyncClient) -> None:
    await apply(client, WITH_VM)
    assert await apply(client, (await client.export()).encode()) == 0


async def test_what_the_toolstack_made_stays(client: AsyncClient) -> None:
    await client.put_vif("theirs", VifSpec(network="tenant"))
    await apply(client, WITH_VM)
    await apply(client, DOCUMENT)
    assert [vif.id for vif in await client.vifs()] == ["theirs"]
    with pytest.raises(Invalid, match="theirs"):
        await apply(client, DOCUMENT.replace(b"  tenant: {type: vxlan}\n", b""))
    assert "tenant" in {network.name for network in await client.networks()}


async def test_a_plan_is_refused_once_the_pool_changed(client: AsyncClient) -> None:
    planned = await client.plan(WITH_VM)
    await client.put_vm("meanwhile", VmSpec())
    with pytest.raises(Conflict, match="plan again") as caught:
        await client.apply(WITH_VM, revision=planned.revision, wait_s=0)
    assert caught.value.code == "stale-revision"
    assert [vm.name for vm in await client.vms()] == ["meanwhile"]


async def test_of_two_applies_of_one_plan_one_holds(client: AsyncClient) -> None:
    revision = (await client.plan(WITH_VM)).revision
    other = WITH_VM.replace(b"10.1.0.10", b"10.1.0.11")
    results = await asyncio.gather(
        *(client.apply(document, revision=revision, wait_s=0) for document in (WITH_VM, other)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, Conflict)]
    assert len(refused) == 1
    assert refused[0].code == "stale-revision"
    assert (await client.pool()).revision == revision + 1


async def test_a_bad_document_is_refused_with_every_problem_and_its_place(client: AsyncClient) -> None:
    before = await client.pool()
    bad = DOCUMENT.replace(b"type: vxlan", b"type: vxlam").replace(b"tag: 120", b"tag: 5000")
    with pytest.raises(Invalid) as caught:
        await client.apply(bad, "bad.vnet.yaml")
    problems = caught.value.problem.problems
    assert [(problem.file, problem.line) for problem in problems] == [("bad.vnet.yaml", 9), ("bad.vnet.yaml", 10)]
    assert "bad.vnet.yaml:9:" in str(caught.value)
    assert await client.pool() == before


async def test_apply_waits_for_live_hosts_and_names_the_rest(client: AsyncClient, pool: PoolDatabase) -> None:
    one, two = FakeAgent(pool, "xen1", client), FakeAgent(pool, "xen2", client)
    await one.beat(1)
    await two.beat(1)
    generation = (await client.pool()).generation + 1
    lines: list[str] = []
    waiting = asyncio.create_task(client.apply(WITH_VM, wait_s=20, progress=lines.append))
    await pool.wait_for(lambda view: view.state.pool and view.state.pool.generation == generation, 10)
    await one.beat(generation)
    await pool.wait_for(lambda _: any("1 of 2" in line for line in lines), 10)
    assert not waiting.done()
    await two.beat(generation)
    applied = await asyncio.wait_for(waiting, 10)
    assert (applied.acknowledged, applied.waiting, applied.dead) == (["xen1", "xen2"], [], ["xen3"])
    late = await client.apply(DOCUMENT, wait_s=0)
    assert (late.acknowledged, late.waiting, late.dead) == ([], ["xen1", "xen2"], ["xen3"])
    assert [host.agent.behind for host in await client.hosts()] == [1, 1, 0]


async def test_a_bound_vif_goes_with_its_document(client: AsyncClient, pool: PoolDatabase) -> None:
    await apply(client, WITH_VM)
    await FakeAgent(pool, "xen1", client).claim("web1/0")
    assert await apply(client, WITH_VM) == 0
    await apply(client, DOCUMENT)
    assert await client.bindings() == []


PROMISES = (
    WITH_VM.replace(b"vms: {", b"vms: {db1: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.11]}]}, ")
    + b"expectations: [{name: web reaches db, from: web1/0, to: db1/0, expect: reachable}]\n"
)


async def test_an_apply_that_breaks_what_holds_is_refused_unless_forced(client: AsyncClient) -> None:
    await apply(client, PROMISES)
    apart = PROMISES.replace(b"vifs: [{network: tenant, addresses: [10.1.0.11]}]", b"vifs: [{network: apart}]")
    apart = apart.replace(b"networks:", b"networks:\n  apart: {type: internal}", 1)
    planned = await client.plan(apart, reachability=True)
    assert [(one.name, one.held, one.holds) for one in planned.expectations] == [("web reaches db", True, False)]
    assert "web1/0" in planned.expectations[0].why
    assert {(one.gained, *one.sources, *one.targets) for one in planned.reachability or ()} == {
        (False, "web1/0", "db1/0"),
        (False, "db1/0", "web1/0"),
    }
    with pytest.raises(Conflict, match="web reaches db"):
        await client.apply(apart, wait_s=0)
    assert (await client.vif("db1/0")).network == "tenant"
    await client.apply(apart, wait_s=0, force=True)
    assert (await client.vif("db1/0")).network == "apart"
    # What does not hold already is told, and refused no more.
    assert [(one.held, one.holds) for one in (await client.plan(apart)).expectations] == [(False, False)]
    assert len((await client.apply(apart, wait_s=0)).plan.changes) == 0


POLICY = (
    PROMISES.replace(b"addresses: [10.1.0.11]", b"addresses: [10.1.0.11], security-groups: [db]")
    + b"security-groups:\n  db: {rules: [{name: ping, direction: ingress, protocol: icmp, remote: 10.1.0.0/24}]}\n"
)


async def test_a_policy_is_applied_exported_and_kept_from_breaking_what_holds(client: AsyncClient) -> None:
    first = await client.plan(POLICY)
    assert [(one.held, one.holds) for one in first.expectations] == [(True, True)]
    assert await apply(client, POLICY) == 6
    (group,) = await client.security_groups()
    assert (group.name, group.number, group.owner, group.vifs) == ("db", 1, "document", 1)
    assert (await client.vif("db1/0")).security_groups == ["db"]
    assert await apply(client, POLICY) == 0
    assert await apply(client, (await client.export()).encode()) == 0

    tighter = POLICY.replace(b"remote: 10.1.0.0/24", b"remote: 10.1.0.64/26")
    planned = await client.plan(tighter, reachability=True)
    assert [change.kind for change in planned.changes] == ["security-group"]
    assert [(one.held, one.holds) for one in planned.expectations] == [(True, False)]
    assert {(one.gained, *one.sources, *one.targets) for one in planned.reachability or ()} == {
        (False, "web1/0", "db1/0")
    }
    with pytest.raises(Conflict, match="web reaches db"):
        await client.apply(tighter, wait_s=0)
    await client.apply(tighter, wait_s=0, force=True)
    rules = (await client.security_group("db")).rules
    assert [(rule.name, rule.remote) for rule in rules] == [("ping", "10.1.0.64/26")]

    with pytest.raises(Conflict, match="the document's"):
        await client.set_security_groups("db1/0", [])
    await client.put_vif("theirs", VifSpec(network="tenant", security_groups=["db"]))
    with pytest.raises(Invalid, match="security group db is not in the document, and cannot go"):
        await client.apply(DOCUMENT, wait_s=0)
    await client.delete_vif("theirs")
    await apply(client, DOCUMENT)
    assert await client.security_groups() == []


async def test_an_expectation_about_what_is_not_there_yet_did_not_hold(client: AsyncClient) -> None:
    groups = b"security-groups: {shut: {}, nobody: {}}\n"
    vifs = b"vms: {a: {host: xen1, vifs: [{network: tenant, security-groups: [shut]}]}, b: {host: xen1, vifs: [{network: tenant}]}}\n"
    asked = b"expectations: [{from: b, to: shut, expect: reachable}, {from: b, to: nobody, expect: reachable}]\n"
    planned = await client.plan(DOCUMENT + groups + vifs + asked)
    assert [(one.held, one.holds) for one in planned.expectations] == [(False, False), (True, True)]
