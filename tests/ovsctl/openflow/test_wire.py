"""The framing and the bounded reader: whatever the bytes, a message, a wait for more, or a DecodeError."""

from __future__ import annotations

from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.openflow.errors import MalformedMessage
from ovsctl.openflow.wire import MessageFramer, Reader, encode_property, frame


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50)), max_size=6), st.data())
def test_any_cut_of_the_stream_gives_the_same_messages(messages: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(kind, xid, body) for xid, (kind, body) in enumerate(messages))
    framer, got = MessageFramer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += list(framer.feed(stream[:size]))
        stream = stream[size:]
    assert got == [(6, kind, xid, body) for xid, (kind, body) in enumerate(messages)]
    assert framer.buffered == 0


def test_the_framer_holds_at_most_one_message() -> None:
    framer = MessageFramer()
    for _ in range(100):
        assert list(framer.feed(frame(2, 1, bytes(60_000))[:-1] + b"x")) != []
        assert framer.buffered == 0
    list(framer.feed(b"\x06\x02\xff\xff\0\0\0\1" + bytes(65_526)))
    assert framer.buffered == 65_534


@pytest.mark.parametrize("length", [0, 7])
def test_a_message_shorter_than_its_header_ends_the_stream(length: int) -> None:
    with pytest.raises(MalformedMessage, match="less than the header's own"):
        list(MessageFramer().feed(bytes([6, 2, 0, length, 0, 0, 0, 1])))


def test_reader_never_reads_past_its_end() -> None:
    reader = Reader(bytes(10), 0, 4)
    with pytest.raises(MalformedMessage, match="thing: needs 8 bytes, 4 left"):
        reader.unpack(Struct("!Q"), "thing")
    with pytest.raises(MalformedMessage, match="needs 5 bytes"):
        reader.take(5, "thing")
    with pytest.raises(MalformedMessage, match="needs -1 bytes"):
        reader.take(-1, "thing")
    with pytest.raises(MalformedMessage, match="claims 5 bytes"):
        reader.sub(5, 0, "thing")
    with pytest.raises(MalformedMessage, match="claims 3 bytes"):
        reader.sub(3, 4, "thing")
    reader.take(2, "thing")
    reader.skip_pad8(2)
    assert reader.remaining == 0


def test_entries_that_claim_less_than_they_need_do_not_loop() -> None:
    with pytest.raises(MalformedMessage, match="claims 0 bytes"):
        list(Reader(bytes(16)).entries(0, 8, "entry"))
    with pytest.raises(MalformedMessage, match="cut short, 4 bytes left"):
        list(Reader(bytes(4)).entries(0, 8, "entry"))


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40))))
def test_properties_round_trip(properties: list[tuple[int, bytes]]) -> None:
    data = b"".join(encode_property(kind, payload) for kind, payload in properties)
    assert [(kind, payload.rest()) for kind, payload in Reader(data).properties("p")] == properties


def test_the_last_property_may_lack_its_padding() -> None:
    ((kind, payload),) = Reader(encode_property(3, b"abc")[:7]).properties("p")
    assert (kind, payload.rest()) == (3, b"abc")
