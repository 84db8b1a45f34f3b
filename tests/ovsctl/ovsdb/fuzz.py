"""Hostile servers: `python -m tests.ovsctl.ovsdb.fuzz SECONDS` runs for long, the suite runs it shortly.

Real messages are cut, flipped, spliced and repeated; the session and the replica must answer with
events or a ProtocolError, keep no more than the limit, and need time in proportion to the bytes.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time

from ovsctl.ovsdb import Monitor, Notification, ProtocolError, Replica, Reply, Schema, Session
from tests.ovsctl.ovsdb.schemas import SCHEMA, SCHEMA_JSON

LIMIT_BYTES = 100_000
U = "11111111-2222-4333-8444-555555555555"
_ROW = {
    "i": 5,
    "r": 1.5,
    "b": True,
    "s": 'a"}{\\',
    "u": ["uuid", U],
    "class": "x",
    "set_s": ["set", ["a", "b"]],
    "set_u": ["uuid", U],
    "map_ss": ["map", [["a", "b"]]],
    "map_us": ["map", [[["uuid", U], "b"]]],
}
SEEDS = [
    json.dumps(text).encode()
    for text in (
        {"id": 1, "result": [False, U, {"Kind": {U: {"initial": _ROW}}}], "error": None},
        {"method": "update3", "params": ["m", U, {"Kind": {U: {"modify": _ROW}}}], "id": None},
        {"method": "update3", "params": ["m", U, {"Kind": {U: {"insert": _ROW}, U[::-1]: {"delete": None}}}]},
        {"method": "echo", "params": [{"x": [1, 2, {}]}], "id": "e"},
        {"id": 2, "result": None, "error": {"error": "unknown database", "details": "x"}},
        {"id": 1, "result": SCHEMA_JSON, "error": None},
    )
]
_TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b",",
    b":",
    b"null",
    b"1e999",
    b"-",
    b"\xff",
    b"\x00",
    b'"set"',
    b"9" * 40,
]


def mangle(rng: random.Random, data: bytearray) -> bytearray:
    """One to four changes of the bytes."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                del data[at:]
            case 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at:at] = rng.choice(_TOKENS) * rng.choice((1, 1, 1, 2000))
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                del data[at : at + rng.randint(1, 30)]
            case _:
                other = rng.choice(SEEDS)
                data[at:at] = other[rng.randrange(len(other)) :]
    return data


def one_case(rng: random.Random) -> None:
    """Feed one stream; raises whatever is not a ProtocolError."""
    session = Session(max_message_bytes=LIMIT_BYTES)
    replica = Replica(SCHEMA, {"Kind": Monitor()})
    for _ in range(3):
        session.request("x", [])
    stream = mangle(rng, bytearray(b"".join(rng.choice(SEEDS) for _ in range(rng.randint(1, 4)))))
    if rng.random() < 0.01:
        stream *= 200
    try:
        while stream:
            size = rng.choice((1, 7, 100, 10_000)) if len(stream) < 10_000 else 10_000
            piece, stream = bytes(stream[:size]), stream[size:]
            for event in session.receive(piece):
                if isinstance(event, Reply):
                    _swallow(replica.fold_initial, event.result)
                    _swallow(Schema.parse, event.result)
                elif isinstance(event, Notification):
                    _swallow(lambda raw: replica.fold_update(U, raw), event.params)
    except ProtocolError:
        pass


def _swallow(decode: object, raw: object) -> None:
    with contextlib.suppress(ProtocolError):
        decode(raw)  # type: ignore[operator]


def run(seconds: float, seed: int) -> int:
    """How many cases passed in the time."""
    rng, cases, end = random.Random(seed), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        one_case(rng)
        cases += 1
    return cases


if __name__ == "__main__":
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    print(f"{run(float(sys.argv[1]), seed)} cases without anything but events and typed errors")
