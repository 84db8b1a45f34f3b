"""Events to webhooks, journal and syslog: signed, tried again, bounded, and to nobody but who was named."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.polling import until
from vnet.controller import event_delivery
from vnet.controller.event_delivery import (
    EventDelivery,
    Journal,
    Syslog,
    Webhook,
    journal_fields,
    receiver_of,
    syslog_line,
)
from vnet.controller.event_log import BATCH, Feed
from vnet.db.mirror import Delta
from vnet.objects import Event
from vnet.util.transport import TransportError

KEY = b"a key that both sides know"


@dataclass
class HookServer:
    """Takes POSTs; answers them with the statuses in `answers`, then with 200."""

    address: str
    answers: list[int]
    taken: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def hook_server(*answers: int) -> Iterator[HookServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            signed = hmac.new(KEY, self.headers["Vnet-Timestamp"].encode() + b"." + body, sha256).hexdigest()
            right = self.headers["Vnet-Signature"] == f"sha256={signed}"
            status = 403 if not right else made.answers.pop(0) if made.answers else 200
            made.asked.append(f"{self.path} {status}")
            if status == 200:
                made.taken.append(json.loads(body))
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    made = HookServer(f"http://127.0.0.1:{server.server_port}/in?pool=a", list(answers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def event(time: int, topic: str = "drift", text: str = "put back") -> Event:
    return Event(time, topic, text, "xen1", "tenant", "web1/0")


def came(feed: Feed, *times: int) -> None:
    feed.take([Delta(f"u{time}", None, event(time)) for time in times], 0)


async def test_a_webhook_gets_each_event_in_order_signed_and_again_until_it_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_delivery, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(event_delivery, "LOOK_S", 0.02)
    leads = [False]
    with hook_server(500, 302, 503) as server:
        feed = Feed({"old": event(1)}, kept=3 * BATCH)
        delivery = EventDelivery(feed, Webhook(server.address, KEY, None), lambda: leads[0], lambda: 100_000)
        running = asyncio.create_task(delivery.run())
        came(feed, 100_001)
        await asyncio.sleep(0.05)
        assert server.asked == []  # another controller sends
        leads[0] = True
        await until(lambda: delivery.failed >= 2, "the first attempts")
        came(feed, 100_002)
        await until(lambda: delivery.sent >= 1, "an attempt that is taken")
        came(feed, *range(100_003, 100_003 + 10 * BATCH))  # more than are kept
        await until(lambda: delivery.sent + delivery.missed >= 10 * BATCH, "all that is kept")
        running.cancel()
    times = [found["time"] for taken in server.taken for found in taken["events"]]
    assert times == sorted(times)
    assert server.asked[0].startswith("/in?pool=a 500")
    assert server.asked[1].endswith("302")  # that URL was not told, so it is not followed
    assert sum(taken["missed"] for taken in server.taken) >= 6 * BATCH
    assert all(len(taken["events"]) <= BATCH for taken in server.taken)
    found = server.taken[0]["events"][0]
    assert (found["kind"], found["vif"], found["text"]) == ("drift", "web1/0", "put back")


async def test_journal_and_syslog_have_stable_names_and_no_line_of_anothers_making(tmp_path: Path) -> None:
    entry = Feed({"u": event(1_700_000_000_000, text='a\n<0>1 "b"]')}).latest(1)[0]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog,
    ):
        journal.bind(str(tmp_path / "journal"))
        syslog.bind(("127.0.0.1", 0))
        Journal(path=str(tmp_path / "journal")).send([entry], 0, 0)
        Syslog("", "127.0.0.1", syslog.getsockname()[1]).send([entry], 0, 0)
        fields = dict(line.split("=", 1) for line in journal.recv(10_000).decode().splitlines())
        message = syslog.recv(10_000).decode()
    assert fields.keys() == {"MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "VNET_EVENT", "VNET_KIND", "VNET_HOST", "VNET_NETWORK", "VNET_VIF"}  # fmt: skip
    assert (fields["VNET_KIND"], fields["PRIORITY"]) == ("drift", "4")
    assert fields["MESSAGE_ID"] == "cfffa4cd9ce053a3b836934aaf59f03e"
    pattern = r'<28>1 2023-11-14T22:13:20\.000Z \S+ vnet \d+ drift \[vnet@32473 id="\S+" kind="drift" host="xen1" network="tenant" vif="web1/0"\] \ufeff(.*)'
    assert (found := re.fullmatch(pattern, message)) is not None
    assert "\n" not in found[1]
    assert journal_fields(entry).count(b"\n") == len(fields)
    assert syslog_line(entry, "m", 1).startswith(b"<28>1 ")


def test_a_key_that_others_may_read_signs_nothing(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a key of some length")
    key.chmod(0o644)
    with pytest.raises(TransportError, match="may be read by others"):
        receiver_of("https://10.0.0.9/in", key, None, cleartext=False)
    with pytest.raises(TransportError, match="No such file"):
        receiver_of("https://10.0.0.9/in", tmp_path / "none", None, cleartext=False)
    key.chmod(0o600)
    with pytest.raises(TransportError, match="--events-ca"):
        receiver_of("https://10.0.0.9/in", key, tmp_path / "none", cleartext=False)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://10.0.0.9/in", "cleartext off loopback: use https"),
        ("syslog:10.0.0.9:514", "cleartext off loopback: send to a syslog daemon"),
        ("https://10.0.0.9/in", "takes --events-key-file"),
        ("https://user:pass@10.0.0.9/in", "expected journal"),
        ("ftp://10.0.0.9/in", "expected journal"),
    ],
)
def test_events_go_to_no_place_in_clear_and_to_none_unsigned(address: str, expected: str) -> None:
    with pytest.raises(TransportError, match=expected):
        receiver_of(address, None, None, cleartext=False)
