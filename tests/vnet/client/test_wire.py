"""The clients' decoding: streams cut anywhere, hostile answers, typed errors."""

from __future__ import annotations

import contextlib
import inspect
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet import api
from vnet.api.errors import Refused, TooLarge, error_of
from vnet.client import AsyncClient, BadAnswer, Client, Conflict, Invalid, NotFound, TimedOut, Unauthorized, Unreachable
from vnet.client.requests import ApiRequest, path
from vnet.client.wire import Address, EventStream, Lines

EVENTS = [api.Event(id=f"{n}-x", time="t", kind="k", text=text) for n, text in enumerate(["a", "b\nc", "d\r\n\u2028"])]


def stream() -> bytes:
    parts = [b"retry: 1000\n\n", b": alive\r\n\r\n"]
    parts += [b"id: %s\ndata: %s\n\n" % (event.id.encode(), msgspec.json.encode(event)) for event in EVENTS]
    return b"".join(parts)


@given(st.lists(st.integers(0, len(stream())), max_size=8))
def test_events_come_whole_however_they_are_cut(cuts: list[int]) -> None:
    data, edges = stream(), sorted({0, len(stream()), *cuts})
    decoder = EventStream()
    seen = [event for a, b in pairwise(edges) for event in decoder.feed(data[a:b])]
    assert (seen, decoder.last_id) == (EVENTS, "2-x")


def test_half_an_event_is_forgotten_with_its_connection() -> None:
    decoder = EventStream("0-x")
    assert decoder.feed(b"id: 1-x\ndata: {") == []
    decoder.restart()
    assert decoder.last_id == "0-x"
    assert decoder.feed(stream()) == EVENTS


@given(st.binary(max_size=300))
def test_any_bytes_are_events_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(BadAnswer):
        assert all(isinstance(event, api.Event) for event in EventStream().feed(data + b"\n\n"))


def test_lines_are_bounded() -> None:
    lines = Lines(limit=10)
    assert lines.feed(b"abc\ndef") == [b"abc"]
    with pytest.raises(BadAnswer, match="more than 10 bytes"):
        lines.feed(b"x" * 20)


@pytest.mark.parametrize("url", ["http://10.0.0.1:80", "http://pool.example", "http://[fd00::1]:80/"])
def test_a_token_goes_off_loopback_in_cleartext_only_if_that_is_asked_for(url: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="cleartext off loopback"):
            kind(url, token="secret")
    Address.parse(url, cleartext=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:80", "http://[::1]:80", "http://localhost", "https://10.0.0.1"])
def test_loopback_and_https_are_as_they_are(url: str) -> None:
    assert Address.parse(url).url == url


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "body", Invalid),
        (413, "too-large", TooLarge),
        (401, "unauthorized", Unauthorized),
        (404, "unknown-vif", NotFound),
        (409, "vif-exists", Conflict),
        (504, "timeout", TimedOut),
        (503, "database-unreachable", Unreachable),
        (200, "timeout", TimedOut),
        (200, "aborted", Conflict),
        (418, "teapot", Refused),
    ],
)
def test_each_refusal_has_its_type(status: int, code: str, kind: type[Exception]) -> None:
    problem = api.Problem(code=code, message="because", where="here")
    error = error_of(problem, status)
    assert type(error) is kind
    assert str(error) == "because"
    if status != 200:
        with pytest.raises(kind, match="because"):
            ApiRequest("GET", "/", api.Vif).decode(status, msgspec.json.encode(problem))


@pytest.mark.parametrize(("status", "data"), [(500, b"<html>"), (200, b"{}"), (200, b"\xff"), (502, b"")])
def test_an_answer_of_something_else_is_bad(status: int, data: bytes) -> None:
    with pytest.raises(BadAnswer):
        ApiRequest("GET", "/", api.Vif).decode(status, data)


def test_ids_are_one_part_of_a_path() -> None:
    assert path("vifs", "web1/0", "plug") == "/v1/vifs/web1%2F0/plug"
    assert path("hosts", "../x?y#z") == "/v1/hosts/..%2Fx%3Fy%23z"


def test_addresses() -> None:
    assert Address.parse("unix:/run/x") == Address("/run/x", "http://vnet")
    assert Address.parse("https://h:1/") == Address(None, "https://h:1")
    for bad in ("unix:", "/run/x", "tcp:1.2.3.4:5", ""):
        with pytest.raises(ValueError, match="expected unix:PATH"):
            Address.parse(bad)


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, inspect.Signature]:
        public = {name: f for name, f in vars(kind).items() if inspect.isfunction(f) and not name.startswith("_")}
        return {n: inspect.signature(f).replace(return_annotation=None) for n, f in public.items()}

    assert calls(Client) == calls(AsyncClient)
