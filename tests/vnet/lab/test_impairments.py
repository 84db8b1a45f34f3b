"""Links that are late, lossy, slow, narrow, without a VLAN or cut, on both drivers, while the lab runs."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from scapy.layers.l2 import Dot1Q, Ether

from tests.labs import SharedLab, new_name
from tests.vnet.lab.pools import bridges, mesh, pool
from tests.vnet.lab.test_lab import BROADCAST, frame, outside
from vnet.lab import Driver, Lab, LabError, LabUnsupported, NotInLab
from vnet.lab.impairments import CABLE, Impairment, OneWay

LABS = {driver: SharedLab(lambda driver=driver: _up(driver)) for driver in Driver}  # type: ignore[misc]


def _up(driver: Driver) -> Lab:
    lab = Lab.up(pool(), name=new_name(), driver=driver)
    bridges(lab)
    lab.start_all()
    mesh(lab)
    return lab


@pytest.fixture(scope="module", autouse=True)
def _ends() -> Iterator[None]:
    yield
    for shared in LABS.values():
        shared.down()


@pytest.fixture(params=list(Driver), ids=lambda driver: driver.value)
def lab(request: pytest.FixtureRequest, netns: None) -> Iterator[Lab]:
    with LABS[request.param].lent() as lent:
        yield lent
        for link in lent.impaired():
            lent.impair(link)


def slowest_ms(lab: Lab, frames: int = 1) -> dict[str, float]:
    """When the last of some frames of vm1 came to each VM, in milliseconds."""
    got = lab.send("vm1/0", [frame()] * frames)
    return {to: max(item.after_ms for item in got if item.to == to) for to in got.to}


def test_a_frame_comes_later(lab: Lab) -> None:
    lab.impair("xen2:underlay", Impairment(delay_ms=150))
    late = slowest_ms(lab)
    assert late["vm2/0"] >= 150 > late["vm3/0"]
    lab.impair("vm3/0", Impairment(delay_ms=300))
    assert slowest_ms(lab)["vm3/0"] >= 300
    assert {link: item.delay_ms for link, item in lab.impaired().items()} == {"xen2:underlay": 150, "vm3/0": 300}
    lab.impair("vm3/0")
    lab.impair("xen2:underlay")
    assert lab.impaired() == {}
    assert max(slowest_ms(lab).values()) < 150


def test_some_frames_are_lost_the_same_each_time(lab: Lab) -> None:
    lab.impair("xen2:underlay", Impairment(loss_percent=50))
    counts = lab.send("vm1/0", [frame()] * 40).counts
    assert counts["vm3/0"] == 40
    assert 8 < counts["vm2/0"] < 32
    lab.impair("vm1/0", Impairment(loss_percent=100))
    assert lab.send("vm1/0", frame()).to == []


def test_a_slow_link_takes_its_time_and_keeps_few(lab: Lab) -> None:
    """1,000 bytes are 40 ms at 200 kbit/s. Ten frames and the one that is being sent are kept."""
    lab.impair("vm2/0", Impairment(rate_bps=200_000))
    got = lab.send("vm1/0", [frame(size=1000)] * 40)
    assert got.counts["vm3/0"] == 40
    assert 11 <= got.counts["vm2/0"] < 40
    assert max(item.after_ms for item in got if item.to == "vm2/0") >= 40 * got.counts["vm2/0"]


def test_a_large_packet_is_lost_where_the_mtu_is_small(lab: Lab) -> None:
    lab.impair("xen2:underlay", Impairment(mtu=1400))
    assert lab.send("vm1/0", frame(size=1300)).to == ["vm2/0", "vm3/0"]
    assert lab.send("vm1/0", frame(size=1400)).to == ["vm3/0"]


def test_a_vlan_is_missing_on_one_port(lab: Lab) -> None:
    """A switch's port that lacks VLAN 120, as the host's bridge sees it."""
    station = lab.station("trunk0")
    lab.impair("xen3:eth1", Impairment(without_vlans=(120,)))
    for tag, mac in ((120, "0e:00:00:00:01:20"), (121, "0e:00:00:00:01:21")):
        lab.send(station, Ether(src=mac, dst=BROADCAST) / Dot1Q(vlan=tag) / (b"x" * 46))
    learned = {host: lab.ovs(host).appctl("fdb/show", "br-trunk0") for host in ("xen2", "xen3")}
    assert ["0e:00:00:00:01:20" in text for text in learned.values()] == [True, False]
    assert all("0e:00:00:00:01:21" in text for text in learned.values())


def test_cut_and_late_together(lab: Lab) -> None:
    lab.impair("xen2:underlay", Impairment(delay_ms=20, cut=True))
    assert str(lab.impaired()["xen2:underlay"]) == "delay 20 ms, cut"
    assert lab.send("vm1/0", frame()).to == ["vm3/0"]
    lab.impair("xen2:underlay", Impairment(delay_ms=20))
    assert lab.send("vm1/0", frame()).to == ["vm2/0", "vm3/0"]
    lab.impair("xen3:eth1", Impairment(cut=True))
    lab.send(lab.station("trunk0", 7), outside())
    assert " 7 " not in lab.ovs("xen3").appctl("fdb/show", "br-trunk0")


def test_no_such_link_is_refused(lab: Lab) -> None:
    refused: list[tuple[str, type[LabError], str]] = [
        ("xen2:eth9", NotInLab, "no link of xen2 'eth9' in this pool; did you mean 'eth1'"),
        ("xen9:eth1", NotInLab, "xen9"),
        ("vm9/0", NotInLab, "vm9/0"),
    ]
    if lab.spec.driver is Driver.DUMMY:
        refused.append(("xen1:database", LabUnsupported, "take '--driver netns'"))
    for link, error, message in refused:
        with pytest.raises(error, match=message):
            lab.impair(link, Impairment(delay_ms=1))
    assert lab.impaired() == {}


def test_the_fate_of_a_frame() -> None:
    def due(impairment: Impairment, frame: bytes, times: int = 1) -> list[float | None]:
        direction = OneWay(Random(1))
        return [direction.due(impairment, frame, 10.0) for _ in range(times)]

    lossy = [
        [link.due(Impairment(loss_percent=50), bytes(64), 0.0) for _ in range(30)] for link in (OneWay(), OneWay())
    ]
    assert lossy[0] == lossy[1]
    assert 5 < lossy[0].count(None) < 25

    short, tagged = bytes(64), bytes(12) + b"\x81\x00\x00\x78" + bytes(50)
    assert due(CABLE, short) == [10.0]
    assert due(Impairment(delay_ms=500), short) == [10.5]
    assert due(Impairment(rate_bps=512), short, 2) == [11.0, 12.0]
    assert due(Impairment(rate_bps=512), short, 13)[10:] == [21.0, None, None]
    assert due(Impairment(without_vlans=(120,)), tagged) == due(Impairment(without_vlans=(0,)), short) == [None]
    assert due(Impairment(without_vlans=(121, 0)), tagged) == [10.0]
    assert due(Impairment(mtu=50), short) == due(Impairment(mtu=48), tagged[:66]) == [10.0]
    assert due(Impairment(mtu=49), short) == due(Impairment(mtu=47), tagged) == [None]


@pytest.mark.parametrize(
    "fault",
    [{"delay_ms": -1}, {"delay_ms": 1e9}, {"loss_percent": 101}, {"rate_bps": 0}, {"without_vlans": (4095,)}],
    ids=str,
)
def test_an_impairment_out_of_range_is_refused(fault: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"delay|loss|rate|VLAN"):
        Impairment(**fault)  # type: ignore[arg-type]
