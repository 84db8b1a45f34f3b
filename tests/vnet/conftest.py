"""Fixtures of tests that speak to a real controller: the controller, its clients and connections to its pool database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from ovsctl.ovsdb import Client
from tests.vnet.controller.daemons import Controller, controller
from tests.vnet.controller.databases import opened
from vnet.client import AsyncClient
from vnet.db.database import PoolDatabase


@pytest.fixture(scope="module")
def running(ovs: None) -> Iterator[Controller]:
    with controller() as made:
        yield made


@pytest.fixture
async def client(running: Controller) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(running.address) as made:
        yield made


@pytest.fixture
async def pool(running: Controller) -> AsyncIterator[PoolDatabase]:
    async with opened(running.database.remote) as database:
        yield database


@pytest.fixture
async def rows(running: Controller) -> AsyncIterator[Client]:
    async with Client([running.database.remote], "Vnet") as made:
        yield made
