"""The counters of a group's rules over the hosts: the sums, the hosts that are missing in them, and that no question stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ovsctl.ovsdb import Change, Insert, Monitor, OvsdbClient, Select, Update, Wait
from tests.vnet.cli.test_commands import Capture, vnet
from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import FakeAgent
from vnet.api import GroupCounters, Rule, RuleCount, SecurityGroupSpec, VifSpec
from vnet.cli.exits import ExitCode
from vnet.client import AsyncClient, Invalid, NotFound
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.probes import FORGOTTEN_AFTER_MS
from vnet.db.rows import to_columns
from vnet.db.rule_queries import MAX_ANSWER_BYTES, RuleCounter, RuleQuery, RuleReply
from vnet.objects import Direction
from vnet.objects.limits import MAX_RULES

IN, OUT = Direction.INGRESS, Direction.EGRESS
HOSTS = ("xen1", "xen2")
SPEC = SecurityGroupSpec(
    rules=[Rule(name="ssh", direction="ingress"), Rule(name="mail", direction="egress", action="drop")]
)


@pytest.fixture
async def members(client: AsyncClient, pool: PoolDatabase) -> AsyncIterator[None]:
    """A group with a VIF on each of two hosts, and another VIF on a third."""
    await client.put_security_group("web", SPEC)
    for number, host in enumerate((*HOSTS, "xen3")):
        await client.put_vif(
            f"c{number}/0", VifSpec(network="tenant", security_groups=["web"] if host in HOSTS else [])
        )
        await FakeAgent(pool, host, client).beat()
        await FakeAgent(pool, host, client).claim(f"c{number}/0")
    yield
    for number in range(3):
        await client.delete_vif(f"c{number}/0")
    await client.delete_security_group("web")


async def queries(rows: OvsdbClient) -> list[Any]:
    (found,) = await rows.transact(Select("RuleQuery"))
    return list(found)


async def counted(client: AsyncClient, rows: OvsdbClient, replies: dict[str, str], wait_s: int = 10) -> GroupCounters:
    """The answer of the call while hosts' agents answer with these texts."""
    call = asyncio.create_task(client.group_counters("web", wait_s=wait_s))
    await rows.transact(
        *(Wait("RuleQuery", (("host", "==", host),), ("group",), ({"group": "web"},), "==", 10_000) for host in HOSTS)
    )
    mine = {row["host"]: row["id"] for row in await queries(rows)}
    assert sorted(mine) == sorted(HOSTS), "who has no VIF of the group is not asked"
    for host, text in replies.items():
        await rows.transact(Update("RuleQuery", (("id", "==", mine[host]),), {"answer": text}))
    found = await call
    assert await queries(rows) == []
    return found


@pytest.mark.usefixtures("members")
async def test_the_sum_is_of_all_hosts_that_have_the_group(client: AsyncClient, rows: OvsdbClient) -> None:
    one = RuleReply((RuleCounter("ssh", IN, 3, 300), RuleCounter("", IN, 1, 60), RuleCounter("gone", IN, 9, 9)))
    two = RuleReply((RuleCounter("ssh", IN, 4, 500), RuleCounter("mail", OUT, 2, 120)))
    found = await counted(client, rows, {"xen1": one.encode(), "xen2": two.encode()})
    assert (found.security_group, found.hosts, found.missing) == ("web", ["xen1", "xen2"], {})
    assert found.rules == [
        RuleCount(rule="mail", direction="egress", action="drop", packets=2, bytes=120),
        RuleCount(rule="ssh", direction="ingress", action="allow", packets=7, bytes=800),
        RuleCount(rule="", direction="ingress", action="drop", packets=1, bytes=60),
    ]


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("nonsense", "no answer"),
        (RuleReply(problem="Open vSwitch of host xen2 does not answer").encode(), "does not answer"),
        (None, "the agent of host xen2 did not answer within 1 s"),
    ],
    ids=["nonsense", "no-switch", "silent"],
)
async def test_a_host_that_does_not_answer_is_named(
    client: AsyncClient, rows: OvsdbClient, reply: str | None, problem: str
) -> None:
    replies = {"xen1": RuleReply((RuleCounter("ssh", IN, 3, 300),)).encode()} | ({"xen2": reply} if reply else {})
    found = await counted(client, rows, replies, wait_s=1)
    assert (found.hosts, list(found.missing)) == (["xen1"], ["xen2"])
    assert problem in found.missing["xen2"]
    assert next(rule.packets for rule in found.rules if rule.rule == "ssh") == 3


@pytest.mark.usefixtures("members")
async def test_a_dead_host_is_named_and_not_asked(
    client: AsyncClient, pool: PoolDatabase, rows: OvsdbClient, capsys: Capture, running: Controller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for host in HOSTS:
        await FakeAgent(pool, host, client).beat(ago_ms=60_000)
    asked: list[Change] = []
    (await rows.monitor({"RuleQuery": Monitor()})).subscribe(asked.extend)
    monkeypatch.setenv("VNET_CONTROLLER", running.address)
    code, out, err = await asyncio.to_thread(vnet, capsys, "security-group", "counters", "web")
    assert (code, [line.split()[:2] for line in out.splitlines()[1:]]) == (
        ExitCode.OK, [["web", "mail"], ["web", "ssh"], ["web", "(default)"]],
    )  # fmt: skip
    assert err.splitlines() == [
        f"not in the sums: host {host}: the agent of host {host} does not report" for host in HOSTS
    ]
    assert await asyncio.to_thread(vnet, capsys, "show", "rules") == (code, out, err)
    assert await asyncio.to_thread(vnet, capsys, "show", "rules", "--group", "web") == (code, out, err)
    assert await queries(rows) == asked == []


@pytest.mark.usefixtures("running")
async def test_calls_that_are_refused(client: AsyncClient) -> None:
    with pytest.raises(NotFound):
        await client.group_counters("nobody")
    await client.put_security_group("idle", SPEC)
    assert (await client.group_counters("idle")).hosts == []
    with pytest.raises(Invalid):
        await client.group_counters("idle", wait_s=31)
    await client.delete_security_group("idle")


async def test_the_leader_forgets_questions_that_nobody_took_away(running: Controller, rows: OvsdbClient) -> None:
    old, new = (
        RuleQuery(id, "xen1", now_ms() - age_ms, "web") for id, age_ms in (("old", FORGOTTEN_AFTER_MS * 2), ("new", 0))
    )
    await rows.transact(*(Insert("RuleQuery", to_columns(query)) for query in (old, new)))
    running.stop()
    running.start()  # it looks first as it begins to lead
    await rows.wait_connected(10)
    await rows.transact(Wait("RuleQuery", (("id", "==", "old"),), ("host",), (), "==", 10_000))
    assert {row["id"] for row in await queries(rows)} == {"new"}


def test_the_answer_of_the_largest_group_fits() -> None:
    counters = tuple(RuleCounter(f"{number:063}", OUT, 2**63, 2**63) for number in range(MAX_RULES))
    assert RuleReply.decode(RuleReply(counters).encode()) == RuleReply(counters)
    more = RuleReply(counters * 8)
    assert RuleReply.decode(more.encode()).problem
    assert len(more.encode()) < MAX_ANSWER_BYTES
