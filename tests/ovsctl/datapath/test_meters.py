"""Meters: the emulated bridge and ovs-vswitchd's userspace datapath drop the same packets, with its clock stopped."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from ovsctl.datapath import EmulatedBridge, EmulatedPort, Passed, TokenBucketMeter, UnsupportedFlowError
from ovsctl.openflow import (
    Band,
    BandType,
    Bucket,
    Flow,
    Group,
    GroupAction,
    GroupType,
    Match,
    Meter,
    MeterAction,
    Output,
    Resubmit,
)
from tests.ovsctl.datapath.real_bridge import RealBridge, real_bridge

PORTS = (1, 2, 3)
FRAME = bytes.fromhex("020000000002020000000001") + b"\x12\x34"
METERS = {
    "kilobits": Meter(1, (Band(8, 2),)),
    "kilobits, no burst": Meter(1, (Band(2),)),
    "packets": Meter(1, (Band(100, 3),), packets=True),
    "packets, no burst": Meter(1, (Band(5),), packets=True),
    "two bands": Meter(1, (Band(4, 1), Band(16, 3))),
}


@pytest.fixture(scope="module")
def bridge() -> Iterator[RealBridge]:
    with real_bridge(PORTS) as running:
        running.appctl("time/stop")
        yield running


def flows(*actions: MeterAction | Output | GroupAction) -> list[Flow]:
    return [Flow(Match(in_port=1), actions, priority=10)]


@pytest.mark.usefixtures("ovs")
@pytest.mark.parametrize("name", METERS)
def test_same_packets_are_dropped_as_time_passes(bridge: RealBridge, name: str) -> None:
    rng, meter = Random(name), METERS[name]
    installed = flows(MeterAction(1), Output(2))
    bridge.set(installed, meters=[meter])
    emulated = EmulatedBridge(installed, ports={n: EmulatedPort(f"p{n}") for n in PORTS}, meters=[meter])
    now_ms, passed = 0, []
    for _ in range(60):
        elapsed_ms = rng.choice((0, 0, 1, 7, 60, 900))
        if elapsed_ms:
            bridge.appctl("time/warp", str(elapsed_ms))
            now_ms += elapsed_ms
        frame = FRAME + bytes(rng.choice((50, 100, 200)))
        real = bridge.send(1, frame)
        assert [(out.port, out.frame) for out in emulated.receive(frame, 1, now_us=1000 * now_ms)] == real
        passed.append(bool(real))
    assert any(passed)
    assert not all(passed)
    assert emulated.meters[1].packets == 60
    assert sum(band.packets for band in emulated.meters[1].bands) == passed.count(False)


@pytest.mark.usefixtures("ovs")
def test_meter_in_a_bucket_drops_the_packet_for_later_buckets(bridge: RealBridge) -> None:
    meter = Meter(1, (Band(1, 1),), packets=True)
    buckets = (Bucket((Output(3),), 1), Bucket((Resubmit(table=5),), 2), Bucket((Output(3),), 3))
    group = Group(1, GroupType.ALL, buckets)
    installed = [*flows(GroupAction(1)), Flow(Match(), (MeterAction(1), Output(2)), table=5)]
    bridge.set(installed, [group], meters=[meter])
    emulated = EmulatedBridge(
        installed, ports={n: EmulatedPort(f"p{n}") for n in PORTS}, groups=[group], meters=[meter]
    )
    for _ in range(3):
        real = sorted(bridge.send(1, FRAME + bytes(50)))
        assert sorted((out.port, out.frame) for out in emulated.receive(FRAME + bytes(50), 1)) == real
    assert [port for port, _ in real] == [3]


def test_trace_says_which_meter_dropped() -> None:
    emulated = EmulatedBridge(
        flows(MeterAction(1), Output(2)),
        ports={n: EmulatedPort(f"p{n}") for n in PORTS},
        meters=[Meter(1, (Band(1, 1),), packets=True)],
    )
    assert emulated.receive(FRAME, 1)
    notes: list[Passed] = []
    assert not emulated.receive(FRAME, 1, notes=notes)
    assert notes[-1].text == "dropped by meter 1"


def test_tokens_and_counters_outlast_other_meters_and_end_with_a_change() -> None:
    meter, other = Meter(1, (Band(1, 1),), packets=True), Meter(2, (Band(1, 1),), packets=True)
    emulated = EmulatedBridge(meters=[meter])
    assert emulated.meters[1].admits(100, 0)
    emulated.replace_meters([meter, other])
    assert not emulated.meters[1].admits(100, 0)
    emulated.replace_meters([Meter(1, (Band(1, 2),), packets=True)])
    assert emulated.meters[1].admits(100, 0)
    assert emulated.meters.keys() == {1}


def test_snapshot_has_its_own_tokens() -> None:
    emulated = EmulatedBridge(meters=[Meter(1, (Band(1, 1),), packets=True)])
    before = emulated.snapshot()
    emulated.meters[1].admits(100, 0)
    emulated.restore(before)
    assert emulated.meters[1].admits(100, 0)


def test_band_that_remarks_is_refused() -> None:
    with pytest.raises(UnsupportedFlowError, match="meter 1"):
        TokenBucketMeter(Meter(1, (Band(1, type=BandType.DSCP_REMARK, precedence=1),)))
