"""Decoders and parsers on what nobody should send: a typed error or a value, never anything else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ovsctl.openflow import (
    Band,
    Bucket,
    Flow,
    Group,
    GroupType,
    InvalidValueError,
    MalformedMessage,
    Meter,
    Output,
    decode_flow_descs,
    decode_flow_mod,
    decode_group_descs,
    decode_group_mod,
    decode_meter_descs,
    decode_meter_mod,
    encode_flow_mod,
    encode_group_mod,
    encode_meter_mod,
    format_flow,
    parse_actions,
    parse_flow,
    parse_match,
)
from tests.examples import examples
from tests.ovsctl.openflow.generate import Maker

ROUNDS = examples(60)
SEEDS = st.integers(0, 2**64 - 1)
_GROUP = encode_group_mod(
    Group(
        7,
        GroupType.SELECT,
        (Bucket((Output(1),), weight=3), Bucket((Output(2),), watch_port=4)),
        "hash",
        1,
        ("ip_src",),
    )
)


def flow_desc(flow: Flow) -> bytes:
    """The flow as an OFPMP_FLOW_DESC entry, with all statistics."""
    body = encode_flow_mod(flow)
    match, rest = flow.match.wire, body[40 + len(flow.match.wire) :]
    stats = bytes.fromhex(
        "8002000800000005000003e8 8002020800000001000001f4 800208080000000000000003 80020a080000000000000063"
    )
    stats = (0).to_bytes(2, "big") + (len(stats) + 4).to_bytes(2, "big") + stats
    stats += bytes(-len(stats) % 8)
    head = flow.table.to_bytes(1, "big") + b"\0" + flow.priority.to_bytes(2, "big")
    head += flow.idle_timeout.to_bytes(2, "big") + flow.hard_timeout.to_bytes(2, "big")
    head += (flow.flags & 25).to_bytes(2, "big") + flow.importance.to_bytes(2, "big") + flow.cookie.to_bytes(8, "big")
    entry = head + match + stats + rest
    return (len(entry) + 4).to_bytes(2, "big") + b"\0\0" + entry


DECODERS: list[tuple[Callable[[bytes], object], Callable[[Maker], bytes]]] = [
    (decode_flow_mod, lambda make: encode_flow_mod(make.flow())),
    (lambda data: list(decode_flow_descs(data)), lambda make: flow_desc(make.flow()) + flow_desc(make.flow())),
    (decode_group_mod, lambda make: _GROUP),
    (
        lambda data: list(decode_group_descs(data)),
        lambda make: len(_GROUP).to_bytes(2, "big") + _GROUP[2:8] + _GROUP[8:],
    ),
    (decode_meter_mod, lambda make: encode_meter_mod(Meter(1, (Band(5, 6),)))),
    (
        lambda data: list(decode_meter_descs(data)),
        lambda make: b"\0\x18" + encode_meter_mod(Meter(1, (Band(5, 6),)))[2:],
    ),
]


def damage(rng: Random, data: bytes) -> bytes:
    """Cut, grow, flip bits of, or overwrite some of `data`."""
    broken = bytearray(data)
    way = rng.randrange(5)
    if way == 0:
        return data[: rng.randrange(len(data))]
    if way == 1:
        return data + rng.randbytes(rng.randrange(1, 40))
    if way == 2:
        return rng.randbytes(rng.randrange(200))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(broken))
        broken[at] = rng.choice((broken[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255))
    return bytes(broken)


@ROUNDS
@given(seed=SEEDS)
def test_damaged_messages(seed: int) -> None:
    rng = Random(seed)
    make = Maker(rng)
    for decode, whole in DECODERS:
        good = whole(make)
        decode(good)
        for _ in range(15):
            with contextlib.suppress(MalformedMessage):
                decode(damage(rng, good))


def test_flow_desc_is_read() -> None:
    for flow in Maker(Random(1)).flows(200):
        (entry,) = decode_flow_descs(flow_desc(flow))
        assert entry.flow == flow
        assert entry.stats == (5.000001, 1.0000005, 3, 99)


@ROUNDS
@given(seed=SEEDS)
def test_damaged_text(seed: int) -> None:
    rng = Random(seed)
    for flow in Maker(rng).flows(15):
        text = list(format_flow(flow))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(text))
            text[at] = rng.choice(
                ("", "(", ")", "[", "]", ",", "=", ":", "/", "-", ">", "0", "x", " ", "é", text[at] * 2)
            )
        try:
            again = parse_flow("".join(text))
        except InvalidValueError:
            continue
        assert parse_flow(format_flow(again)) == again


@examples(300)
@given(text=st.text(st.sampled_from('ct(nat=src.->[]0123:,/ xloadregu"+|é'), max_size=60))
def test_any_text(text: str) -> None:
    for parse in (parse_flow, parse_match, parse_actions, lambda text: parse_flow("actions=" + text)):
        with contextlib.suppress(InvalidValueError):
            parse(text)
