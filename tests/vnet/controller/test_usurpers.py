"""A host that draws others' VIFs to itself: the leader gives them back, and names it. Agents that keep the rules are never taken for one."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import Insert, Select, Update, by_uuid
from tests.polling import until
from tests.vnet.controller.databases import opened, pool_server
from tests.vnet.controller.pools import bound, pool, vif
from vnet.controller.leader import MOST_CLAIMS, Epochs, Leader, restated, unfollowed, usurpers
from vnet.db.database import now_ms
from vnet.db.rows import to_columns
from vnet.objects import AgentStatus, Binding, BindingState, Vif

VIF = vif("a/0", 1, host="xen1", epoch=3)


def found(known: Vif, *bindings: Binding, live: tuple[str, ...] = ("xen1", "xen2", "xen3")) -> list[str]:
    return [it.host for it in usurpers(pool([known], bindings, live), {})]


def test_an_epoch_that_the_vif_never_gave() -> None:
    anywhere = vif("a/0", 1, epoch=3)
    assert found(anywhere, bound(anywhere, "xen1", 3), bound(anywhere, "xen2", 9999)) == ["xen2"]
    assert found(anywhere, bound(anywhere, "xen1", 3, ready=False), bound(anywhere, "xen2", 4)) == ["xen2"]
    assert found(anywhere, bound(anywhere, "xen2", 9999)) == []  # it displaces nobody: a VIF that was made anew


def test_a_vif_that_runs_where_it_is_asked_for() -> None:
    assert found(VIF, bound(VIF, "xen1", 2), bound(VIF, "xen2", 3)) == ["xen2"]
    assert found(VIF, bound(VIF, "xen1", 2), bound(VIF, "xen2", 3), live=("xen2",)) == []
    assert found(VIF, bound(VIF, "xen1", 2, ready=False), bound(VIF, "xen2", 3)) == []


def test_moves_and_takeovers_are_none() -> None:
    moving = vif("a/0", 1, host="xen1", incoming="xen2", epoch=3)
    for state in BindingState:
        assert found(moving, bound(moving, "xen1", 2), bound(moving, "xen2", 3, state=state)) == []
    moved = vif("a/0", 1, host="xen2", epoch=3)
    assert found(moved, bound(moved, "xen1", 2), bound(moved, "xen2", 3)) == []
    free = vif("a/0", 1, epoch=3)
    assert found(free, bound(free, "xen1", 2), bound(free, "xen2", 3)) == []


@given(st.permutations(range(1, 4)), st.sampled_from(["xen1", "xen2", "xen3", None]))
def test_of_epochs_that_were_given_only_the_asked_for_host_is_righted(epochs: list[int], host: str | None) -> None:
    known = vif("a/0", 1, host=host, epoch=3)
    bindings = [bound(known, f"xen{n}", epoch) for n, epoch in enumerate(epochs, 1)]
    newest = f"xen{epochs.index(3) + 1}"
    assert found(known, *bindings) == ([newest] if host not in (None, newest) else [])


def test_an_epoch_that_was_lowered_makes_nobody_a_usurper() -> None:
    low = vif("a/0", 1, host="xen2", epoch=2)
    view = pool([low], [bound(low, "xen1", 2), bound(low, "xen2", 3)])
    assert [it.host for it in usurpers(view, {})] == ["xen2"]
    assert usurpers(view, {"a/0": 3}) == []


def test_epochs_that_no_claims_come_to() -> None:
    rows = {f"a/{n}": by_uuid(f"00000000-0000-0000-0000-00000000000{n}") for n in range(6)}

    def vifs(*epochs: int) -> dict[str, Vif]:
        return {f"a/{n}": vif(f"a/{n}", n + 1, epoch=epoch) for n, epoch in enumerate(epochs)}

    epochs = Epochs()
    assert epochs.wrong(vifs(3, 3, 3, 3, 3, 3), lambda it: rows[it.id]) == {}
    rows["a/5"] = by_uuid("00000000-0000-0000-0000-0000000000ff")  # made anew
    later = vifs(3, 2, 4, 3 + MOST_CLAIMS, 2**63 - 1, 0)
    for _ in range(2):
        assert epochs.wrong(later, lambda it: rows[it.id]) == {"a/1": 3, "a/4": 3}
    assert epochs.wrong({}, lambda it: rows[it.id]) == {}
    assert epochs.wrong(later, lambda it: rows[it.id]) == {}


def test_what_hosts_do_not_follow() -> None:
    asked = vif("a/0", 1, host="xen1", epoch=3, stays="xen1 xen2")
    on = {host: bound(asked, host, epoch) for host, epoch in (("xen1", 4), ("xen2", 3), ("xen3", 9))}
    assert unfollowed(pool([asked], on.values())) == [on["xen3"]]
    assert unfollowed(pool([asked], [on["xen2"], on["xen3"]])) == [on["xen3"]]
    assert unfollowed(pool([asked], [on["xen3"]])) == [on["xen3"]]
    assert unfollowed(pool([asked], [on["xen1"], on["xen2"]])) == unfollowed(pool([asked], [on["xen2"]])) == []
    free = vif("a/0", 1, epoch=3)
    assert unfollowed(pool([free], on.values())) == []
    view = pool([free], [on["xen3"]])
    for hosts, left_out in (("xen1", "xen2"), [on["xen3"]]), (("xen1", "xen3"), []):
        networks = {name: replace(it, hosts=frozenset(hosts)) for name, it in view.state.networks.items()}
        assert unfollowed(replace(view, state=replace(view.state, networks=networks))) == left_out


def test_what_is_stated_anew_of_where_a_vif_may_stay() -> None:
    def anew(stays: str, *hosts: str, host: str | None = "xen1") -> list[str]:
        it = vif("a/0", 1, host=host, stays=stays)
        return [text for _, text in restated(pool([it], [bound(it, name, n) for n, name in enumerate(hosts, 1)]))]

    assert anew("") == ["xen1"]  # as an earlier version has left it
    assert anew("", "xen2") == anew("xen3 xen4", "xen2") == ["xen1 xen2"]
    assert anew("xen1 xen2", "xen1") == ["xen1"]
    assert anew("xen1 xen2", "xen2") == anew("xen1 xen2", "xen2", "xen1") == anew("xen1 xen2") == []
    assert anew("xen1") == anew("xen1", "xen1") == anew("xen1", "xen2") == anew("", "xen2", host=None) == []


@pytest.mark.usefixtures("ovs")
async def test_the_leader_takes_away_what_holds_a_vif_that_is_asked_for_elsewhere_and_states_what_is_to_be() -> None:
    with pool_server() as server:
        async with opened(server.remote) as database, opened(server.remote) as host:
            leader = Leader(database)
            job = asyncio.create_task(leader.run())
            try:
                await until(lambda: leader.duties, "its duties")
                await host.transact(
                    Insert("Vif", to_columns(VIF)),
                    *(
                        Insert("Agent", to_columns(AgentStatus(name, heartbeat=now_ms(), switch=switch)))
                        for name, switch in (("xen2", "a switch"), ("xen3", ""))
                    ),
                )

                async def rows(table: str, column: str) -> list[str]:
                    (found,) = await host.transact(Select(table, (), (column,)))
                    return [row[column] for row in found]

                async def stated() -> bool:
                    return await rows("Vif", "stays") == ["xen1"]

                async def gone() -> bool:  # an agent of the first version, on xen3, would claim it again
                    return await rows("Binding", "host") == ["xen3"]

                await until(stated, "where it may stay")
                await host.transact(
                    *(Insert("Binding", to_columns(bound(VIF, name, 9999))) for name in ("xen3", "xen2"))
                )
                await until(gone, "the end of what nobody follows")
                told = [(it.kind, it.host, it.vif) for it in host.mirror.events.values()]
                assert ("problem", "xen2", "a/0") in told
            finally:
                job.cancel()
                await asyncio.gather(job, return_exceptions=True)


@pytest.mark.usefixtures("ovs")
async def test_the_leader_takes_it_away_and_names_it_once() -> None:
    with pool_server() as server:
        async with opened(server.remote) as database, opened(server.remote) as host:
            await host.transact(
                *(Insert("Agent", to_columns(AgentStatus(name, heartbeat=now_ms()))) for name in ("xen1", "xen2")),
                Insert("Vif", to_columns(VIF)),
                Insert("Binding", to_columns(bound(VIF, "xen1", 3))),
            )
            leader = Leader(database)
            job = asyncio.create_task(leader.run())
            try:
                await until(lambda: leader.duties, "its duties")
                forged = bound(VIF, "xen2", 9999)

                async def righted() -> bool:
                    (rows,) = await host.transact(Select("Binding", (), ("host",)))
                    return [row["host"] for row in rows] == ["xen1"]

                for _ in range(2):
                    await host.transact(Insert("Binding", to_columns(forged)))
                    await until(righted, "its end")
                await until(lambda: list(host.mirror.state.bindings) == [("a/0", "xen1")], "the place of the VIF")
                named = [(it.host, it.vif) for it in host.mirror.events.values() if it.kind == "problem"]
                assert set(named) == {("xen2", "a/0")}
            finally:
                job.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await job


@pytest.mark.usefixtures("ovs")
@pytest.mark.parametrize("epoch", [0, 2**63 - 1])
async def test_an_epoch_that_a_host_has_set_at_will_is_put_back(epoch: int) -> None:
    with pool_server() as server:
        async with opened(server.remote) as database, opened(server.remote) as host:
            await host.transact(Insert("Vif", to_columns(VIF)))
            leader = Leader(database)
            job = asyncio.create_task(leader.run())
            try:
                await until(lambda: leader.duties, "its duties")
                await host.transact(Update("Vif", (), {"epoch": epoch}))

                async def put_back() -> bool:
                    (rows,) = await host.transact(Select("Vif", (), ("epoch",)))
                    return [row["epoch"] for row in rows] == [VIF.epoch]

                await until(put_back, "the epoch")
            finally:
                job.cancel()
                await asyncio.gather(job, return_exceptions=True)
