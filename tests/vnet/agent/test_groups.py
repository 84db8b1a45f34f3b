"""Security groups as agents follow them: which rows they hold, what waits for them, and what a move is remembered for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ovsctl.ovsdb import Delete, Insert, Select
from tests.polling import until
from tests.vnet.agent.pool import TENANT, PoolUnderTest, now_ms, pool_of, vif
from vnet.compile import Category, SourceChange
from vnet.db.rule_queries import RuleCounter, RuleReply
from vnet.objects import Binding, BindingState, Direction, PolicyMode, Protocol, Rule, SecurityGroup
from vnet.objects.tiers import Tier

pytestmark = pytest.mark.usefixtures("ovs")

HTTP = Rule("http", Direction.INGRESS, protocol=Protocol.TCP)
WEB = SecurityGroup("web", 1, rules=(Rule("from-db", Direction.INGRESS, remote=("db",)), HTTP))
DB = SecurityGroup("db", 2)
IDLE = SecurityGroup("idle", 3)


async def binding(pool: PoolUnderTest, id: str, host: str) -> Binding:
    return (await pool.bindings())[id, host]


async def test_a_host_holds_the_groups_of_its_vifs_and_no_others() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        one, two = (pool.hosts[name].agent for name in ("xen1", "xen2"))
        await pool.insert(WEB, DB, IDLE)
        await pool.insert(vif(1, host="xen1", groups=("web",)), vif(2, host="xen2", groups=("db",)))
        for number, name in ((1, "xen1"), (2, "xen2")):
            pool.hosts[name].add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", name)
        # A rule names db, but who is in it is told by bindings.
        assert (one.compiler.view.groups, two.compiler.view.groups) == ({"web": WEB}, {"db": DB})
        await until(lambda: one.compiler.view.binding("tenant", "vm2/0", "xen2"), "xen1 knows the other")
        peer = one.compiler.view.binding("tenant", "vm2/0", "xen2")
        assert peer is not None
        assert peer.groups == ("db",)

        before, asked = two.pool.rows_read, one.conditions.count
        wider = replace(WEB, rules=(HTTP,))
        await pool.update("SecurityGroup", ("name", "web"), rules={"http": '{"direction":"ingress","protocol":"tcp"}'})
        await until(lambda: one.compiler.view.groups["web"] == wider, "the rules have changed")
        assert (two.pool.rows_read, one.conditions.count) == (before, asked)

        await pool.insert(vif(3, host="xen1", groups=("web",)))
        pool.hosts["xen1"].add_port("p3", "vm3/0")
        await pool.wait_ready("vm3/0", "xen1")
        assert one.conditions.count == asked, "its group was known"


async def test_groups_that_no_vif_here_is_in_any_more_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vnet.agent.conditions.TRIM_AFTER_S", 0.05)
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        agent = pool.hosts["xen1"].agent
        await pool.insert(WEB, DB)
        await pool.insert(vif(1, host="xen1", groups=("db", "web")))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await pool.update("Vif", ("id", "vm1/0"), groups=frozenset({"db"}))
        await until(lambda: agent.compiler.view.groups == {"db": DB}, "web is let go")

        async def copied() -> bool:
            return (await binding(pool, "vm1/0", "xen1")).groups == ("db",)

        await until(copied, "peers hear of it")
        assert (await binding(pool, "vm1/0", "xen1")).epoch == 1


async def test_a_vif_whose_group_is_not_there_is_not_ready_and_says_why() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(WEB)
        await pool.insert(vif(1, host="xen1", groups=("nobody", "web")), vif(2, host="xen1"))
        host.add_port("p1", "vm1/0")
        problem = await until(lambda: host.agent.bindings.problems.get("vm1/0"), "a problem")
        assert problem == "the pool has no security group nobody"
        host.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")
        assert not (await binding(pool, "vm1/0", "xen1")).ready
        (rows,) = await pool.client.transact(Select("Agent", (), ("problems",)))
        assert rows[0]["problems"] == {"vif vm1/0": problem}

        await pool.insert(replace(IDLE, name="nobody"))
        await pool.wait_ready("vm1/0", "xen1")
        assert not host.agent.bindings.problems

        await pool.client.transact(Delete("SecurityGroup", (("name", "==", "nobody"),)))
        await until(lambda: host.agent.bindings.problems.get("vm1/0") == problem, "the problem again")


async def test_a_group_that_no_pool_may_hold_is_kept_out_and_reported() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(WEB)
        await pool.update("SecurityGroup", ("name", "web"), rules={"http": "nonsense"})
        await pool.insert(vif(1, host="xen1", groups=("web",)))
        host.add_port("p1", "vm1/0")
        await until(lambda: host.agent.pool.problems and host.agent.bindings.problems, "a bad row, a silent VIF")
        assert any("rule 'http'" in text for text in host.agent.pool.problems.values())
        await pool.update("SecurityGroup", ("name", "web"), rules={})
        await pool.wait_ready("vm1/0", "xen1")
        assert not host.agent.pool.problems


async def migrated(pool: PoolUnderTest, **more: object) -> Binding:
    """A VIF that ran on xen1 and was moved to xen2, where it is held so far."""
    await pool.insert(vif(1, host="xen1", **more))
    pool.hosts["xen1"].add_port("p1", "vm1/0")
    await pool.wait_ready("vm1/0", "xen1")
    await pool.update("Vif", ("id", "vm1/0"), incoming="xen2")
    pool.hosts["xen2"].add_port("p1", "vm1/0")
    return await pool.wait_ready("vm1/0", "xen2")


async def moved_is(pool: PoolUnderTest, wanted: bool) -> None:
    async def holds() -> bool:
        return (await binding(pool, "vm1/0", "xen2")).moved is wanted

    await until(holds, f"moved is {wanted}")


async def test_a_move_is_remembered_for_a_while_after_it_became_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vnet.agent.binding_controller.PICKUP_S", 0.4)
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(WEB)
        held = await migrated(pool, groups=("web",))
        assert (held.state, held.moved) == (BindingState.HELD, True)
        assert not (await binding(pool, "vm1/0", "xen1")).moved
        view = pool.hosts["xen1"].agent.compiler.view
        await until(lambda: (b := view.binding("tenant", "vm1/0", "xen2")) and b.moved, "peers know")

        await asyncio.sleep(0.5)  # as long as it is held, nothing ends it
        assert (await binding(pool, "vm1/0", "xen2")).moved
        begun = now_ms()
        await pool.update("Binding", ("host", "xen2"), state="active", since=begun)  # the toolstack's word
        await moved_is(pool, False)
        assert now_ms() - begun >= 400
        after = await binding(pool, "vm1/0", "xen2")
        assert after.connections.startswith("picked up as they go on: ")
        changed = replace(held, moved=False, state=BindingState.ACTIVE, since=begun)
        assert after == replace(changed, acked=after.acked, connections=after.connections)
        await until(lambda: not pool.hosts["xen2"].agent.bindings._under_way, "nothing is left to do")


async def test_a_restarted_agent_goes_on_from_when_it_became_active(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        await pool.insert(WEB)
        await migrated(pool, groups=("web",))
        agent = pool.hosts["xen2"].agent
        assert agent.bindings.set_state("vm1/0", BindingState.ACTIVE, announced=False)

        async def active() -> Binding | None:
            now = await binding(pool, "vm1/0", "xen2")
            return now if now.state is BindingState.ACTIVE else None

        now = await until(active, "the database says that it is active")
        assert now.moved, "the write of its activation leaves it"
        await pool.hosts["xen2"].stop()
        # Long ago by the clock of the pool; had the restart been what counts, it would take five minutes.
        await pool.update("Binding", ("host", "xen2"), since=now.since - 301_000)
        pool.hosts["xen2"].start()
        await moved_is(pool, False)
        assert (await binding(pool, "vm1/0", "xen2")).since == now.since - 301_000


async def test_a_vif_without_groups_moves_without_being_remembered() -> None:
    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        assert not (await migrated(pool)).moved


async def test_a_vif_that_joins_a_group_is_never_silent_till_its_rules_come() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        agent = pool.hosts["xen1"].agent
        await pool.insert(WEB)
        await pool.insert(vif(1, host="xen1"))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        silent: list[SourceChange] = []
        want = agent.flows.want

        def watched(changes: Sequence[SourceChange], *, urgent: bool = False) -> None:
            silent.extend(change for change in changes if change.source.category is Category.VIF and not change.new)
            want(changes, urgent=urgent)

        agent.flows.want = watched  # type: ignore[method-assign]
        await pool.update("Vif", ("id", "vm1/0"), groups=frozenset({"web"}))
        await until(lambda: agent.compiler.view.vifs["vm1/0"].groups == ("web",), "it is in the group")
        assert agent.compiler.view.groups == {"web": WEB}
        await pool.update("Vif", ("id", "vm1/0"), groups=frozenset({"web", "nobody"}))
        await until(lambda: "vm1/0" in agent.bindings.problems, "a group that does not exist is told")
        assert [change.source.name for change in silent] == ["vm1/0"], "by the group that does not exist, not before"


async def test_a_vif_that_joins_its_first_group_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its TCP connections began untracked, as those of a VIF that moved did. Another group later changes nothing."""
    monkeypatch.setattr("vnet.agent.binding_controller.PICKUP_S", 0.4)
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await pool.insert(WEB)
        await pool.insert(replace(WEB, name="db", number=2))
        await pool.insert(vif(1, host="xen1"))
        host = pool.hosts["xen1"]
        host.add_port("p1", "vm1/0")
        ready = await pool.wait_ready("vm1/0", "xen1")
        seen: list[bool] = []

        async def joined(groups: tuple[str, ...]) -> Binding:
            await pool.update("Vif", ("id", "vm1/0"), groups=frozenset(groups))

            async def copied() -> Binding | None:
                now = await binding(pool, "vm1/0", "xen1")
                seen.append(now.moved)
                return now if now.groups == groups and not now.moved else None

            return await until(copied, "copied, and forgotten")

        after = await joined(("web",))
        assert any(seen)
        assert after == replace(ready, groups=("web",), since=after.since, acked=after.acked)
        assert after.since > ready.since
        seen.clear()
        assert (await joined(("db", "web"))).since == after.since
        assert not any(seen)


async def test_a_host_knows_groups_of_tiers_before_any_vif_obeys_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that names one judges its VIFs at once. Their TCP connections began untracked: so it is remembered for a while, once."""
    monkeypatch.setattr("vnet.agent.binding_controller.PICKUP_S", 0.4)
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        wide = SecurityGroup("wide", 7, rules=WEB.rules, tier=Tier.NETWORK)
        await pool.insert(wide)
        await pool.insert(vif(1, host="xen1"))
        host = pool.hosts["xen1"]
        view = host.agent.compiler.view
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        assert view.groups == {"wide": wide}
        assert view.obeyed(view.vifs["vm1/0"]) == ()
        requests = host.agent.conditions.count
        await pool.update("Network", ("name", TENANT.name), groups=frozenset({"wide"}))
        seen: list[bool] = []

        async def joined() -> Binding | None:
            now = await binding(pool, "vm1/0", "xen1")
            seen.append(now.moved)
            return now if now.tiers and not now.moved else None

        await until(joined, "judged by the network's, and forgotten")
        assert any(seen)
        assert view.obeyed(view.vifs["vm1/0"]) == ("wide",)
        assert host.agent.conditions.count == requests  # nothing had to be asked for
        await pool.update("Network", ("name", TENANT.name), groups=frozenset())

        async def left() -> Binding | None:
            now = await binding(pool, "vm1/0", "xen1")
            return now if not now.tiers else None

        assert not (await until(left, "judged by none")).moved


UNTRACKED = [("mode", PolicyMode.MONITOR, "enforce"), ("stateful", False, "stateful")]


@pytest.mark.parametrize(("field", "before", "after"), UNTRACKED, ids=["watched", "stateless"])
async def test_a_vif_that_no_group_tracks_is_remembered_until_a_while_after_one_does(
    field: str, before: object, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may have been silent since before it was watched; one of a stateless group nobody saw begin."""
    monkeypatch.setattr("vnet.agent.binding_controller.PICKUP_S", 0.2)
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        member = ("web",) if field == "stateful" else ()
        await pool.insert(replace(WEB, **{field: before}), vif(1, host="xen1", groups=member))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await pool.update("Vif", ("id", "vm1/0"), groups=frozenset({"web"}))

        async def moved(wanted: bool) -> bool:
            return (await binding(pool, "vm1/0", "xen1")).moved is wanted

        await until(lambda: moved(True), "nobody has tracked its connections")
        await asyncio.sleep(0.5)
        assert await moved(True)
        begun = now_ms()
        await pool.update("SecurityGroup", ("name", "web"), **{field: after})
        await until(lambda: moved(False), "its connections are known by now")
        assert now_ms() - begun >= 200


async def test_an_agent_answers_for_the_rules_of_its_groups() -> None:
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        await pool.insert(WEB, vif(1, host="xen1", groups=("web",)))
        pool.hosts["xen1"].add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        groups = ("web", "db", "no group\n")

        async def answers() -> list[str]:
            (found,) = await pool.client.transact(Select("RuleQuery", (), ("id", "answer")))
            return [text for _, text in sorted((row["id"], row["answer"]) for row in found)]

        async def answered() -> bool:
            return all(await answers())

        for number, group in enumerate(groups):
            row = {"id": f"q{number}", "host": "xen1", "created": 1, "group": group}
            await pool.client.transact(Insert("RuleQuery", row))
        await pool.client.transact(Insert("RuleQuery", {"id": "x", "host": "xen2", "created": 1, "group": "web"}))
        await pool.client.transact(Delete("RuleQuery", (("id", "==", "x"),)))
        await until(answered, "all are answered")
        web, other, wrong = map(RuleReply.decode, await answers())
        assert web.counters == tuple(RuleCounter(name, Direction.INGRESS) for name in ("from-db", "http", ""))
        assert other.problem == "host xen1 has no VIF in security group db"
        assert "no name" in wrong.problem
