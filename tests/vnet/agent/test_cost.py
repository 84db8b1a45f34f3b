"""What one change costs the hosts of a pool, in counters: rows read, sources recomputed, flow messages, conditions set.

They are exact, where times are noisy. The rule under test: a change costs nothing on a host that does not share its network, and
elsewhere the same however large the network and the pool are.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import astuple, dataclass

import pytest

from ovsctl.ovsdb import Delete, Insert, Mutate, Select, Update
from tests.vnet.agent.pool import HostUnderTest, PoolUnderTest, pool_of, until
from vnet.model import Binding, Host, Network, NetworkType, SecurityGroup, Vif
from vnet.pool.rows import TABLE_OF, to_columns

SHARED = Network("shared", NetworkType.VXLAN, 1, 1450, key=5001)
ALONE = Network("alone", NetworkType.VXLAN, 2, 1450, key=5002)
FAR = [Host(f"far{n}", f"10.98.0.{n + 1}") for n in range(5)]


@dataclass(frozen=True)
class Cost:
    """What an agent has done so far, or did between two looks."""

    rows_read: int
    recomputed: int
    full: int
    messages: int
    conditions_set: int

    @classmethod
    def of(cls, host: HostUnderTest) -> Cost:
        agent = host.agent
        full = agent.compiler.full.total()
        return cls(agent.pool.rows_read, agent.compiler.recomputed, full, agent.flows.messages, agent.conditions_set)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


FLOWS_OF_A_VIF = 10  # with one address


def vif(name: str, number: int, network: str, **more: object) -> Vif:
    octets = number.to_bytes(2, "big")
    return Vif(
        f"{name}/0", network, f"0a:00:00:00:{octets.hex(':')}", addresses=(f"10.1.{octets[0]}.{octets[1]}",), **more
    )  # type: ignore[arg-type]


def far_away(networks: Sequence[str], vifs_each: int, first: int) -> Iterator[Vif | Binding]:
    """VIFs that run on hosts that have no agent here."""
    for number, network in enumerate((name for name in networks for _ in range(vifs_each)), first):
        it = vif(f"far{number}", number, network, epoch=1)
        yield it
        yield Binding(it.id, f"far{number % 5}", it.network, it.mac, 1, addresses=it.addresses, ready=True)


async def settled(pool: PoolUnderTest) -> None:
    """Every agent has taken in all that was written so far: each has answered a generation that was written after it."""
    raised = Mutate("Pool", (), [("generation", "+=", 1)])
    _, (row,) = await pool.client.transact(raised, Select("Pool", (), ("generation",)))
    agents = [host.agent for host in pool.hosts.values()]
    await until(lambda: all(a.pool.generation >= row["generation"] for a in agents), "agents read what was written")
    await until(lambda: all(h.agent.rows.settled for h in pool.hosts.values()), "rows")


@contextlib.asynccontextmanager
async def pool(members: int, others: int) -> AsyncIterator[PoolUnderTest]:
    """Three hosts: xen1 and xen2 share a network with `members` far VIFs, xen3 has another; the pool has `others` more."""
    networks = (
        SHARED,
        ALONE,
        *(Network(f"other{n}", NetworkType.VXLAN, 10 + n, 1450, key=6000 + n) for n in range(others)),
    )
    async with pool_of("xen1", "xen2", "xen3", networks=networks) as made:
        await made.insert(*FAR)
        rows = [*far_away(["shared"], members, 1000), *far_away([f"other{n}" for n in range(others)], 2, 2000)]
        await made.client.transact(*(Insert(TABLE_OF[type(row)], to_columns(row)) for row in rows))
        await made.insert(
            vif("a", 1, "shared", host="xen1"), vif("b", 2, "shared", host="xen2"), vif("c", 3, "alone", host="xen3")
        )
        for host, name in (("xen1", "a"), ("xen2", "b"), ("xen3", "c")):
            made.hosts[host].add_port(name, f"{name}/0")
            await made.wait_ready(f"{name}/0", host)
        await until(
            lambda: len(list(made.hosts["xen2"].agent.compiler.view.bindings("shared"))) == members + 2,
            "xen2 knows all",
        )
        await settled(made)
        yield made


async def cost_of_a_plug(members: int, others: int, groups: tuple[str, ...] = ()) -> dict[str, Cost]:
    """What it costs each host that a VIF of the shared network, wanted on xen1, is plugged there and becomes ready."""
    async with pool(members, others) as made:
        await made.insert(*(SecurityGroup(name, number) for number, name in enumerate(groups, 1)))
        await made.insert(vif("new", 9, "shared", host="xen1", groups=groups))
        await until(lambda: "new/0" in made.hosts["xen1"].agent.compiler.view.vifs, "xen1 knows that it is to come")
        known = made.hosts["xen1"].agent.compiler.view.groups
        await until(lambda: known.keys() >= set(groups), "xen1 has the groups that it is in")
        await settled(made)
        before = {name: Cost.of(host) for name, host in made.hosts.items()}
        made.hosts["xen1"].add_port("new", "new/0")
        await made.wait_ready("new/0", "xen1")
        view = made.hosts["xen2"].agent.compiler.view
        await until(lambda: view.binding("shared", "new/0", "xen1"), "xen2 knows where it is")
        await settled(made)
        after = {name: Cost.of(host) for name, host in made.hosts.items()}
        return {name: after[name] - before[name] for name in after}


async def test_a_plug_costs_the_same_in_networks_and_pools_of_any_size() -> None:
    for costs in (await cost_of_a_plug(5, 5), await cost_of_a_plug(500, 500)):
        # `settled` itself is a change of the pool's row, which every host reads.
        assert costs["xen3"] == Cost(rows_read=1, recomputed=0, full=0, messages=0, conditions_set=0)
        # The new binding, and the one flow that leads to it.
        assert costs["xen2"] == Cost(rows_read=2, recomputed=1, full=0, messages=1, conditions_set=0)
        # The VIF's new epoch and the binding, read back; the server looked through no table for it. The VIF, its lookup and
        # the network's flood are compiled when the port appears, when it gets its ofport and when the epoch is read back,
        # together where one comes quickly after another.
        here = costs["xen1"]
        assert (here.rows_read, here.full, here.conditions_set) == (3, 0, 0)
        assert 3 <= here.recomputed <= 9
        assert here.messages <= FLOWS_OF_A_VIF


async def test_a_plug_of_a_vif_in_groups_costs_others_what_any_plug_does() -> None:
    costs = await cost_of_a_plug(5, 5, ("db", "web"))
    assert costs["xen3"] == Cost(rows_read=1, recomputed=0, full=0, messages=0, conditions_set=0)
    assert costs["xen2"] == Cost(rows_read=2, recomputed=1, full=0, messages=1, conditions_set=0)
    # Its groups came when it was wanted here.
    here = costs["xen1"]
    assert (here.rows_read, here.full, here.conditions_set) == (3, 0, 0)


async def test_what_one_agent_reports_is_not_sent_to_the_others() -> None:
    async with pool(2, 0) as made:
        reports = [
            Update("Agent", (("host", "==", "xen1"),), {"heartbeat": 1, "problems": {"vif a/0": "tired"}}),
            Update("Binding", (("host", "==", "xen1"),), {"ready": True, "since": 7}),
            Mutate("Binding", (("host", "==", "xen1"),), (("acked", "insert", frozenset({"xen2"})),)),
            Insert("Event", {"time": 1, "kind": "drift", "text": "put back", "host": "xen1"}),
        ]
        before = {name: Cost.of(host) for name, host in made.hosts.items()}
        await made.client.transact(*reports)
        await settled(made)
        for name, host in made.hosts.items():
            assert Cost.of(host) - before[name] == Cost(1, 0, 0, 0, 0), name


async def test_an_agent_whose_row_was_removed_says_again_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vnet.agent.agent.HEARTBEAT_S", 0.05)
    async with pool_of("xen1") as made:

        async def known() -> bool:
            (rows,) = await made.client.transact(Select("Agent", (), ("host",)))
            return [row["host"] for row in rows] == ["xen1"]

        await until(known, "xen1 said that it lives")
        assert await made.client.transact(Delete("Agent", (("host", "==", "xen1"),))) == [1]
        await until(known, "xen1 said it again")
