"""What VIFs have sent and got, kept over restarts of agent and switch, new ports and moves: with real switches and a real pool database."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.openflow import Flow, Match
from ovsctl.openflow.flow import FlowEntry, FlowFlags, FlowStats
from ovsctl.ovsdb import Select
from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, PoolUnderTest, pool_of, vif
from vnet.agent.accounting import Ledger
from vnet.compile import Table
from vnet.controller.accounting import accounts, take_over
from vnet.db.accounting import (
    FIELDS,
    ZERO,
    Counts,
    HostAccount,
    VifAccount,
    decoded,
    encoded,
    folded,
    minus,
    plus,
    totals,
)
from vnet.db.database import PoolDatabase
from vnet.db.rows import from_row
from vnet.objects import BindingState

# Without addresses, which agents would announce.
SENDER, RECEIVER = (replace(vif(number), addresses=()) for number in (1, 2))
FRAME = bytes.fromhex(RECEIVER.mac.replace(":", "") + SENDER.mac.replace(":", "") + "88b5") + b"?" * 46
SENT, GOT = FIELDS.index("from_vm_pool_packets"), FIELDS.index("to_vm_pool_packets")


def flow(port: int, packets: int, size: int) -> FlowEntry:
    """A flow of SENT that has counted."""
    it = Flow(Match(in_port=port), table=Table.SENT, cookie=port, flags=FlowFlags.SEND_FLOW_REM)
    return FlowEntry(it, FlowStats(1.0, 0.0, packets, size))


def sent(packets: int, size: int) -> Counts:
    return (packets, size, *ZERO[2:])


def begun(*entries: FlowEntry, known: dict[int, Counts] | None = None) -> Ledger:
    made = Ledger()
    made.read(entries, anew=False)
    made.begun_from(known or {})
    return made


def test_an_agent_that_starts_counts_what_came_since_the_last_write() -> None:
    assert begun(flow(1, 7, 700), known={1: sent(4, 400)}).pending == {1: sent(3, 300)}
    # The switch began anew meanwhile, or the database has none of it.
    assert begun(flow(1, 2, 200), known={1: sent(4, 400)}).pending == {1: sent(2, 200)}
    assert begun(flow(1, 7, 700)).pending == {1: sent(7, 700)}


def test_a_flow_that_goes_counts_to_its_end_and_one_under_its_key_from_its_beginning() -> None:
    ledger = begun(flow(1, 7, 700))
    it, stats = flow(1, 9, 900)
    ledger.begin()
    ledger.removed(it, stats)
    ledger.read([flow(1, 8, 800)], anew=False)  # the answer to a question from before it went
    assert ledger.pending == {1: sent(9, 900)}
    ledger.begin()
    ledger.read([flow(1, 1, 100)], anew=False)
    assert ledger.pending == {1: sent(10, 1000)}
    assert ledger.counters == {1: sent(1, 100)}


def test_a_switch_that_began_anew_has_other_flows_however_much_they_have_counted() -> None:
    ledger = begun(flow(1, 7, 700))
    ledger.read([flow(1, 8, 800)], anew=True)
    assert ledger.pending == {1: sent(15, 1500)}


STEPS = st.sampled_from(["count", "read", "write", "agent", "switch", "gone", "fold"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 50))))
def test_whatever_ends_in_between_nothing_counts_twice_and_no_total_goes_back(steps: list[tuple[str, int]]) -> None:
    """A VIF's one flow, its agent and its database. What a switch that ends had counted since the last read is lost, and no more, as long as the agent lives."""
    truth = lost = counter = unread = shown = 0
    ledger, row, kept = begun(), HostAccount("xen1"), {"vif": ZERO}
    anew, at_risk, exact = False, False, True
    for step, number in (*steps, ("read", 0), ("write", 0)):
        match step:
            case "count":
                truth, counter, unread = truth + number, counter + number, unread + number
            case "read":
                ledger.begin()
                ledger.read([flow(1, counter, counter)], anew=anew)
                anew, unread = False, 0
            case "write":
                total = plus(row.of("vif")[0], ledger.pending.get(1, ZERO))
                row = rewritten(row, total, minus(total, ledger.counters.get(1, ZERO)))
                ledger.written(dict(ledger.pending))
                at_risk = False
            case "agent":  # it ends, and another one starts
                ledger = begun(flow(1, counter, counter), known={1: minus(*row.of("vif"))})
                exact, anew, unread = exact and not at_risk, False, 0
            case "switch":
                lost, counter, unread, anew, at_risk = lost + unread, 0, 0, True, True
            case "gone":
                ledger.removed(*flow(1, counter, counter))
                counter, unread, at_risk = 0, 0, True
            case "fold":
                operations, new = folded(row, ["vif"], kept, known=True)
                if operations:
                    counts, base = row.of("vif")
                    row, kept = rewritten(row, ZERO, minus(base, counts)), kept | new
        before, shown = shown, totals([row], [VifAccount("vif", encoded(kept["vif"]))])["vif"][0][0]
        assert before <= shown <= truth
    assert shown == truth - lost or not exact


def rewritten(row: HostAccount, counts: Counts, base: Counts) -> HostAccount:
    return replace(row, counted={"vif": encoded(counts)}, base={"vif": encoded(base)})


def test_what_is_no_account_counts_nothing() -> None:
    for text in ("", "1 2", "x" * 10_000, " ".join(["-1"] * 8), " ".join([str(2**63)] * 8), "1 " * 8):
        assert decoded(text) == ZERO
    assert decoded(encoded(sent(3, 180))) == sent(3, 180)


async def kept(pool: PoolUnderTest) -> dict[str, Counts]:
    """What the pool database has of each VIF."""
    (hosts,), (vifs,) = [await pool.client.transact(Select(it.NOUN.table)) for it in (HostAccount, VifAccount)]
    found = totals([from_row(HostAccount, row) for row in hosts], [from_row(VifAccount, row) for row in vifs])
    return {vif: counts for vif, (counts, _) in found.items()}


async def counted(pool: PoolUnderTest, packets: int, got: int | None = None) -> None:
    """Returns once the sender's account has so many frames, and the receiver's as many or `got`; neither ever has more."""
    wanted = packets, packets * len(FRAME), packets if got is None else got

    async def there() -> bool:
        found = await kept(pool)
        sent, received = found.get(SENDER.id, ZERO), found.get(RECEIVER.id, ZERO)
        now = sent[SENT], sent[SENT + 1], received[GOT]
        assert all(a <= b for a, b in zip(now, wanted, strict=True)), now
        assert not any((*sent[SENT + 2 : SENT + 4], *received[GOT + 2 : GOT + 4])), "nothing is outside"
        return now == wanted

    await until(there, f"{packets} frames in the accounts")


def send(host: HostUnderTest, frames: int) -> None:
    host.switch.appctl("netdev-dummy/receive", "p1", *[FRAME.hex()] * frames)


async def restart(host: HostUnderTest, account_s: float) -> None:
    await host.stop()
    host.account_s = account_s
    host.start()


@pytest.mark.usefixtures("ovs")
async def test_accounts_outlive_agents_switches_ports_and_moves() -> None:
    async with pool_of("xen1", "xen2", networks=[TENANT]) as pool:
        one, two = pool.hosts.values()
        for host in (one, two):
            await restart(host, account_s=1.0)
        await pool.insert(SENDER, RECEIVER)
        for number in (1, 2):
            one.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", "xen1")
        send(one, 5)
        await counted(pool, 5)

        await one.stop()
        send(one, 3)
        one.start()
        await counted(pool, 8)

        one.switch.stop()
        await until(lambda: not one.agent.flows.connected, "the agent has lost its switch")
        one.switch.start()
        await until(lambda: one.agent.flows.connected and one.programmed, "the flows are back")
        send(one, 40)  # more than before, so that counters alone do not tell that they began anew
        await counted(pool, 48)

        await restart(one, account_s=60.0)  # one that reads too seldom to see what comes next
        await until(lambda: one.agent.accounting.ledger.has_begun, "it has read")
        send(one, 2)
        await until(
            lambda: "n_packets=42," in one.switch.ofctl("dump-flows", "br-int", "table=42"), "the switch's count"
        )
        one.switch.server.vsctl("del-port", "p1")
        await counted(pool, 50)
        await restart(one, account_s=1.0)
        one.add_port("p1", SENDER.id)
        await pool.wait_ready(SENDER.id, "xen1")
        await until(lambda: one.programmed, "its flows")
        send(one, 1)
        await counted(pool, 51)

        await pool.update("Vif", ("id", SENDER.id), incoming="xen2")
        two.add_port("p1", SENDER.id)
        await pool.wait_ready(SENDER.id, "xen2")
        await two.agent.open([SENDER.id], BindingState.ACTIVE)
        await pool.update("Vif", ("id", SENDER.id), incoming=None, host="xen2")
        one.switch.server.vsctl("del-port", "p1")
        await until(lambda: (SENDER.id, "xen1") not in one.agent.compiler.view.ports, "the source")

        async def moved() -> bool:
            return (SENDER.id, "xen1") not in await pool.bindings()

        await until(moved, "the source has given it up")
        await until(lambda: two.programmed, "the destination")
        send(two, 2)  # no tunnel leads to the other host here
        await counted(pool, 53, got=51)

        before = (await pool.row("HostAccount", ("host", "xen1")))["serial"]
        async with AsyncExitStack() as stack:
            database = PoolDatabase([pool.server.remote])
            await database.open()
            stack.push_async_callback(database.close)
            assert await take_over(database, database.transact) == 1
            assert await take_over(database, database.transact) == 0
            await counted(pool, 53, got=51)
            _, (mine,) = await accounts(database)
            assert (mine.vif, decoded(mine.counted)[SENT]) == (SENDER.id, 51)

        async def forgotten() -> bool:
            row = await pool.row("HostAccount", ("host", "xen1"))
            return SENDER.id not in row["counted"] and SENDER.id not in row["base"]

        # The former host sees it as it writes the next time.
        one.switch.appctl("netdev-dummy/receive", "p2", (FRAME[6:12] + FRAME[:6] + FRAME[12:]).hex())
        await until(forgotten, "its former host has nothing of it")
        await counted(pool, 53, got=51)
        assert (await pool.row("HostAccount", ("host", "xen1")))["serial"] <= before + 3, (
            "nothing is written that did not change"
        )
