"""The framer cuts the stream where the objects end, however the stream comes in pieces."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovsctl.ovsdb import MessageTooLong, ProtocolError
from ovsctl.ovsdb.framing import Framer

tricky = st.text('{}"\\ \n[]:,aé', max_size=8)
inner = st.recursive(
    tricky | st.integers() | st.none(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(tricky, part, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(tricky, inner, max_size=3)
separators = st.sampled_from(["", " ", "\n", "\r\n\t "])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(st.tuples(objects, separators), max_size=5), st.lists(st.integers(0, 200), max_size=10), st.booleans())
def test_messages_come_out_however_they_are_cut(
    messages: list[tuple[dict[str, Any], str]], cuts: list[int], ascii_only: bool
) -> None:
    data = "".join(json.dumps(m, ensure_ascii=ascii_only) + gap for m, gap in messages).encode()
    framer = Framer(10_000)
    out = [json.loads(m) for piece in pieces(data, cuts) for m in framer.feed(piece)]
    assert out == [message for message, _ in messages]
    assert framer.pending_bytes == 0


@given(objects, st.integers(0, 100))
def test_a_prefix_is_kept_until_the_rest_comes(message: dict[str, Any], cut: int) -> None:
    data = json.dumps(message).encode()
    cut = min(cut, len(data) - 1)
    framer = Framer(10_000)
    assert framer.feed(data[:cut]) == []
    assert framer.pending_bytes == cut
    assert framer.feed(b"") == []
    assert [bytes(m) for m in framer.feed(data[cut:])] == [data]


def test_byte_by_byte() -> None:
    data = json.dumps({'a\\"}{': ['"', "\\", {"b": "}"}]}).encode() * 3
    framer = Framer(1000)
    out = [m for index in range(len(data)) for m in framer.feed(data[index : index + 1])]
    assert b"".join(map(bytes, out)) == data
    assert len(out) == 3


@pytest.mark.parametrize("data", [b"x", b"[]", b'"{}"', b"}", b"{}}", b"{} x{", b"{}]{}", b"1 {}", b'""{}'])
def test_what_does_not_begin_with_an_object_is_refused(data: bytes) -> None:
    framer = Framer(1000)
    with pytest.raises(ProtocolError, match="message"):
        framer.feed(data)
    framer = Framer(1000)
    with pytest.raises(ProtocolError, match="message"):  # noqa: PT012 - at some byte
        for byte in data:
            framer.feed(bytes([byte]))


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("data", [b'{"a":"' + b"x" * 2000 + b'"}', b"{" * 2000, b'{"a":[' + b"{}," * 1000])
def test_memory_is_bounded(data: bytes, size: int) -> None:
    framer = Framer(1000)
    with pytest.raises(MessageTooLong):  # noqa: PT012 - at some piece
        for start in range(0, len(data), size):
            framer.feed(data[start : start + size])
            assert framer.pending_bytes <= 1000
    assert framer.pending_bytes <= 1000


@example([b"{", b'"', b"{", b'"', b"\\", b"{}"])
@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"{", b"}", b'"', b"\\", b"{}"]), max_size=30))
def test_any_bytes_are_cut_or_refused_the_same_in_pieces_and_whole(parts: list[bytes]) -> None:
    def run(chunks: list[bytes]) -> tuple[list[bytes], bool]:
        framer, out = Framer(10_000), []
        try:
            for chunk in chunks:
                out += [bytes(m) for m in framer.feed(chunk)]
        except ProtocolError:
            return out, False
        return out, True

    whole, fine = run([b"".join(parts)])
    apart, also_fine = run(parts)
    assert fine == also_fine
    assert whole == apart[: len(whole)]
    assert not fine or whole == apart
