"""Announcements of a VIF that moved here: an agent that stood still does not announce one that has moved on meanwhile."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import Any, cast

from tests.polling import until
from tests.vnet.agent.pool import vif
from vnet.agent.announcer import CATCH_UP_S, STOOD_STILL_S, Announcer
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.reconciler import Revisions
from vnet.agent.uplink_flows import UplinkFlows
from vnet.compile import Compiler, VifRole
from vnet.objects import Binding, BindingState, Host, Network, NetworkType, Uplink
from vnet.objects.devices import patch_device

PROD = Network("prod", NetworkType.VLAN, 3, 1500, key=7, tag=120, uplink="trunk0")
MOVED = replace(vif(1), network="prod")


class Sender:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send_packet(self, frame: bytes, *_: Any) -> None:
        self.sent.append(frame)

    def balanced_by_mac(self, _: str | None) -> bool:
        return False


def binding(host: str, term: int) -> Binding:
    return Binding(MOVED.id, host, "prod", MOVED.mac, term, state=BindingState.ACTIVE, ready=True)


async def test_a_vif_that_moved_on_while_the_agent_stood_still_is_not_announced() -> None:
    compiler, sender = Compiler("xen2"), Sender()
    inputs, view = compiler.inputs, compiler.view
    for host in ("xen2", "xen3"):
        inputs.set_host(Host(host, f"10.99.0.{host[-1]}", uplinks=(Uplink("trunk0", ("eth1",)),)))
    inputs.set_device(patch_device("trunk0"), 7)
    inputs.set_network(PROD)
    inputs.set_vif(MOVED)
    inputs.set_port(MOVED.id, 1)
    inputs.set_binding(binding("xen2", 1))
    assert view.role(MOVED) is VifRole.ACTIVE
    tasks: list[asyncio.Task[None]] = []
    near, far = socket.socketpair()

    async def learn() -> None:
        """As what the pool database says takes some turns of the loop from the socket to the view."""
        for _ in range(5):
            await asyncio.sleep(0)
        inputs.set_binding(binding("xen3", 2))

    def read() -> None:
        near.recv(1)
        tasks.append(asyncio.get_running_loop().create_task(learn()))

    with near, far:
        asyncio.get_running_loop().add_reader(near, read)
        announcer = Announcer(view, cast(BridgeFlows, sender), cast(UplinkFlows, sender), Revisions())
        announcing = asyncio.create_task(announcer.moved(MOVED.id, announced=True))
        await until(lambda: sender.sent, "the first announcement")
        sender.sent.clear()
        far.send(b"1")
        time.sleep(0.1 + 2 * STOOD_STILL_S)  # beyond the pause before the next announcement  # noqa: ASYNC251
        await asyncio.wait_for(announcing, 10 * CATCH_UP_S)
        asyncio.get_running_loop().remove_reader(near)
    assert view.role(MOVED) is not VifRole.ACTIVE
    assert sender.sent == []
