"""A pool database whose disk is full: writes are refused with a problem, reads and packets go on, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovsctl.ovsdb import Commit, InputOutputError, Insert, OvsdbClient
from tests.polling import until, wait_until
from tests.servers import run_dir, vswitchd
from tests.vnet.agent.pool import HostUnderTest
from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import stop_embedded
from vnet.api.errors import NoRoom, Refused
from vnet.client import AsyncClient, Client, NetworkSpec
from vnet.db.rows import SCHEMA_NAME

pytestmark = pytest.mark.usefixtures("ovs")

SIZE = "1m"
DOCUMENT = b"""\
apiVersion: vnet/v1
pool: full
hosts: {xen1: {address: 10.99.0.1}}
networks: {lab: {type: internal}}
vms:
  vm1: {vifs: [{network: lab}]}
  vm2: {vifs: [{network: lab}]}
"""


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def controller_on_a_small_disk() -> Iterator[Controller]:
    with run_dir() as path, small_disk(path / "state"):
        made = Controller(path)
        try:
            made.start()
            with made.client() as client:
                client.apply(DOCUMENT, "full.vnet.yaml", wait_s=0)
            yield made
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)


async def fill(controller: Controller) -> Path:
    """Leaves no room on the disk of a database, nor in the last block of its file for the smallest of records."""
    filler = controller.dir / "state" / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    async with OvsdbClient([controller.database.remote], SCHEMA_NAME) as database:
        with contextlib.suppress(InputOutputError):
            while True:
                await database.transact(Insert("Event", {"kind": "x"}), Commit(durable=True))
    return filler


def test_writes_are_refused_and_all_else_goes_on() -> None:
    with controller_on_a_small_disk() as controller, controller.client() as client:
        filler = asyncio.run(fill(controller))
        with pytest.raises(NoRoom, match="No space left on device") as refused:
            client.put_network("more", NetworkSpec(type="internal"))
        assert (refused.value.status, refused.value.code) == (507, "database-full")
        acknowledged = {network.name for network in client.networks()}
        with pytest.raises(Refused) as caught:
            client.apply(DOCUMENT.replace(b"vm2", b"vm3"), "full.vnet.yaml", wait_s=0)
        assert caught.value.code == "database-full"
        assert {vm.name for vm in client.vms()} == {"vm1", "vm2"}
        assert client.status().networks == len(acknowledged)
        filler.unlink()
        client.put_network("after", NetworkSpec(type="internal"))
        assert "Traceback" not in controller.log.read_text()
        pid = controller.database.pid()
        stop_embedded(controller.database)  # killed, and started again by the controller from what is on its disk
        # The pidfile of what was killed is still there, and the controller answers till it hears of the end.
        wait_until(lambda: controller.database.pid() != pid and _answers(client), "the database again")
        assert {network.name for network in client.networks()} == acknowledged | {"after"}


def _answers(client: Client) -> bool:
    with contextlib.suppress(Exception):
        return bool(client.networks())
    return False


async def test_a_port_is_plugged_while_the_disk_is_full() -> None:
    """It has its flows, and is claimed once there is room."""
    with controller_on_a_small_disk() as controller, vswitchd() as switch:
        host = HostUnderTest("xen1", switch, [controller.database.remote])
        host.start()
        try:
            async with AsyncClient(controller.address) as client:
                await until(lambda: host.agent.rows.settled and host.agent.flows.connected, "the agent")
                host.add_port("p1", "vm1/0")

                async def ready(vif: str) -> bool:
                    return any(binding.ready for binding in await client.bindings(vif=vif))

                await until(lambda: ready("vm1/0"), "vm1 ready")
                filler = await fill(controller)
                host.add_port("p2", "vm2/0")
                vm2 = await client.vif("vm2/0")
                await until(lambda: any(f"dl_src={vm2.mac}" in flow for flow in host.flows()), "flows of vm2")
                assert "vm2/0" in host.agent.pool.overlay
                assert not await client.bindings(vif="vm2/0")
                filler.unlink()
                await until(lambda: ready("vm2/0"), "vm2 ready")
        finally:
            await host.stop()
