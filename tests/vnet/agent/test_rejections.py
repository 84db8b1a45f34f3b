"""The agent's own limit of answers to rejected packets, and which packet a packet-in is about."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from ovsctl.openflow import Match
from ovsctl.openflow.messages import PacketIn, PacketInReason
from vnet.agent.rejections import Rejections, rejected_of
from vnet.agent.token_bucket import NS, TokenBucket
from vnet.compile import HostInputs, HostView, RejectReply
from vnet.objects.limits import REJECTIONS_OF_HOST


def test_a_bucket_lets_its_rate_pass() -> None:
    now = 5 * NS
    bucket = TokenBucket(3, lambda: now)
    assert [bucket.admits() for _ in range(5)] == [True, True, True, False, False]
    now += NS // 3
    assert [bucket.admits() for _ in range(2)] == [True, False]
    now += 100 * NS
    assert [bucket.admits() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("fields", "source"),
    [({}, None), ({"tun_src": "10.99.0.2"}, "10.99.0.2"), ({"tun_ipv6_src": "fd00::2"}, "fd00::2")],
    ids=["no tunnel", "IPv4", "IPv6"],
)
def test_the_sending_host_is_read_from_the_tunnel(fields: dict[str, str], source: str | None) -> None:
    found = rejected_of(message(in_port=7, metadata=3, **fields))
    assert (found.in_port, found.segment, found.tun_src) == (7, 3, source)


def message(**fields: Any) -> PacketIn:
    return PacketIn(PacketInReason.ACTION, 86, 1, Match(**fields), b"\0" * 60, 60, b"vnet:reject:\1\0\1")


def test_a_flood_costs_a_host_so_many_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[RejectReply] = []
    reply = RejectReply(b"", 1, ())
    monkeypatch.setattr("vnet.agent.rejections.reply_to", lambda *_: reply)
    rejections = Rejections(HostView(HostInputs("xen1")), _Flows(sent), _Shell(), lambda: NS)  # type: ignore[arg-type]
    for _ in range(REJECTIONS_OF_HOST + 9):
        rejections.packet_in(message(in_port=7))
    assert len(sent) == REJECTIONS_OF_HOST
    assert rejections.counts == {"answered": REJECTIONS_OF_HOST, "over the rate": 9}


def test_a_traced_frame_is_answered_once_it_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """ofproto/trace sends to the agent what the flow would, and nothing else."""
    sent: list[RejectReply] = []
    monkeypatch.setattr("vnet.agent.rejections.reply_to", lambda *_: RejectReply(b"", 1, ()))
    rejections = Rejections(HostView(HostInputs("xen1")), _Flows(sent), _Shell(), lambda: NS)  # type: ignore[arg-type]
    rejections.traced.note(b"\0" * 12 + b"\x81\0\0\x07" + b"\0" * 48)  # of a trunk: its tag is taken off
    for count in (0, 1):
        rejections.packet_in(message(in_port=7))
        assert len(sent) == count


class _Flows:
    def __init__(self, sent: list[RejectReply]) -> None:
        self.sent = sent

    async def send_reply(self, reply: RejectReply) -> None:
        self.sent.append(reply)


class _Shell:
    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        with pytest.raises(StopIteration):
            job.send(None)
