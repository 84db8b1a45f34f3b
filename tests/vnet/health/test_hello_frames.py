"""Hellos as frames: what is written is read, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vnet.util.frames import SERVICE_VLAN, tagged, vlan_of
from vnet.util.hello_frames import MAX_NAME_BYTES, HostHello, hello_frame, pool_mark, read_hello

NAMES = st.text(st.characters(codec="ascii"), max_size=63)
HELLOS = st.builds(
    HostHello, st.just(pool_mark("p")), NAMES, NAMES, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**63),
    st.booleans(), st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 0xFFFF), st.integers(0, 0x1FFF),
)  # fmt: skip


VLANS = st.one_of(st.integers(1, 4094), st.integers(SERVICE_VLAN | 1, SERVICE_VLAN | 4094))


@given(HELLOS, st.integers(0, 9216), VLANS)
def test_a_hello_is_read_as_it_was_written_with_a_tag_and_without(hello: HostHello, size: int, tag: int) -> None:
    frame = hello_frame(hello, size)
    assert len(frame) >= max(size, 60)
    assert read_hello(frame) == hello
    on_vlan = tagged(frame, tag)
    assert read_hello(on_vlan) == hello
    assert (vlan_of(frame), vlan_of(on_vlan)) == (0, tag)
    assert on_vlan[12:14] == (b"\x88\xa8" if tag > SERVICE_VLAN else b"\x81\x00")


@given(st.binary(max_size=200), st.integers(0, 120))
def test_hostile_frames_are_read_without_failing(noise: bytes, keep: int) -> None:
    read_hello(noise)
    frame = hello_frame(HostHello(pool_mark("p"), "h" * 63))
    found = read_hello(frame[:keep] + noise)
    assert found is None or len(found.host) <= MAX_NAME_BYTES
    assert read_hello(frame[:40]) is None
