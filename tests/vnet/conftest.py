"""Fixtures for the tests of several directories: a real controller with its clients and database, and a lab in which a VIF moves."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator

import pytest

from ovsctl.ovsdb import OvsdbClient
from tests.labs import SharedLab
from tests.vnet.controller.daemons import Controller, controller
from tests.vnet.controller.databases import opened
from tests.vnet.packets.moves import three_hosts
from vnet.client import AsyncClient
from vnet.db.database import PoolDatabase


@pytest.fixture(scope="module")
def running(ovs: None) -> Iterator[Controller]:
    with controller() as made:
        yield made


@pytest.fixture(scope="module")
def shared_lab(netns: None) -> Iterator[SharedLab]:
    made = SharedLab(three_hosts)
    yield made
    made.down()


@pytest.fixture
async def client(running: Controller) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(running.address) as made:
        yield made


@pytest.fixture
async def pool(running: Controller) -> AsyncIterator[PoolDatabase]:
    async with opened(running.database.remote) as database:
        yield database


@pytest.fixture
async def rows(running: Controller) -> AsyncIterator[OvsdbClient]:
    async with OvsdbClient([running.database.remote], "Vnet") as made:
        yield made


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More of them than a process has by default, for tests that open as many as the process that they try."""
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
