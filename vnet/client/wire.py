"""The bytes of streams: lines, and server-sent events (HTML Living Standard §9.2). Sans-IO, and bounded."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from vnet import api
from vnet.api.errors import BadAnswer
from vnet.client.requests import MAX_LINE_BYTES
from vnet.util.loopback import is_loopback


@dataclass(frozen=True, slots=True)
class Address:
    """A controller's address: a unix socket, or a URL."""

    socket: str | None
    url: str

    @classmethod
    def parse(cls, text: str, *, cleartext: bool = False) -> Address:
        """unix:PATH, https://HOST:PORT, or http://HOST:PORT, off loopback with `cleartext` only. Raises ValueError."""
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(text.removeprefix("unix:"), "http://vnet")
        if text.startswith(("http://", "https://")):
            host = urlsplit(text).hostname or ""
            if text.startswith("http:") and not (cleartext or is_loopback(host)):
                raise ValueError(
                    f"{text} is cleartext off loopback: use https, or allow it by --cleartext (cleartext=True)"
                )
            return cls(None, text.rstrip("/"))
        raise ValueError(f"expected unix:PATH or https://HOST:PORT, got {text!r}")

    def verification(self, ca: str | Path | None) -> ssl.SSLContext | bool:
        """How the server is verified: by the CA in a file, else by those that this machine trusts; False without TLS.

        Raises OSError for a file that is not there or no CA.
        """
        if not self.url.startswith("https:"):
            return False  # the trusted ones take a while to load
        return ssl.create_default_context(cafile=ca)


def read_token(path: str | Path | None) -> str | None:
    """The bearer token in a file, else in the environment (VNET_TOKEN); None without one. Raises OSError."""
    return Path(path).read_text().strip() if path is not None else os.environ.get("VNET_TOKEN")


class Lines:
    """Splits a stream into lines, without their ends. Raises BadAnswer for one that is too long."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._rest = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        self._rest += data
        if b"\n" not in data:
            if len(self._rest) > self._limit:
                raise BadAnswer(f"a line of more than {self._limit} bytes")
            return []
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        return [bytes(line).removesuffix(b"\r") for line in lines]


class EventStream:
    """Server-sent events to events. `last_id`: where to go on after the connection was lost."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self._lines = Lines()
        self._data: list[bytes] = []
        self._id = last_id

    def restart(self) -> None:
        """A new connection begins: half an event that came before is lost with the old one."""
        self._lines, self._data, self._id = Lines(), [], self.last_id

    def feed(self, data: bytes) -> list[api.Event]:
        """The events that are complete now; raises BadAnswer."""
        events = []
        for line in self._lines.feed(data):
            if not line:
                events += self._dispatch()
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                self._data.append(value)
            elif field == b"id":
                self._id = value.decode("utf-8", "replace")
        return events

    def _dispatch(self) -> list[api.Event]:
        data, self._data = b"\n".join(self._data), []
        self.last_id = self._id
        if not data:
            return []
        try:
            return [msgspec.json.decode(data, type=api.Event)]
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"an event: {error}") from None
