"""A VIF's tracked connections on their way between hosts: as rows, as netlink messages, in a kernel, and between two agents."""

from __future__ import annotations

import random
import subprocess
import sys
import zlib
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import Insert, Select
from tests.authorities import TestAuthority
from tests.polling import until
from tests.vnet.agent.pool import TENANT, PoolUnderTest, now_ms, pool_of, vif
from vnet.agent import kernel_tracker
from vnet.db.handovers import (
    ICMP,
    ICMPV6,
    LIVE,
    MAX_HANDED,
    MAX_TIMEOUT_S,
    TCP,
    UDP,
    Handover,
    TrackedConnection,
    decoded,
    encoded,
)
from vnet.db.rows import to_columns
from vnet.objects import Binding, BindingState, SecurityGroup
from vnet.objects.limits import SCTP
from vnet.objects.tiers import Tier

WEB = SecurityGroup("web", 1)
U16, U32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
CONNECTION = TrackedConnection(TCP, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), (5000, 6000), 400, 3)


@st.composite
def tracked(draw: st.DrawFn) -> TrackedConnection:
    protocol = draw(st.sampled_from((TCP, UDP, SCTP, ICMP, ICMPV6)))
    size = {ICMP: 4, ICMPV6: 16}.get(protocol) or draw(st.sampled_from((4, 16)))
    address = st.binary(min_size=size, max_size=size)
    ports = (
        draw(U16),
        128 if protocol == ICMPV6 else draw(st.sampled_from((8, 13))) if protocol == ICMP else draw(U16),
    )
    return TrackedConnection(
        protocol, draw(address), draw(address), ports, draw(st.integers(1, MAX_TIMEOUT_S)),
        draw(st.sampled_from(LIVE[protocol])) if protocol in LIVE else 0, draw(st.booleans()), draw(st.booleans()),
        (draw(U32), draw(U32)) if protocol == SCTP else (0, 0),
    )  # fmt: skip


@given(st.lists(tracked(), max_size=5), U16)
def test_a_connection_is_what_it_was_after_a_row_and_after_a_message(found: list[TrackedConnection], zone: int) -> None:
    assert decoded(encoded(found)) == tuple(found)
    for it in found:
        body = kernel_tracker.entry(it, zone)[kernel_tracker.HEADER.size :]
        assert kernel_tracker.parsed(body, zone) == it
        assert kernel_tracker.parsed(body, zone ^ 1) is None


@given(st.binary(max_size=60), st.booleans(), st.integers(0, 200), st.integers(1, 255))
def test_a_text_that_nobody_wrote_is_refused_whole(junk: bytes, packed: bool, at: int, flip: int) -> None:
    text = b64encode(zlib.compress(junk)).decode() if packed else junk.decode("latin-1")
    good = bytearray(encoded([CONNECTION]).encode())
    good[at % len(good)] ^= flip
    for hostile in (text, good.decode("latin-1")):
        try:
            found = decoded(hostile)
        except ValueError:
            continue
        assert decoded(encoded(found)) == found


def test_a_text_of_more_than_a_host_takes_is_refused() -> None:
    """Also one that is small until it is unpacked."""
    for size in (MAX_HANDED + 1, 100 * MAX_HANDED):
        with pytest.raises(ValueError, match=r"more than 10000|cut short, or too long"):
            decoded(b64encode(zlib.compress(zlib.decompress(b64decode(encoded([CONNECTION]))) * size)).decode())


def test_the_largest_row_is_bounded() -> None:
    rng = random.Random(0)
    worst = [
        TrackedConnection(
            SCTP, rng.randbytes(16), rng.randbytes(16), (rng.randrange(65536), 0), 1, 4, tags=(rng.getrandbits(32), 0)
        )
        for _ in range(MAX_HANDED)
    ]
    assert len(encoded(worst)) < 1024 * 1024


KERNEL = """
import sys
from vnet.agent import kernel_tracker as kernel
from vnet.db.handovers import TrackedConnection
kernel.DATAPATH_DEVICE = "lo"
if reason := kernel.reason_against("system"):
    sys.exit(f"skip: {reason}")
four, six = (b"\\n\\0\\0\\1", b"\\n\\0\\0\\2"), (bytes(15) + b"\\1", bytes(15) + b"\\2")
entered = {
    TrackedConnection(6, *four, (5000, 6000), 4000, 3), TrackedConnection(6, *six, (5000, 6000), 40, 1, False, False),
    TrackedConnection(17, *six, (5, 6), 40, replied=False, assured=False), TrackedConnection(1, *four, (7, 8), 40),
    TrackedConnection(58, *six, (7, 128), 40), TrackedConnection(132, *four, (7, 8), 40, 4, tags=(9, 2**32 - 1)),
}
many = [TrackedConnection(17, b"\\n\\0\\0\\1", bytes([10, 1, 0, n]), (n, 53), 40) for n in range(200)]
assert kernel.take_in(7, [*entered]) == kernel.take_in(8, [*entered, *many]) == 0
assert kernel.take_in(8, [*entered, *many]) == 0, "what is there stays"
def of(zone, most=999):
    return {(it.protocol, it.source, it.target, it.ports, it.state, it.replied, it.assured, it.tags) for it in kernel.listed(zone, most)}
assert of(7) == {(it.protocol, it.source, it.target, it.ports, it.state, it.replied, it.assured, it.tags) for it in entered}
assert len(of(8)) == 206 and len(of(8, 10)) == 10 and not of(9)
kernel.take_out(8, [*entered])
assert len(of(8)) == 200 and len(of(7)) == 6, "no other zone's"
"""


@pytest.mark.usefixtures("netns")
def test_a_kernel_has_what_it_was_given_in_its_zone_and_no_other() -> None:
    done = subprocess.run(["unshare", "-n", sys.executable, "-c", KERNEL], capture_output=True, text=True, check=False)
    if done.stderr.startswith("skip: "):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


class Kernels:
    """Trackers of the hosts, in place of kernels that have zones: this tests what agents do, not what kernels do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.against, self.refused = "", 0
        self.has = [CONNECTION]
        self.taken_in: list[TrackedConnection] = []
        self.taken_out: list[TrackedConnection] = []
        monkeypatch.setattr(kernel_tracker, "reason_against", lambda *_, **__: self.against)
        monkeypatch.setattr(kernel_tracker, "listed", lambda zone, most: self.has[:most])
        monkeypatch.setattr(kernel_tracker, "take_in", self._take_in)
        monkeypatch.setattr(kernel_tracker, "take_out", lambda zone, those: self.taken_out.extend(those))

    def _take_in(self, zone: int, connections: list[TrackedConnection]) -> int:
        self.taken_in += connections
        return self.refused


async def binding(pool: PoolUnderTest, id: str, host: str) -> Binding:
    return (await pool.bindings())[id, host]


async def moved(
    pool: PoolUnderTest, number: int, *, picking_up: bool = False, groups: tuple[str, ...] = ("web",)
) -> str:
    """Moves a VIF in a group from xen1 to xen2, with a pause; returns what its binding there says of its connections. picking_up: it came to xen1
    a moment before."""
    id = f"vm{number}/0"
    await pool.insert(vif(number, host="xen1", groups=groups))
    pool.hosts["xen1"].add_port(f"p{number}", id)
    await pool.wait_ready(id, "xen1")
    if picking_up:
        await pool.update("Binding", ("vif", id), moved=True)
        view = pool.hosts["xen1"].agent.compiler.view
        await until(lambda: (mine := view.binding("tenant", id, "xen1")) and mine.moved, "xen1 picks up")
    await pool.update("Vif", ("id", id), incoming="xen2")
    pool.hosts["xen2"].add_port(f"p{number}", id)
    held = await pool.wait_ready(id, "xen2")
    assert (held.moved, held.connections) == (True, "")
    await pool.hosts["xen2"].agent.open([id], BindingState.RECEIVING)
    pool.hosts["xen2"].agent.wake()

    async def told() -> str:
        return (await binding(pool, id, "xen2")).connections

    if number == 1:
        await until(told, "before the guest runs here")
    await pool.hosts["xen2"].agent.open([id], BindingState.ACTIVE)
    await until(told, "its connections")
    return await told()


@pytest.mark.usefixtures("ovs")
async def test_connections_go_along_or_it_is_told_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the role of hosts, which may write no rows but their own."""
    monkeypatch.setattr("vnet.agent.connection_handover.HANDED_MS", 500)
    kernels = Kernels(monkeypatch)
    async with pool_of("xen1", "xen2", networks=(TENANT,), authority=TestAuthority(tmp_path)) as pool:
        await pool.insert(WEB)

        async def is_moved(id: str, wanted: bool) -> None:
            async def holds() -> bool:
                return (await binding(pool, id, "xen2")).moved is wanted

            await until(holds, f"{id}: moved is {wanted}")

        assert await moved(pool, 1) == "1 came along from host xen1"
        assert kernels.taken_in == [CONNECTION]
        await is_moved("vm1/0", False)
        assert not any(
            "tcp_flags" in flow and "table=22" in flow and "in_port" in flow for flow in pool.hosts["xen2"].flows()
        )
        await until(lambda: kernels.taken_out == [CONNECTION], "they go from the host that it left")

        async def handed() -> bool:
            return await pool.client.transact(Select(Handover.NOUN.table)) != [[]]

        async def none_handed() -> bool:
            return not await handed()

        await until(none_handed, "the row goes")

        number = 1
        for against, refused, has, reason in (
            ("its userspace datapath takes no connections in", 0, 1, "its userspace datapath takes no connections in"),
            ("", 1, 1, "1 of 1 were not taken in"),
            ("", 0, MAX_HANDED + 1, "it has more than 10000"),
            ("", 0, 1, "host xen1 was picking them up itself"),
        ):
            number += 1
            kernels.against, kernels.refused, kernels.has = against, refused, [CONNECTION] * has
            assert await moved(pool, number, picking_up=number == 5) == f"picked up as they go on: {reason}"
            assert (await binding(pool, f"vm{number}/0", "xen2")).moved

        kernels.against, kernels.refused, kernels.has = "", 0, [CONNECTION]
        await pool.insert(SecurityGroup("base", 2, tier=Tier.POOL))
        assert await moved(pool, 6, groups=()) == "1 came along from host xen1", "a tier's group tracks them"

        # A row of a host that the VIF does not leave; then one that is none, from the host that it does.
        kernels.against, kernels.has = "", []
        await pool.insert(vif(9, host="xen1", groups=("web",)))
        pool.hosts["xen1"].add_port("p9", "vm9/0")
        await pool.wait_ready("vm9/0", "xen1")
        await pool.update("Vif", ("id", "vm9/0"), incoming="xen2")
        pool.hosts["xen2"].add_port("p9", "vm9/0")
        held = await pool.wait_ready("vm9/0", "xen2")
        kernels.taken_in.clear()
        for host, text in (("xen3", encoded([CONNECTION])), ("xen1", "nonsense")):
            row = Handover("vm9/0", host, "xen2", held.epoch, now_ms(), "", text)
            await pool.client.transact(Insert(Handover.NOUN.table, to_columns(row)))

        async def refused_row() -> bool:
            return "was not taken in" in (await binding(pool, "vm9/0", "xen2")).connections

        await until(refused_row, "it is told")
        assert not kernels.taken_in
        assert (await binding(pool, "vm9/0", "xen2")).moved
