"""What one change costs the hosts of a pool, in counters: rows read, sources recomputed, flow messages, conditions set.

They are exact, where times are noisy. The rule under test: a change costs nothing on a host that does not share its network, and
elsewhere the same however large the network and the pool are.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import astuple, dataclass, replace

import pytest

from ovsctl import vswitch
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.ovsdb import Delete, Insert, Mutate, Operation, OvsdbClient, Select, Update
from tests.polling import until
from tests.vnet.agent.pool import HostUnderTest, PoolUnderTest, pool_of
from vnet.agent import transactions
from vnet.agent.conditions import Conditions
from vnet.agent.encryption import EncryptedTunnels
from vnet.agent.zones import TrackerZones
from vnet.db.rows import TABLE_OF, to_columns
from vnet.objects import (
    Binding,
    BindingState,
    Direction,
    Host,
    Network,
    NetworkType,
    Protocol,
    Rule,
    SecurityGroup,
    Vif,
)

pytestmark = pytest.mark.usefixtures("ovs")

SHARED = Network("shared", NetworkType.VXLAN, 1, 1450, key=5001)
ALONE = Network("alone", NetworkType.VXLAN, 2, 1450, key=5002)


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
        return cls(agent.pool.rows_read, agent.compiler.recomputed, full, agent.flows.messages, agent.conditions.count)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


FLOWS_OF_A_VIF = 14  # with one address; untagged and priority-tagged frames have a flow each, and what it sends counts


def mac_of(number: int) -> str:
    return f"0a:00:00:00:{number.to_bytes(2, 'big').hex(':')}"


def vif(name: str, number: int, network: str, **more: object) -> Vif:
    octets = number.to_bytes(2, "big")
    return Vif(f"{name}/0", network, mac_of(number), addresses=(f"10.1.{octets[0]}.{octets[1]}",), **more)  # type: ignore[arg-type]


def far_away(
    networks: Sequence[str], vifs_each: int, first: int, hosts: int, groups: tuple[str, ...] = ()
) -> Iterator[Vif | Binding]:
    """VIFs that run on hosts that have no agent here."""
    for number, network in enumerate((name for name in networks for _ in range(vifs_each)), first):
        it = vif(f"far{number}", number, network, epoch=1, groups=groups)
        yield it
        yield binding_of(it, f"far{number % hosts}")


def binding_of(it: Vif, host: str, epoch: int = 1) -> Binding:
    return Binding(it.id, host, it.network, it.mac, epoch, addresses=it.addresses, groups=it.groups, ready=True)


async def settled(pool: PoolUnderTest) -> None:
    """Every agent has taken in all that was written so far, and its switch too: each has programmed a generation that was
    written after it."""
    raised = Mutate("Pool", (), [("generation", "+=", 1)])
    _, (row,) = await pool.client.transact(raised, Select("Pool", (), ("generation",)))

    async def all_have() -> bool:
        (rows,) = await pool.client.transact(Select("Agent", (), ("host", "generation")))
        return {found["host"] for found in rows if found["generation"] >= row["generation"]} >= pool.hosts.keys()

    await until(all_have, "agents programmed what was written")
    await until(lambda: all(h.agent.rows.settled for h in pool.hosts.values()), "rows")


@contextlib.asynccontextmanager
async def pool(members: int, others: int, hosts: int = 5, groups: tuple[str, ...] = ()) -> AsyncIterator[PoolUnderTest]:
    """Three hosts: xen1 and xen2 share a network with `members` far VIFs, of these groups, on `hosts` far hosts, xen3 has another;
    the pool has `others` more networks, on the same far hosts."""
    networks = (
        SHARED,
        ALONE,
        *(Network(f"other{n}", NetworkType.VXLAN, 10 + n, 1450, key=6000 + n) for n in range(others)),
    )
    async with pool_of("xen1", "xen2", "xen3", networks=networks) as made:
        await made.insert(*(Host(f"far{n}", f"10.98.0.{n + 1}") for n in range(hosts)))
        elsewhere = [f"other{n}" for n in range(others)]
        rows = [*far_away(["shared"], members, 1000, hosts, groups), *far_away(elsewhere, 2, 2000, hosts)]
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


async def cost_of_a_plug(members: int, others: int, groups: tuple[str, ...] = (), hosts: int = 5) -> dict[str, Cost]:
    """What it costs each host that a VIF of the shared network, wanted on xen1, is plugged there and becomes ready."""
    async with pool(members, others, hosts) as made:
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
    for costs in (await cost_of_a_plug(5, 5), await cost_of_a_plug(500, 500, hosts=200)):
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


async def cost_of_changes(others: int, hosts: int) -> dict[str, dict[str, Cost]]:
    """What changes that are not plugs cost each host: in the shared network, and in what no agent here has."""
    async with pool(5, others, hosts) as made:
        moved = Binding("far1000/0", "far1", "shared", mac_of(1000), 2, BindingState.HELD, addresses=("10.1.3.232",))

        async def write(*operations: Operation) -> dict[str, Cost]:
            before = {name: Cost.of(host) for name, host in made.hosts.items()}
            await made.client.transact(*operations)
            await settled(made)
            return {name: Cost.of(host) - before[name] for name, host in made.hosts.items()}

        def on(table: str, key: str, value: str, **columns: object) -> Update:
            return Update(table, ((key, "==", value),), columns)

        return {
            "a move of a VIF is prepared": await write(Insert("Binding", to_columns(moved))),
            "it is active": await write(on("Binding", "epoch", 2, state="active")),  # type: ignore[arg-type]
            "its source lets go": await write(
                Delete("Binding", (("vif", "==", moved.vif), ("host", "==", "far0")))
            ),
            "a network that is nowhere here changes": await write(on("Network", "name", "other0", mtu=1400)),
            "a host comes": await write(Insert("Host", to_columns(Host("late", "10.97.0.1")))),
            "that host goes": await write(Delete("Host", (("name", "==", "late"),))),
        }  # fmt: skip


async def test_other_changes_cost_the_same_in_pools_of_any_size() -> None:
    small, large = await cost_of_changes(5, 5), await cost_of_changes(300, 200)
    assert small == large
    nothing = Cost(rows_read=1, recomputed=0, full=0, messages=0, conditions_set=0)  # but the pool's row, see `settled`
    assert {costs["xen3"] for what, costs in small.items() if "host" not in what} == {nothing}
    assert set(small["a network that is nowhere here changes"].values()) == {nothing}
    assert (
        set(small["a host comes"].values()) == set(small["that host goes"].values()) == {replace(nothing, rows_read=2)}
    )
    # One flow that leads to it; once it is active, one besides that drops what its source still sends; both go.
    for host in ("xen1", "xen2"):
        costs = [small[what][host] for what in ("a move of a VIF is prepared", "it is active", "its source lets go")]
        assert [(cost.rows_read, cost.messages, cost.conditions_set) for cost in costs] == [
            (2, 1, 0),
            (2, 2, 0),
            (2, 2, 0),
        ]


async def test_a_plug_of_a_vif_in_groups_costs_others_what_any_plug_does() -> None:
    costs = await cost_of_a_plug(5, 5, ("db", "web"))
    assert costs["xen3"] == Cost(rows_read=1, recomputed=0, full=0, messages=0, conditions_set=0)
    assert costs["xen2"] == Cost(rows_read=2, recomputed=1, full=0, messages=1, conditions_set=0)
    # Its groups came when it was wanted here.
    here = costs["xen1"]
    assert (here.rows_read, here.full, here.conditions_set) == (3, 0, 0)


async def cost_of_members(members: int) -> dict[str, Cost]:
    """What changes of a large group's members, on four hosts, cost a host with a VIF whose rules name the group."""
    web = SecurityGroup("web", 1)
    db = SecurityGroup("db", 2, rules=(Rule("from-web", Direction.INGRESS, protocol=Protocol.TCP, remote=("web",)),))
    async with pool(members, 0, hosts=4, groups=("web",)) as made:
        await made.insert(web, db)
        await made.client.transact(Update("Vif", (("id", "==", "a/0"),), {"groups": frozenset({"db"})}))
        here = made.hosts["xen1"].agent
        await until(lambda: here.compiler.view.groups.keys() == {"db"}, "xen1 has the rules")
        await settled(made)

        async def write(*operations: Operation) -> Cost:
            before = Cost.of(made.hosts["xen1"])
            await made.client.transact(*operations)
            await settled(made)
            return Cost.of(made.hosts["xen1"]) - before

        def of(number: int) -> list[tuple[str, str, object]]:
            return [("vif", "==", f"far{number}/0")]

        joins = vif("new", 9, "shared", groups=("web",), epoch=1)
        moved = vif("far1001", 1001, "shared", groups=("web",))
        return {
            "one comes": await write(Insert("Binding", to_columns(binding_of(joins, "far0")))),
            "one goes": await write(Delete("Binding", of(1000))),
            "one goes, another comes": await write(
                Delete("Binding", of(1002)),
                Insert("Binding", to_columns(binding_of(vif("late", 8, "shared", groups=("web",)), "far1"))),
            ),
            "one moves": await write(
                Delete("Binding", of(1001)), Insert("Binding", to_columns(binding_of(moved, "far2", epoch=2)))
            ),
            "one changes its address": await write(
                Update("Binding", of(1003), {"addresses": frozenset({"10.1.200.1"})})
            ),
            "one leaves the group": await write(Update("Binding", of(1004), {"groups": frozenset()})),
        }


async def test_a_member_of_a_group_costs_the_same_however_many_there_are() -> None:
    small, large = await cost_of_members(8), await cost_of_members(2000)
    assert small == large
    for change, cost in small.items():
        # The rows that were written, and the pool's; of each member the flows that lead to it and that tell its groups.
        assert cost.rows_read <= 3, change
        assert cost.full == 0, change
        assert 1 <= cost.messages <= 6, change


async def test_an_unplug_is_a_transaction_and_a_bundle_and_plans_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, object, tuple[object, ...]]] = []

    def count(owner: object, name: str) -> None:
        called = getattr(owner, name)

        def counted(*args: object, **more: object) -> object:
            calls.append((name, args[0], args[1:]))
            return called(*args, **more)

        monkeypatch.setattr(owner, name, counted)

    async with pool(2, 0) as made:
        here, peer = made.hosts["xen2"], made.hosts["xen1"]
        await made.insert(vif("stays", 9, "shared", host="xen2"))
        here.add_port("stays", "stays/0")
        await made.wait_ready("stays/0", "xen2")
        await settled(made)
        sent = peer.agent.flows.messages
        binding = here.agent.pool.mine["b/0"]
        released = transactions.release(binding, here.agent.pool.locate(binding))
        for owner, name in ((vswitch, "plan"), (OvsdbClient, "send"), (OpenFlowClient, "bundle")):
            count(owner, name)
        here.switch.server.vsctl("del-port", "br-int", "b")
        await until(lambda: peer.agent.flows.messages > sent, "the peer's flow went")
        await until(lambda: "b/0" not in here.agent.pool.mine, "the binding went")
        assert peer.agent.flows.messages - sent == 1
        calls = [call for call in calls if call[2] != ([],)]
        assert [name for name, *_ in calls if name != "send"] == ["bundle"]
        sends = [sent for name, client, sent in calls if name == "send" and client is here.agent.pool_client]
        heartbeats = [sent for sent in sends if isinstance(sent[-1], Update) and sent[-1].table == "Agent"]
        guarded = (here.agent.reports.claim.guard, released)
        assert [sent for sent in sends if sent not in heartbeats] == [guarded]
        order = [name for name, _, sent in calls if sent == guarded or name == "bundle"]
        assert order == ["send", "bundle"], "the release leaves before the flows are compiled"


async def test_a_plug_elsewhere_has_a_host_look_at_nothing_that_it_cannot_concern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: Counter[tuple[int, str]] = Counter()

    def count(owner: type, name: str) -> None:
        called = getattr(owner, name)

        def counted(self: object, *args: object, **more: object) -> object:
            looked[id(self), name] += 1
            return called(self, *args, **more)

        monkeypatch.setattr(owner, name, counted)

    for owner, name in ((Conditions, "follow"), (EncryptedTunnels, "_judge"), (TrackerZones, "_outdated")):
        count(owner, name)
    async with pool(2, 0) as made:
        await made.insert(vif("new", 9, "shared", host="xen1"))
        agent, plugged = made.hosts["xen2"].agent, made.hosts["xen1"].agent
        await until(lambda: "new/0" in plugged.compiler.view.vifs, "xen1 knows that it is to come")
        await until(lambda: not plugged.conditions.waiting, "xen1 has what it needs for it")
        looked.clear()
        sent = agent.flows.messages
        made.hosts["xen1"].add_port("new", "new/0")
        await until(lambda: agent.flows.messages > sent, "xen2 has a flow that leads to it")
        await made.wait_ready("new/0", "xen1")
        parts = (agent.conditions, agent.encryption, agent.zones)
        assert not [key for key in looked if key[0] in map(id, parts)]
        assert looked[id(plugged.conditions), "follow"], "xen1 may need other rows by now"


async def test_what_one_agent_reports_is_not_sent_to_the_others() -> None:
    async with pool(2, 0) as made:
        reports: list[Operation] = [
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
    """And what it has programmed, also where it said that into a row that was gone: as a host that is removed and comes again."""
    monkeypatch.setattr("vnet.agent.agent.HEARTBEAT_S", 0.05)
    raised, removed = Mutate("Pool", (), [("generation", "+=", 1)]), Delete("Agent", (("host", "==", "xen1"),))
    async with pool_of("xen1") as made:

        async def programmed(generation: int) -> None:
            async def is_said() -> bool:
                (rows,) = await made.client.transact(Select("Agent", (), ("host", "generation")))
                return [(row["host"], row["generation"]) for row in rows] == [("xen1", generation)]

            await until(is_said, f"xen1 said that it has programmed {generation}")

        await made.client.transact(raised)
        await programmed(1)
        assert await made.client.transact(removed) == [1]
        await programmed(1)
        assert await made.client.transact(removed, raised) == [1, 1]
        await programmed(2)
