"""Hostile bytes for the session and every decoder: `python -m tests.ovsctl.openflow.fuzz --seconds 600`.

Messages that ovs-ofctl understands are cut, flipped, spliced and stretched, then fed in pieces. Whatever comes,
the session answers with events or a DecodeError or NegotiationError, and holds a bounded number of bytes.
"""

from __future__ import annotations

import argparse
import random
import time
from struct import pack

from ovsctl.openflow.errors import MalformedMessage, NegotiationError
from ovsctl.openflow.messages import (
    BarrierRequest,
    ErrorMessage,
    FeaturesRequest,
    FlowMonitorRequest,
    FlowStatsRequest,
    GroupDescRequest,
    Hello,
    MessageType,
    MeterDescRequest,
    PortDescRequest,
    PortStatsRequest,
    RoleRequest,
    SwitchDescRequest,
    TableStatsRequest,
)
from ovsctl.openflow.session import OpenFlowSession
from ovsctl.openflow.wire import MAX_MESSAGE, frame
from tests.ovsctl.openflow.test_messages import GROUP, PARTS, REPLIES, STATS

MULTIPARTS = (
    FlowStatsRequest, FlowMonitorRequest, GroupDescRequest, MeterDescRequest, PortDescRequest, PortStatsRequest,
    SwitchDescRequest, TableStatsRequest,
)  # fmt: skip


def corpus() -> list[bytes]:
    """Whole messages with transaction ids that the session below has pending, or 0."""
    from ovsctl.openflow import Flow, Match
    from ovsctl.openflow.actions import Output

    flow = Flow(Match(in_port=1, eth_type=0x800, ip_src="10.0.0.0/8"), (Output(2),))
    rest = flow.match.wire + STATS + flow.encode_instructions()
    desc = pack("!H2xBxHHHHHQ", 24 + len(rest), 1, 2, 3, 4, 0, 0, 9) + rest
    group = pack("!HBxIH6x", 16 + len(GROUP.encode_buckets()), 1, 4, len(GROUP.encode_buckets()))
    parts = [(kind, body) for kind, body, _entries, _text in PARTS]
    parts += [(1, desc * 2), (7, group + GROUP.encode_buckets())]
    parts += [(10, pack("!HHI", 24, 1, 3) + bytes.fromhex("00010010000003e80000000a00000000"))]
    messages = [frame(kind, 2 + n % 4, body) for n, (kind, body, _value, _text) in enumerate(REPLIES)]
    messages += [
        frame(MessageType.MULTIPART_REPLY, xid, pack("!HH4x", kind, more) + body)
        for kind, body in parts
        for xid in (0, *range(5, 14))
        for more in (0, 1)
    ]
    messages += [frame(MessageType.ERROR, xid, ErrorMessage(1, 2, data=b"x").encode()) for xid in range(4)]
    return [*messages, frame(MessageType.ECHO_REQUEST, 1, bytes(40)), frame(0, 0, Hello().encode())]


def spoiled(message: bytes, rng: random.Random) -> bytes:
    """The message, changed in one of several ways; mostly with a length that still frames it."""
    data = bytearray(message)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        how = rng.randrange(6)
        if how == 0:
            del data[at:]
        elif how == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 16))
        elif how == 3 and data:
            data[at] = rng.choice((0, 1, 4, 8, 0x7F, 0xFF))
        elif how == 4:
            data[at : at + rng.randint(1, 8)] = b""
        else:
            data += data[at:]
    if len(data) >= 8 and rng.random() < 0.9:
        del data[MAX_MESSAGE:]
        data[0] = 6
        data[2:4] = len(data).to_bytes(2, "big")
    return bytes(data)


def one_session(messages: list[bytes], rng: random.Random) -> int:
    """Feed one session until it gives up or the bytes end; the number of events it gave."""
    session = OpenFlowSession(max_reply_bytes=1 << 16)
    events = 0
    try:
        events += len(list(session.receive(frame(0, 0, Hello().encode()))))
        session.hello()
        for message in (BarrierRequest(), FeaturesRequest(), RoleRequest()):
            session.request(message)
        for request in MULTIPARTS:
            session.multipart(request(1) if request is FlowMonitorRequest else request())  # type: ignore[call-arg]
        stream = b"".join(spoiled(rng.choice(messages), rng) for _ in range(rng.randint(1, 8)))
        while stream:
            size = rng.choice((1, 7, 64, len(stream)))
            events += len(list(session.receive(stream[:size])))
            assert session._framer.buffered <= MAX_MESSAGE
            stream = stream[size:]
    except (MalformedMessage, NegotiationError):
        pass
    return events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    messages, started, sessions, events = corpus(), time.monotonic(), 0, 0
    while time.monotonic() - started < arguments.seconds:
        events += one_session(messages, random.Random(arguments.seed + sessions))
        sessions += 1
    print(f"{sessions} sessions, {events} events, no other error")


if __name__ == "__main__":
    main()
