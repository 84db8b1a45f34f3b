"""Questions to the twin, on a server in this process: in which order they are answered, and what becomes of one whose caller goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.vnet.controller.daemons import DOCUMENT
from vnet.controller.access import Caller
from vnet.controller.app import application
from vnet.controller.connections import Connections
from vnet.controller.refused_calls import RefusedCalls
from vnet.controller.sockets import Listen, Server
from vnet.controller.twin import Twin
from vnet.db.database import now_ms
from vnet.db.view import PoolView
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.sim.bindings import bound
from vnet.sim.fabric import Arrival, Fabric
from vnet.topology import load
from vnet.util.given_up import NOBODY_WAITS

NAMES = ["first", "second", "third"]
POOL = (
    DOCUMENT
    + b"""\
vms:
  web1: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.10]}]}
  web2: {host: xen2, vifs: [{network: tenant, addresses: [10.1.0.11]}]}
  db1: {host: xen3, vifs: [{network: lab, addresses: [10.1.0.12]}]}
expectations:
  - {name: third, from: web2, to: web1, expect: reachable}
  - {name: first, from: web1, to: web2, expect: reachable}
  - {name: second, from: web1, to: db1, expect: unreachable}
"""
)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """An API over a pool in memory. Closing the client ends its connections."""
    state = bound(desired_state(load(POOL, "t.vnet.yaml"), PoolState()))
    state = replace(state, expectations={name: state.expectations[name] for name in ("third", "first", "second")})
    view = PoolView.of(state, state.hosts)
    service: Any = SimpleNamespace(version="test", refused_calls=RefusedCalls(SimpleNamespace(), now_ms))  # type: ignore[arg-type]
    service.by, service.view, service.caller = lambda caller: service, lambda: view, Caller()
    service.twin = Twin(SimpleNamespace(subscribe=lambda listener: None))  # type: ignore[arg-type]
    listen = Listen(tmp_path / "api.sock")
    server = Server(application(service), listen.bind(), Connections())
    serving = asyncio.create_task(server.serve())
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "api.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=30) as made:
        yield made
    server.should_exit = True
    await serving


async def test_expectations_are_answered_by_name(api: httpx.AsyncClient) -> None:
    answers = [await api.get("/v1/check"), await api.get("/v1/check?down=xen3")]
    assert [[one["name"] for one in answer.json()] for answer in answers] == [NAMES, NAMES]
    assert [one["holds"] for one in answers[0].json()] == [True, True, True]


@pytest.mark.parametrize("path", ["/v1/matrix", "/v1/check", "/v1/failures?expectations=true"])
async def test_a_question_whose_caller_is_gone_is_given_up(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    entrance, sent, asked = Fabric.entrance, [0], asyncio.Event()
    told: list[bool] = []
    loop = asyncio.get_running_loop()

    def counted(self: Fabric, *args: Any) -> Arrival:
        sent[0] += 1
        if sent[0] == 1:
            loop.call_soon_threadsafe(asked.set)
            gone = NOBODY_WAITS.get()
            told.append(gone is not None and gone.wait(10))
        return entrance(self, *args)

    monkeypatch.setattr(Fabric, "entrance", counted)
    asking = asyncio.create_task(api.get(path))
    await asked.wait()
    asking.cancel()  # which closes its connection
    answer = await api.get(path)
    assert answer.status_code == 200
    assert told == [True]
    both = sent[0]
    assert (await api.get(path)).json() == answer.json()
    assert both == 1 + (sent[0] - both) > 2, "no frame was sent for nobody, and the twin is as it was"
