"""Blocks of pcapng: what is written is read back, by us and by scapy; bytes of others are refused or wait for more."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from vnet.util import pcapng
from vnet.util.pcapng import Block, CaptureDirection, PcapngBlocks

TIMES = st.integers(0, (1 << 63) - 1)
FRAMES = st.binary(min_size=1, max_size=70)


@given(st.lists(st.tuples(FRAMES, TIMES, st.sampled_from(CaptureDirection)), max_size=5), st.integers(1, 40))
def test_frames_are_read_back_however_the_stream_is_cut(
    packets: list[tuple[bytes, int, CaptureDirection]], cut: int
) -> None:
    name, comment = "web/0 sent, xen1", "wrong by 0.1 ms at most"
    data = pcapng.section("vnet", "an id") + pcapng.interface(name, comment=comment, mac=bytes(6), filter="tcp")
    for frame, at_ns, direction in packets:
        data += pcapng.packet(0, frame, direction, at_ns, 1500)
    data += pcapng.statistics(0, 7, 1 << 40, 3)
    stream = PcapngBlocks()
    blocks = [block for at in range(0, len(data), cut) for block in stream.feed(data[at : at + cut])]
    assert b"".join(blocks) == data
    assert pcapng.section_of(blocks[0]) == "an id"
    assert pcapng.interface_of(blocks[1]) == (name, comment)
    assert [pcapng.packet_of(block) for block in blocks[2:-1]] == [(0, at_ns, frame) for frame, at_ns, _ in packets]
    assert pcapng.type_of(blocks[-1]) == Block.STATISTICS
    assert pcapng.statistics_of(blocks[-1]) == (0, 1 << 40, 3)
    read = list(RawPcapNgReader(io.BytesIO(data)))
    assert [(frame, meta.direction, meta.wirelen) for frame, meta in read] == [
        (frame, direction, 1500) for frame, _, direction in packets
    ]
    assert [(meta.tshigh << 32 | meta.tslow, meta.tsresol) for _, meta in read] == [
        (at_ns, 10**9) for _, at_ns, _ in packets
    ]


@pytest.mark.parametrize("length", [0, 8, 13, 1 << 21])
def test_what_is_no_block(length: int) -> None:
    with pytest.raises(ValueError, match=f"a block of {length} bytes"):
        list(PcapngBlocks().feed(struct.pack("<II", 6, length)))


@given(st.binary(max_size=64))
def test_options_of_others_are_read_as_far_as_they_go(rest: bytes) -> None:
    block = struct.pack("<II", 1, 16 + len(rest)) + bytes(8) + rest
    name, comment = pcapng.interface_of(block)
    assert len(name) + len(comment) <= len(rest)
