"""The controller's half: what may be asked, what a host that is silent comes to, and that no question stays behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ovsctl.ovsdb import Insert, OvsdbClient, Select, Update, Wait
from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import FakeAgent
from vnet.api import ProbeCall, ProbesCall, TunnelCall
from vnet.client import AsyncClient, Invalid, NotFound
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.probes import FORGOTTEN_AFTER_MS, Answer, Probe
from vnet.db.rows import to_columns

FRAME = (b"\x0a\0\0\0\0\x02" + b"\x0a\0\0\0\0\x01" + b"\x08\0").hex()


async def probes(rows: OvsdbClient) -> list[Any]:
    (found,) = await rows.transact(Select("Probe"))
    return list(found)


async def test_a_host_without_an_agent_answers_that(client: AsyncClient, rows: OvsdbClient) -> None:
    (said,) = await client.probe(ProbesCall(probes=[ProbeCall(host="xen2", frame=FRAME, vif="web1/0")]))
    assert (said.host, said.text) == ("xen2", "")
    assert "no agent of host xen2" in said.problem
    assert await probes(rows) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame": "zz" * 14}, {"frame": "00"}, {"frame": "0" * 31}, {"frame": "00" * 10_000}, {"vif": None}, {"device": "eth0"},
        {"tunnel": TunnelCall(key=1, source="10.0.0.1", target="fd00::1")}, {"tunnel": TunnelCall(key=1, source="x", target="y")},
        {"tracked": ["new+trk --ct-next"]}, {"tunnel": TunnelCall(key=1 << 32, source="10.0.0.1", target="10.0.0.2")},
    ],
)  # fmt: skip
async def test_what_nobody_may_ask(client: AsyncClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await client.probe(
            ProbesCall(probes=[ProbeCall(**({"host": "xen1", "frame": FRAME, "vif": "web1/0"} | wrong))])
        )


async def test_a_host_that_is_not_there(client: AsyncClient) -> None:
    with pytest.raises(NotFound):
        await client.probe(ProbesCall(probes=[ProbeCall(host="xen9", frame=FRAME, vif="web1/0")]))


@pytest.mark.parametrize("said", [Answer("text", {"3": "web1/0"}, {"1": "vnet-vxlan"}), "nonsense", None])
async def test_what_an_agent_says_is_passed_on(
    client: AsyncClient, pool: PoolDatabase, rows: OvsdbClient, said: Answer | str | None
) -> None:
    await FakeAgent(pool, "xen1", client).beat()
    wait_s = 10.0 if said is not None else 0.2
    question = ProbeCall(host="xen1", frame=FRAME, vif="web1/0")
    call = asyncio.create_task(client.probe(ProbesCall(probes=[question], wait_s=wait_s)))
    if said is not None:
        await rows.transact(Wait("Probe", (), ("host",), (), "!=", 10_000))
        asked = await probes(rows)
        assert (asked[0]["host"], asked[0]["vif"], asked[0]["frame"]) == ("xen1", "web1/0", FRAME)
        text = said.encode() if isinstance(said, Answer) else said
        await rows.transact(Update("Probe", (("id", "==", asked[0]["id"]),), {"answer": text}))
    (got,) = await call
    if isinstance(said, Answer):
        assert (got.text, got.vifs, got.devices, got.problem) == (said.text, said.vifs, said.devices, "")
    else:
        assert ("no answer" if said else "did not answer within 0.2 s") in got.problem
    assert await probes(rows) == []


async def test_the_leader_forgets_what_nobody_took_away(running: Controller, rows: OvsdbClient) -> None:
    old, new = (
        Probe(id, "xen1", now_ms() - age_ms, FRAME, "web1/0") for id, age_ms in (("old", FORGOTTEN_AFTER_MS * 2), ("new", 0))
    )  # fmt: skip
    await rows.transact(*(Insert("Probe", to_columns(probe)) for probe in (old, new)))
    running.stop()
    running.start()  # it looks first as it begins to lead
    await rows.wait_connected(10)
    await rows.transact(Wait("Probe", (("id", "==", "old"),), ("host",), (), "==", 10_000))
    assert {row["id"] for row in await probes(rows)} == {"new"}
