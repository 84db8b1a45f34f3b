"""A host that draws others' VIFs to itself: the leader gives them back, and names it. Agents that keep the rules are never taken for one."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import Insert, Select, Update, by_uuid
from tests.polling import until
from tests.vnet.controller.databases import opened, pool_server
from tests.vnet.controller.pools import bound, pool, vif
from vnet.controller.leader import MOST_CLAIMS, Epochs, Leader, usurpers
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
