"""Hellos as frames: what is written is read, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vnet.util.hello_frames import MAX_NAME_BYTES, HostHello, hello_frame, pool_mark, read_hello, vlan_of

NAMES = st.text(st.characters(codec="ascii"), max_size=63)
HELLOS = st.builds(
    HostHello, st.just(pool_mark("p")), NAMES, NAMES, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**63),
    st.booleans(), st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 0xFFFF), st.integers(0, 4095),
)  # fmt: skip


@given(HELLOS, st.integers(0, 9216), st.integers(0, 4095))
def test_a_hello_is_read_as_it_was_written_with_a_tag_and_without(hello: HostHello, size: int, tag: int) -> None:
    frame = hello_frame(hello, size)
    assert len(frame) >= max(size, 60)
    assert read_hello(frame) == hello
    tagged = frame[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + frame[12:]
    assert read_hello(tagged) == hello
    assert (vlan_of(frame), vlan_of(tagged)) == (0, tag)


@given(st.binary(max_size=200), st.integers(0, 120))
def test_hostile_frames_are_read_without_failing(noise: bytes, keep: int) -> None:
    read_hello(noise)
    frame = hello_frame(HostHello(pool_mark("p"), "h" * 63))
    found = read_hello(frame[:keep] + noise)
    assert found is None or len(found.host) <= MAX_NAME_BYTES
    assert read_hello(frame[:40]) is None
