"""LLDP as bytes, and who is a NIC's neighbour for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib import lldp
from scapy.layers.l2 import Ether

from vnet.health.link_neighbours import MAX_NEIGHBOURS, LinkNeighbours
from vnet.util.lldp_frames import MAX_TEXT, LldpUnit, lldp_frame, read_lldp

MAC, HOST = "0a:00:00:00:00:01", "xen1"
AT = ("trunk0", "eth1")


def part(number: int, value: bytes) -> bytes:
    return (number << 9 | len(value)).to_bytes(2, "big") + value


def frame_of(*parts: bytes) -> bytes:
    return bytes.fromhex("0180c200000e0a000000000188cc") + b"".join(parts)


CHASSIS, PORT, TTL = part(1, b"\x04" + bytes(range(6))), part(2, b"\x05Gi1/0/3"), part(3, b"\0\x78")


def test_what_a_switch_says_is_read() -> None:
    said = frame_of(
        CHASSIS, PORT, TTL, part(4, b"to xen1"), part(5, b"sw1"), part(6, b"some OS"), part(127, b"\x00\x12\x0f\x01\0\0\0\0\0"),
        part(127, b"\x00\x80\xc2\x01\x00\x63"), part(8, b"\x05\x01\xc0\x00\x02\x01\x02\0\0\0\x01\0"), part(0, b""), b"padding",
    )  # fmt: skip
    assert read_lldp(said) == LldpUnit("00:01:02:03:04:05", "Gi1/0/3", 120, "to xen1", "sw1", "192.0.2.1", 99)


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (CHASSIS,),
        (PORT, CHASSIS, TTL),
        (CHASSIS, PORT),
        (CHASSIS, PORT, part(3, b"\1")),
        (part(1, b"\4"), PORT, TTL),
    ],
)
def test_what_does_not_begin_as_a_unit_is_none(parts: tuple[bytes, ...]) -> None:
    assert read_lldp(frame_of(*parts)) is None


def test_texts_are_cut_and_safe_for_a_terminal() -> None:
    found = read_lldp(frame_of(CHASSIS, PORT, TTL, part(5, b"\x1b[2J" + b"x" * 400), part(4, b"\xff\n")))
    assert found is not None
    assert len(found.system) == MAX_TEXT
    assert (found.system + found.port_description).isprintable()


@given(st.binary(max_size=400), st.integers(0, 60))
def test_hostile_frames_are_read_without_failing(noise: bytes, keep: int) -> None:
    for frame in (
        noise,
        frame_of(noise),
        frame_of(CHASSIS, PORT, TTL, noise),
        frame_of(CHASSIS, PORT, TTL)[:keep] + noise,
    ):
        read_lldp(frame)


@pytest.mark.parametrize("address", ["10.99.0.1", "fd99::1"])
def test_what_a_host_says_has_the_fields_of_xenservers_hosts(address: str) -> None:
    frame = lldp_frame(MAC, HOST, "eth1", 120, address, "vnet")
    assert read_lldp(frame) == LldpUnit(HOST, MAC, 120, "eth1", HOST, address)
    names = [type(layer).__name__.removeprefix("LLDPDU") for layer in Ether(frame).iterpayloads()]  # as scapy reads it
    assert lldp.LLDPDU in Ether(frame)
    assert names[2:-1] == [
        "ChassisID", "PortID", "TimeToLive", "PortDescription", "SystemName", "SystemDescription", "SystemCapabilities",
        "ManagementAddress",
    ]  # fmt: skip
    over = read_lldp(lldp_frame(MAC, HOST, "eth1", 0, address, "vnet"))
    assert over == LldpUnit(HOST, MAC, 0)


def test_a_neighbour_is_one_for_as_long_as_it_says_and_behind_a_dead_link_longer() -> None:
    now_s = 0.0
    neighbours = LinkNeighbours(lambda: now_s)
    unit = LldpUnit("sw1", "Gi1/0/3", 120)
    neighbours.hear(*AT, unit)
    assert [it.port for it in neighbours.stated({AT}, ())] == ["Gi1/0/3"]
    now_s = 121.0
    assert [it.port for it in neighbours.stated({AT}, {AT})] == ["Gi1/0/3"]
    assert neighbours.stated({AT}, ()) == ()
    neighbours.hear(*AT, unit)
    neighbours.hear(*AT, unit._replace(ttl_s=0))
    assert neighbours.stated({AT}, ()) == ()
    for number in range(100):
        neighbours.hear(*AT, LldpUnit("sw1", str(number), 120))
    assert len(neighbours.stated({AT}, ())) == MAX_NEIGHBOURS
    assert neighbours.stated((), ()) == neighbours.stated({AT}, ()) == ()
