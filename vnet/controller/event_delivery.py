"""Events to other machines' systems, where a controller is told so: webhooks, the journal, syslog.

One rule: what is to be sent waits in the feed alone, which is bounded, so a receiver that is away costs no memory and holds nobody up: it misses the
oldest, and is told how many. Only the controller that leads sends. Who leads next begins with the last OVERLAP_MS, so an event may come twice, with the
same id.
"""

from __future__ import annotations

import asyncio
import hmac
import http.client
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from vnet.controller.event_log import Entry, Feed
from vnet.controller.presenters import timestamp
from vnet.objects import Event
from vnet.util.loopback import is_loopback
from vnet.util.printable import on_one_line
from vnet.util.transport import TransportError, read_secret

log = logging.getLogger(__name__)

OVERLAP_MS = 30_000
LOOK_S = 1.0
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
TIMEOUT_S = 10.0
JOURNAL = "/run/systemd/journal/socket"
NAMES = UUID(
    "5c7a5fd0-2f3b-5a0e-9b8e-0d9f6e1c7a41"
)  # MESSAGE_ID of a kind is the UUID of its name in here (RFC 9562 §5.5)
WARNINGS = frozenset({"drift", "problem", "refused", "host-down", "rolled-back"})
WARNING, NOTICE = 4, 5  # severities (RFC 5424 §6.2.1)
DAEMON = 3  # the facility
MAX_DATAGRAM_BYTES = 8 * 1024
SD_ID = "vnet@32473"  # the number of examples (RFC 5612): we have none of our own


class NotDelivered(Exception):
    """A receiver did not take events. again: whether it may take them later."""

    def __init__(self, text: str, *, again: bool = True) -> None:
        super().__init__(text)
        self.again: Final = again


class EventReceiver(Protocol):
    """address: for people."""

    @property
    def address(self) -> str: ...

    def send(self, entries: Sequence[Entry], missed: int, now_ms: int) -> None:
        """Sends events, in their order; may take time. missed: those before them that are lost. Raises NotDelivered."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that is sent events by POST, signed with HMAC-SHA-256 under a key that both sides know. tls: None for http."""

    address: str
    key: bytes
    tls: ssl.SSLContext | None

    def send(self, entries: Sequence[Entry], missed: int, now_ms: int) -> None:
        body = b'{"missed":%d,"events":[%s]}' % (missed, b",".join(entry.data for entry in entries))
        url = urlsplit(self.address)
        connection = (
            http.client.HTTPSConnection(url.netloc, context=self.tls, timeout=TIMEOUT_S)
            if self.tls is not None
            else http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_S)
        )
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        moment = str(now_ms // 1000)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "vnet",
            "Vnet-Timestamp": moment,
            "Vnet-Signature": f"sha256={signature(self.key, moment, body)}",
        }
        try:
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if not 200 <= status < 300:  # a redirect is none of ours to follow: we send where we were told
            raise NotDelivered(f"it answers {status}", again=status >= 500 or status in (408, 429))


def signature(key: bytes, moment: str, body: bytes) -> str:
    """What a receiver compares with the header's, after it has looked at how old the moment is (seconds since 1970)."""
    return hmac.new(key, moment.encode() + b"." + body, sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Journal:
    """systemd's journal on this machine (its native protocol, systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

    address: str = "journal"
    path: str = JOURNAL

    def send(self, entries: Sequence[Entry], missed: int, now_ms: int) -> None:
        _datagrams(socket.AF_UNIX, self.path, [journal_fields(entry) for entry in entries])


@dataclass(frozen=True, slots=True)
class Syslog:
    """A receiver of syslog by UDP (RFC 5426)."""

    address: str
    host: str
    port: int

    def send(self, entries: Sequence[Entry], missed: int, now_ms: int) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise NotDelivered(str(error)) from None
        _datagrams(family, address, [syslog_line(entry, socket.gethostname(), os.getpid()) for entry in entries])


def _datagrams(family: int, address: str | tuple[Any, ...], messages: Sequence[bytes]) -> None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as made:
            made.settimeout(TIMEOUT_S)
            for message in messages:
                made.sendto(message[:MAX_DATAGRAM_BYTES], address)
    except OSError as error:
        raise NotDelivered(str(error)) from None


def _severity(event: Event) -> int:
    return WARNING if event.kind in WARNINGS else NOTICE


def _subjects(event: Event) -> dict[str, str]:
    named = {"kind": event.kind, "host": event.host, "network": event.network, "vif": event.vif}
    return {name: on_one_line(text) for name, text in named.items() if text}


def journal_fields(entry: Entry) -> bytes:
    """An event as fields of the journal: a line each, so that none has a break."""
    event = entry.event
    fields = {
        "MESSAGE": on_one_line(event.text),
        "MESSAGE_ID": uuid5(NAMES, event.kind).hex,
        "PRIORITY": str(_severity(event)),
        "SYSLOG_IDENTIFIER": "vnet",
        "VNET_EVENT": entry.id,
        **{f"VNET_{name.upper()}": text for name, text in _subjects(event).items()},
    }
    return "".join(f"{name}={text}\n" for name, text in fields.items()).encode()


def syslog_line(entry: Entry, machine: str, pid: int) -> bytes:
    """An event as a message of RFC 5424: its kind is the MSGID, what it is about is structured data."""
    event = entry.event
    quoted = (f'{name}="{_quoted(text)}"' for name, text in {"id": entry.id, **_subjects(event)}.items())
    moment = timestamp(event.time) or "-"
    name = "".join(c for c in event.kind if "!" <= c <= "~")[:32] or "-"
    priority = DAEMON * 8 + _severity(event)
    head = f"<{priority}>1 {moment} {machine[:255]} vnet {pid} {name} [{SD_ID} {' '.join(quoted)}]"
    return f"{head} \ufeff{on_one_line(event.text)}".encode()


def _quoted(text: str) -> str:
    """A value of structured data (RFC 5424 §6.3.3)."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def receiver_of(text: str, key_file: Path | None, ca: Path | None, cleartext: bool) -> EventReceiver:
    """journal, syslog:HOST:PORT, or the URL of a webhook. Raises TransportError."""
    if text == "journal":
        return Journal()
    if text.startswith("syslog:"):
        host, _, port = text.removeprefix("syslog:").rpartition(":")
        if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise TransportError(f"--events-to: expected syslog:HOST:PORT, got {text!r}")
        host = host.strip("[]")
        if not (cleartext or is_loopback(host)):
            raise TransportError(
                f"--events-to: {text} is cleartext off loopback: send to a syslog daemon here, which forwards by TLS, or add --cleartext"
            )
        return Syslog(text, host, int(port))
    url = urlsplit(text)
    if url.scheme not in ("https", "http") or not url.hostname or url.username is not None:
        raise TransportError(f"--events-to: expected journal, syslog:HOST:PORT or https://..., got {text!r}")
    if url.scheme == "http" and not (cleartext or is_loopback(url.hostname)):
        raise TransportError(f"--events-to: {text} is cleartext off loopback: use https, or add --cleartext")
    if key_file is None:
        raise TransportError(
            "--events-to: a webhook takes --events-key-file, by which its receiver knows that events are ours"
        )
    try:
        tls = ssl.create_default_context(cafile=ca) if url.scheme == "https" else None
    except OSError as error:
        raise TransportError(f"--events-ca {ca}: {error.strerror or error}") from None
    return Webhook(text, read_secret(key_file, "--events-key-file"), tls)


class EventDelivery:
    """Sends a feed's events to one receiver. leads: whether this controller is the one that sends.

    sent, missed, failed: counts of events, and of attempts.
    """

    def __init__(
        self, feed: Feed, receiver: EventReceiver, leads: Callable[[], bool], now_ms: Callable[[], int]
    ) -> None:
        self.receiver: Final = receiver
        self.sent = self.missed = self.failed = 0
        self._feed: Final = feed
        self._leads: Final = leads
        self._now_ms: Final = now_ms

    async def run(self) -> None:
        """Without end."""
        while True:
            if not self._leads():
                await asyncio.sleep(LOOK_S)
                continue
            position = self._feed.position_at(self._now_ms() - OVERLAP_MS)
            async for batch in self._feed.follow(position, LOOK_S):
                if not self._leads():
                    break
                if batch:
                    missed = max(0, batch[0].position - position - 1)
                    self.missed += missed
                    if not await self._deliver(batch, missed):
                        break
                    position = batch[-1].position

    async def _deliver(self, batch: Sequence[Entry], missed: int) -> bool:
        """Sends a batch until it is taken or refused for good; False once another controller leads."""
        wait_s = FIRST_RETRY_S
        while True:
            try:
                await asyncio.to_thread(self.receiver.send, batch, missed, self._now_ms())
                self.sent += len(batch)
                return True
            except NotDelivered as error:
                self.failed += 1
                log.warning("events are not delivered to %s: %s", self.receiver.address, error)
                if not error.again:
                    self.missed += len(batch)
                    return True
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LAST_RETRY_S)
            if not self._leads():
                return False
