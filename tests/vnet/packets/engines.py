"""A document's pool on each engine: the simulator, the lab without root, and the lab in namespaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from scapy.packet import Packet

from tests.labs import new_name
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.sim import SimPool
from vnet.testing import PoolUnderTest
from vnet.topology import load

ENGINES = [
    "sim",
    pytest.param("dummy", marks=pytest.mark.ovs),
    pytest.param("netns", marks=[pytest.mark.ovs, pytest.mark.netns]),
]


@contextmanager
def running(engine: str, document: bytes) -> Iterator[PoolUnderTest]:
    """The pool of a document, with all VMs started and everything programmed."""
    state = desired_state(load(document, "test.vnet.yaml"), PoolState())
    if engine == "sim":
        yield SimPool.of(state)
        return
    with Lab.up(state, name=new_name(), driver=Driver(engine), daemons=True) as lab:
        lab.start_all()
        lab.wait_ready()
        lab.daemons.settle()
        yield lab


def knows_tag_types(pool: PoolUnderTest) -> bool:
    """Whether its switches tell a service tag from one of 802.1Q: not on the kernel's datapath (ADR 25)."""
    return not isinstance(pool, Lab) or pool.spec.datapath_type != "system"


def receivers(pool: PoolUnderTest, sender: str, frame: Packet) -> list[str]:
    """Everyone who got this very frame, byte for byte."""
    (found,) = receivers_of_each(pool, sender, [frame])
    return found


def receivers_of_each(pool: PoolUnderTest, sender: str, frames: Sequence[Packet]) -> list[list[str]]:
    """Everyone who got each of these frames, byte for byte: the frames leave one after another, and their copies are awaited once."""
    sent = [bytes(frame) for frame in frames]
    items = pool.send(f"{sender}/0", sent).items
    return [sorted(item.to for item in items if item.frame == frame) for frame in sent]
