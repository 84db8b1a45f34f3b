"""The session without I/O: each answer reaches what caused it, and nothing a peer sends hangs or grows it."""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack

import pytest

from ovsctl.openflow.errors import InvalidValueError, MalformedMessage, NegotiationError, PeerError
from ovsctl.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    ErrorMessage,
    FeaturesRequest,
    Hello,
    MessageType,
    PortDescRequest,
    PortStatsRequest,
    TableStats,
    TableStatsRequest,
)
from ovsctl.openflow.messages.bundle import ATOMIC_ORDERED
from ovsctl.openflow.session import (
    MAX_BATCH_ERRORS,
    Notice,
    OpenFlowSession,
    Ready,
    RequestAnswered,
    RequestFailed,
    State,
    Stray,
    bundle_chunks,
    mod_chunks,
)
from ovsctl.openflow.wire import frame


@dataclass(frozen=True)
class Mod:
    """A modification of `size` zero bytes."""

    size: int = 8
    TYPE: int = MessageType.FLOW_MOD

    def encode(self) -> bytes:
        return bytes(self.size)


def ready(**options: int) -> OpenFlowSession:
    session = OpenFlowSession(**options)
    session.hello()
    assert list(session.receive(frame(0, 0, Hello().encode()))) == [Ready()]
    return session


def error(xid: int, type_code: int = 5, code: int = 6) -> bytes:
    return frame(MessageType.ERROR, xid, ErrorMessage(type_code, code, data=b"quoted").encode())


def test_hello_offers_exactly_openflow_15() -> None:
    assert OpenFlowSession().hello() == bytes.fromhex("06000010000000010001000800000040")


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (frame(0, 0, Hello(frozenset({1, 4})).encode()), "offers OpenFlow versions 0x01, 0x04, we need 0x06"),
        (frame(0, 0, Hello(frozenset()).encode()), "versions none"),
        (b"\x04\x00\x00\x08\x00\x00\x00\x00", "versions 0x01, 0x02, 0x03, 0x04"),
        (frame(MessageType.ERROR, 0, ErrorMessage(0, 0, data=b"no").encode()), "OFPHFC_INCOMPATIBLE b'no'"),
        (frame(MessageType.BARRIER_REPLY, 0), "expected a hello first, got message type 21"),
    ],
)
def test_without_a_common_version_the_session_fails(first: bytes, problem: str) -> None:
    session = OpenFlowSession()
    with pytest.raises(NegotiationError, match=problem):
        list(session.receive(first))
    assert session.state is State.FAILED
    with pytest.raises(MalformedMessage, match="already failed"):
        list(session.receive(frame(0, 0)))


def test_a_hello_without_a_bitmap_means_all_versions_up_to_its_own() -> None:
    session = OpenFlowSession()
    assert list(session.receive(b"\x06\x00\x00\x0e\0\0\0\0\x00\x09\x00\x06zz")) == [Ready()]


def test_another_version_later_ends_the_session() -> None:
    session = ready()
    with pytest.raises(MalformedMessage, match="version 0x04"):
        list(session.receive(b"\x04\x02\x00\x08\0\0\0\1"))
    assert session.state is State.FAILED


def test_an_error_of_another_version_does_not() -> None:
    (event,) = ready().receive(b"\x01" + error(77)[1:])
    assert isinstance(event, Stray)
    assert "OFPFMFC_BAD_COMMAND" in str(event.error)


def test_echo_requests_are_answered_with_their_data() -> None:
    session = ready()
    assert list(session.receive(frame(MessageType.ECHO_REQUEST, 7, b"abc"))) == []
    assert session.take_outgoing() == frame(MessageType.ECHO_REPLY, 7, b"abc")
    assert session.take_outgoing() == b""


def test_answers_find_their_request() -> None:
    session = ready()
    first, _ = session.request(BarrierRequest())
    second, _ = session.request(FeaturesRequest())
    events = list(session.receive(error(second, 1, 1) + frame(MessageType.BARRIER_REPLY, first)))
    assert events[1] == RequestAnswered(first, BarrierReply())
    refused = events[0]
    assert isinstance(refused, RequestFailed)
    assert isinstance(refused.error, PeerError)
    assert refused.xid == second
    assert (refused.error.name, refused.error.request) == ("OFPBRC_BAD_TYPE", FeaturesRequest())
    assert (refused.error.data, refused.error.experimenter) == (b"quoted", 0)


def test_an_answer_that_makes_no_sense_fails_only_its_request() -> None:
    session = ready()
    xid, _ = session.request(FeaturesRequest())
    (event,) = session.receive(frame(MessageType.FEATURES_REPLY, xid, b"short"))
    assert isinstance(event, RequestFailed)
    assert isinstance(event.error, MalformedMessage)
    assert session.state is State.READY


def table_part(xid: int, more: bool, kind: int = 3, count: int = 1) -> bytes:
    body = pack("!HH4x", kind, more) + b"".join(pack("!B3xIQQ", 1, 2, 3, 4) for _ in range(count))
    return frame(MessageType.MULTIPART_REPLY, xid, body)


def test_parts_of_a_reply_are_put_together() -> None:
    session = ready()
    xid, data = session.multipart(TableStatsRequest())
    assert data == bytes.fromhex("06120010") + xid.to_bytes(4, "big") + bytes.fromhex("0003000000000000")
    assert list(session.receive(table_part(xid, True))) == []
    assert list(session.receive(table_part(xid, False, count=2))) == [
        RequestAnswered(xid, [TableStats(1, 2, 3, 4)] * 3)
    ]
    (late,) = session.receive(table_part(xid, False))
    assert isinstance(late, Stray)


def test_a_part_of_another_kind_fails_the_request() -> None:
    session = ready()
    xid, _ = session.multipart(PortDescRequest())
    (event,) = session.receive(table_part(xid, False))
    assert isinstance(event, RequestFailed)
    assert "type 3 for a request of type 13" in str(event.error)


def test_an_endless_reply_is_cut_off() -> None:
    session = ready(max_reply_bytes=100)
    xid, _ = session.multipart(TableStatsRequest())
    events = [event for _ in range(10) for event in session.receive(table_part(xid, True))]
    assert isinstance(events[0], RequestFailed)
    assert "exceeds 100 bytes" in str(events[0].error)
    assert all(isinstance(event, Stray) for event in events[1:])


def test_errors_of_a_batch_name_its_modifications() -> None:
    session = ready()
    mods = [Mod(), Mod(16), Mod(24)]
    batch = session.open_batch(mods)
    other = session.open_batch([Mod(32)])
    assert list(session.receive(error(batch.first_xid + 2) + error(other.first_xid))) == []
    assert [(e.name, e.request) for e in batch.errors] == [("OFPFMFC_BAD_COMMAND", mods[2])]
    assert other.refused == 1
    session.close_batch(batch)
    (event,) = session.receive(error(batch.first_xid))
    assert isinstance(event, Stray)


def test_a_batch_keeps_a_bounded_number_of_errors_and_counts_all() -> None:
    session = ready()
    batch = session.open_batch([Mod()] * (MAX_BATCH_ERRORS + 5))
    stream = b"".join(error(batch.first_xid + i) for i in range(MAX_BATCH_ERRORS + 5))
    assert list(session.receive(stream)) == []
    assert (len(batch.errors), batch.refused) == (MAX_BATCH_ERRORS, MAX_BATCH_ERRORS + 5)


def test_messages_that_fit_nothing_are_reported() -> None:
    session = ready()
    stream = [
        frame(MessageType.BARRIER_REPLY, 99),
        frame(200, 0, b"?"),
        frame(MessageType.ERROR, 3, b"x"),
        frame(MessageType.PORT_STATUS, 0, b"\x09" + bytes(47)),
        frame(MessageType.MULTIPART_REPLY, 0, pack("!HH4x", 13, 0)),
        frame(MessageType.MULTIPART_REPLY, 0, b""),
    ]
    events = list(session.receive(b"".join(stream)))
    assert len(events) == len(stream)
    assert all(isinstance(event, Stray) and isinstance(event.error, MalformedMessage) for event in events)


def test_port_status_is_a_notice() -> None:
    port = pack("!IH2x6s2x16sII", 4, 40, b"abcdef", b"p4", 0, 4)
    (event,) = ready().receive(frame(MessageType.PORT_STATUS, 0, b"\x00" + bytes(7) + port))
    assert isinstance(event, Notice)
    assert (event.value.port.number, event.value.port.name, event.value.port.link_up) == (4, "p4", True)


def test_transaction_ids_wrap_around_what_still_waits() -> None:
    session = ready()
    xid, _ = session.request(BarrierRequest())
    assert xid == 2
    session._next_xid = 0xFFFFFFF0
    batch = session.open_batch([Mod()] * 20)
    assert batch.first_xid == 3
    assert session.request(BarrierRequest())[0] == 23


def test_late_answers_to_forgotten_requests_are_swallowed() -> None:
    session = ready()
    answers = b""
    for answer in (b"ok", b"refused"):
        xid, _ = session.request(BarrierRequest())
        session.forget(xid)
        answers += error(xid) if answer == b"refused" else frame(MessageType.BARRIER_REPLY, xid)
    xid, _ = session.request(FeaturesRequest())
    session.forget(xid)
    answers += frame(MessageType.FEATURES_REPLY, xid, b"short")
    xid, _ = session.multipart(TableStatsRequest())
    session.forget(xid)
    answers += table_part(xid, True) + table_part(xid, False)
    assert list(session.receive(answers)) == []
    session.forget(xid)
    assert len(list(session.receive(table_part(xid, False)))) == 1


def test_messages_without_an_answer() -> None:
    session = ready()
    assert session.send(Mod()) == frame(MessageType.FLOW_MOD, 2, bytes(8))


def test_chunks_carry_every_modification_once() -> None:
    session = ready()
    batch = session.open_batch([Mod(size) for size in (8, 16, 24)])
    whole = b"".join(frame(14, batch.first_xid + i, bytes(8 + 8 * i)) for i in range(3))
    assert b"".join(mod_chunks(batch)) == whole
    assert len(list(mod_chunks(batch, chunk_bytes=1))) == 3
    wrapped = list(bundle_chunks(batch, 9, ATOMIC_ORDERED, chunk_bytes=1))
    inner = frame(14, batch.first_xid, bytes(8))
    assert wrapped[0] == frame(34, batch.first_xid, bytes.fromhex("0000000900000003") + inner)
    assert list(mod_chunks(session.open_batch([]))) == []


def test_a_modification_too_long_for_a_message_is_our_misuse() -> None:
    batch = ready().open_batch([Mod(65_528)])
    with pytest.raises(InvalidValueError, match="does not fit"):
        list(mod_chunks(batch))
    with pytest.raises(InvalidValueError, match="does not fit"):
        list(bundle_chunks(batch, 1, ATOMIC_ORDERED))


def test_requests_name_what_they_ask_for() -> None:
    session = ready()
    assert session.multipart(PortStatsRequest(3))[1][16:] == pack("!I4x", 3)
