"""The JSON-RPC session: requests, answers, echo both ways, silence, hostile peers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import ConnectionLost, DecodeError, MessageTooLong, Notification, ProtocolError, Reply, Session
from ovsctl.ovsdb.session import SLOWEST_BYTES_PER_S


def message(**members: object) -> bytes:
    return json.dumps(members).encode()


def sent(session: Session) -> list[Any]:
    text, decoder, out = session.data_to_send().decode(), json.JSONDecoder(), []
    while text:
        value, end = decoder.raw_decode(text)
        out.append(value)
        text = text[end:]
    return out


def test_requests_have_ids_of_their_own_and_answers_name_them() -> None:
    session = Session()
    first, second = session.request("list_dbs", []), session.request("transact", ["db"])
    assert sent(session) == [
        {"method": "list_dbs", "params": [], "id": first},
        {"method": "transact", "params": ["db"], "id": second},
    ]
    assert session.data_to_send() == b""
    refused, answered = session.receive(
        message(id=second, result=None, error={"error": "x"}) + message(id=first, result=[1], error=None)
    )
    assert isinstance(refused, Reply)
    assert isinstance(answered, Reply)
    assert (refused.id, refused.error) == (second, {"error": "x"})
    assert (answered.id, json.loads(bytes(answered.result)), answered.error) == (first, [1], None)


def test_notifications_both_ways() -> None:
    session = Session()
    session.notify("cancel", [1])
    assert sent(session) == [{"method": "cancel", "params": [1], "id": None}]
    for text in (message(method="locked", params=["x"], id=None), message(method="locked", params=["x"])):
        (event,) = session.receive(text)
        assert isinstance(event, Notification)
        assert (event.method, json.loads(bytes(event.params))) == ("locked", ["x"])


def test_echo_of_the_peer_is_answered_with_its_params() -> None:
    session = Session()
    assert session.receive(message(method="echo", params=["a", 1], id="e")) == []
    assert sent(session) == [{"id": "e", "result": ["a", 1], "error": None}]


def test_other_requests_of_the_peer_are_refused() -> None:
    session = Session()
    assert session.receive(message(method="transact", params=[], id=7)) == []
    assert sent(session) == [{"id": 7, "result": None, "error": "unknown method"}]


def test_silence_is_probed_once_and_then_ends_the_session() -> None:
    session = Session(now_s=100, probe_interval_s=5)
    session.tick(104.9)
    assert sent(session) == []
    session.tick(105)
    session.tick(107)
    assert [request["method"] for request in sent(session)] == ["echo"]
    assert session.receive(message(id="echo", result=[], error=None), 108) == []
    session.tick(112.9)
    assert sent(session) == []
    session.tick(113)
    assert len(sent(session)) == 1
    with pytest.raises(ConnectionLost, match=r"silent for 10\.0 s"):
        session.tick(118)


def test_a_server_has_the_time_to_work_on_a_large_request() -> None:
    session = Session(now_s=100, probe_interval_s=5)
    request = session.request("transact", ["x" * 5 * SLOWEST_BYTES_PER_S])
    session.tick(105)
    session.tick(114.9)
    session.receive(message(id=request, result=[], error=None), 114.9)
    session.tick(119.9)
    with pytest.raises(ConnectionLost, match=r"silent for 10\.0 s"):
        session.tick(124.9)
    session = Session(now_s=100, probe_interval_s=5)
    session.request("transact", ["x" * 5 * SLOWEST_BYTES_PER_S])
    session.tick(105)
    with pytest.raises(ConnectionLost, match=r"silent for 15\.1 s"):
        session.tick(115.1)


def test_who_did_nothing_for_long_asks_before_it_calls_the_peer_silent() -> None:
    session = Session(now_s=100, probe_interval_s=5)
    session.tick(500)
    assert [request["method"] for request in sent(session)] == ["echo"]
    session.tick(504.9)
    assert session.receive(message(id="echo", result=[], error=None), 504.9) == []
    session.tick(509.8)
    assert sent(session) == []


def test_a_peer_is_doubted_long_before_it_is_left_and_until_it_is_heard() -> None:
    session = Session(now_s=100, probe_interval_s=5, doubt_after_s=1)
    assert session.tick_interval_s is not None
    assert session.tick_interval_s < 1
    session.tick(101)
    assert [request["method"] for request in sent(session)] == ["echo"]
    session.tick(101.9)
    assert not session.doubtful
    session.tick(102)
    assert session.doubtful
    session.receive(message(id="echo", result=[], error=None), 103)
    assert not session.doubtful
    session.tick(104)
    session.tick(105)
    assert session.doubtful
    with pytest.raises(ConnectionLost, match=r"silent for 6\.0 s"):
        session.tick(109)


def test_a_server_that_works_on_a_large_request_is_not_doubted() -> None:
    session = Session(now_s=100, probe_interval_s=5, doubt_after_s=1)
    session.request("transact", ["x" * 5 * SLOWEST_BYTES_PER_S])
    session.tick(101)
    session.tick(106.9)
    assert not session.doubtful


def test_without_an_interval_silence_is_no_matter() -> None:
    session = Session(probe_interval_s=None)
    session.tick(1e9)
    assert sent(session) == []


@pytest.mark.parametrize(
    "data",
    [
        message(id=1, result=[], error=None),
        message(id="x", result=[], error=None),
        message(result=[], error=None),
        message(id=[1], result=[]),
        b"{}",
    ],
)
def test_an_answer_to_nothing_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="not in flight"):
        Session().receive(data)


def test_an_answer_comes_once() -> None:
    session = Session()
    answer = message(id=session.request("x", []), result=1, error=None)
    session.receive(answer)
    with pytest.raises(ProtocolError, match="not in flight"):
        session.receive(answer)


@pytest.mark.parametrize(
    "data",
    [b"{1}", b'{"method":5}', b'{"method":"\xff"}', b'{"a"' + b":[" * 9999 + b"]" * 9999 + b"}"],
)
def test_what_is_not_json_rpc_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="JSON-RPC message: "):
        Session().receive(data)


def test_long_messages_are_refused() -> None:
    with pytest.raises(MessageTooLong):
        Session(max_message_bytes=100).receive(b'{"a":"' + b"x" * 200)


@given(
    st.lists(
        st.binary(max_size=30) | st.sampled_from([b'{"id":1', b'"method":"echo"', b",", b"}", b'"params":[']),
        max_size=20,
    )
)
def test_any_bytes_give_events_or_a_typed_error(parts: list[bytes]) -> None:
    session = Session(max_message_bytes=200)
    session.request("x", [])
    try:
        for part in parts:
            session.receive(part)
    except ProtocolError:
        pass
    assert len(session.data_to_send()) < 10_000
