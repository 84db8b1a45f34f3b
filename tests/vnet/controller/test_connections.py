"""Budgets and time limits of the API's connections, on a server in this process."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.authorities import TestAuthority
from tests.polling import until
from vnet.controller.access import Access
from vnet.controller.app import application
from vnet.controller.connections import ApiLimits, Connections, Standing
from vnet.controller.refused_calls import RefusedCalls
from vnet.controller.sockets import Listen, Server
from vnet.db.database import now_ms
from vnet.util.shown_certificate import ShownCertificate

TOKEN = "correct-horse-battery-staple"
DOCUMENT = b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n"
SHOWN = DOCUMENT + b"Authorization: Bearer %s\r\n\r\n" % TOKEN.encode()
STRANGER, AUTHENTICATED, LOCAL = Standing.STRANGER, Standing.AUTHENTICATED, Standing.LOCAL


@dataclass
class Peer:
    """A connection of a test."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, data: bytes = DOCUMENT + b"\r\n") -> int:
        """Send bytes; the status of the answer, 0 for none."""
        self.writer.write(data)
        line = await self.reader.readline()
        length = 0
        while (header := await self.reader.readline()).strip():
            if header.lower().startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        await self.reader.readexactly(length)
        return int(line.split()[1]) if line else 0

    async def ended(self) -> bool:
        """Wait for the end of the connection."""
        try:
            await self.reader.read()
            return self.reader.at_eof()
        except ConnectionError:
            return True


@dataclass
class ServedApi:
    """A server per standing, with the connections of all."""

    connections: Connections
    port: int
    path: Path
    peers: list[Peer] = field(default_factory=list)

    async def tcp(self, **options: Any) -> Peer:
        self.peers.append(Peer(*await asyncio.open_connection("127.0.0.1", self.port, **options)))
        return self.peers[-1]

    async def unix(self) -> Peer:
        self.peers.append(Peer(*await asyncio.open_unix_connection(self.path)))
        return self.peers[-1]

    def count(self, name: str) -> int:
        return self.connections.counts[name]

    async def wait(self, name: str, number: int = 1) -> None:
        await until(lambda: self.count(name) == number, f"{number} {name}: {self.connections.counts}")


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def serving(limits: ApiLimits, tls: ShownCertificate | None = None) -> AsyncIterator[ServedApi]:
        connections = Connections(limits)
        service = SimpleNamespace(version="test", refused_calls=RefusedCalls(SimpleNamespace(), now_ms))  # type: ignore[arg-type]
        service.by = lambda caller: service
        tcp, unix = Listen(None, "127.0.0.1", 0), Listen(tmp_path / "api.sock")
        listening = tcp.bind()
        port = listening.getsockname()[1]
        servers = [
            Server(
                application(service, Access(own=TOKEN.encode()), {"localhost"}),  # type: ignore[arg-type]
                listening,
                connections,
                STRANGER,
                tls.context if tls else None,
            ),
            Server(application(service), unix.bind(), connections),  # type: ignore[arg-type]
        ]
        jobs = [asyncio.create_task(server.serve()) for server in servers]
        made = ServedApi(connections, port, tmp_path / "api.sock")
        try:
            yield made
        finally:
            for peer in made.peers:
                peer.writer.close()
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*jobs)

    return serving


async def test_an_answer_over_tcp_waits_for_no_acknowledgement(serve: Serve) -> None:
    async with serve(ApiLimits()) as api:
        assert await (await api.tcp()).ask(SHOWN) == 200
        (connection,) = api.connections._held[AUTHENTICATED]
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_strangers_take_the_places_of_strangers_alone(serve: Serve) -> None:
    async with serve(ApiLimits(strangers=5)) as api:
        known = await api.tcp()
        assert await known.ask(SHOWN) == 200
        for _ in range(50):
            await api.tcp()
        await api.wait("evicted", 45)
        assert (api.connections.number(STRANGER), api.connections.number(AUTHENTICATED)) == (5, 1)
        assert await api.peers[1].ended()
        assert await known.ask(SHOWN) == 200
        assert await (await api.tcp()).ask(SHOWN) == 200
        assert await (await api.unix()).ask() == 200
        assert api.count("refused") == 0


async def test_a_stranger_has_one_request(serve: Serve) -> None:
    async with serve(ApiLimits()) as api:
        for request in (
            DOCUMENT + b"\r\n",
            b"POST /v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
            b"x\r\n\r\n",
        ):
            peer = await api.tcp()
            assert await peer.ask(request) in (400, 401)
            assert await peer.ended()
        await until(lambda: api.connections.number(STRANGER) == 0, "their end")


@pytest.mark.parametrize("sent", [b"", b"GET /v1/", DOCUMENT])
async def test_headers_that_do_not_come_in_time(serve: Serve, sent: bytes) -> None:
    async with serve(ApiLimits(headers_s=0.2)) as api:
        for peer in (await api.tcp(), await api.unix()):
            peer.writer.write(sent)
            assert await peer.ended()
        assert api.count("late headers") == 2


async def test_headers_that_come_byte_by_byte_are_late_too(serve: Serve) -> None:
    async with serve(ApiLimits(headers_s=0.2)) as api:
        peer = await api.tcp()
        ended = asyncio.create_task(peer.ended())
        while not ended.done():
            peer.writer.write(b"x")
            await asyncio.sleep(0.01)
        assert api.count("late headers") == 1


async def test_headers_of_a_second_request_are_limited_too(serve: Serve) -> None:
    async with serve(ApiLimits(headers_s=0.2)) as api:
        peer = await api.tcp()
        assert await peer.ask(SHOWN) == 200
        peer.writer.write(b"GET")
        assert await peer.ended()
        assert api.count("late headers") == 1


async def test_a_body_that_does_not_come_in_time(serve: Serve) -> None:
    async with serve(ApiLimits(body_s=0.2)) as api:
        peer = await api.tcp()
        peer.writer.write(SHOWN.replace(b"GET /v1/openapi.json", b"POST /v1/plan")[:-2] + b"Content-Length: 9\r\n\r\nx")
        assert await peer.ended()
        assert api.count("late body") == 1
        await until(lambda: api.connections.number(AUTHENTICATED) == 0, "its end")


async def test_an_answer_that_nobody_reads(serve: Serve) -> None:
    async with serve(ApiLimits(reading_s=0.2)) as api:
        peer = await api.unix()
        peer.writer.write((DOCUMENT + b"\r\n") * 50)
        await api.wait("late reader")
        await until(lambda: api.connections.number(LOCAL) == 0, "its end")
        slow = await api.unix()
        for _ in range(5):
            assert await slow.ask() == 200
        assert api.count("late reader") == 1


async def test_a_handshake_that_does_not_come_in_time_or_is_none(serve: Serve, tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    authority.server()
    tls = authority.host("xen1").context()
    async with serve(ApiLimits(strangers=3, handshake_s=0.3), ShownCertificate(tmp_path / "server.pem")) as api:
        silent = await api.tcp()
        assert await silent.ended()
        assert api.count("late handshake") == 1
        noise = await api.tcp()
        noise.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await noise.ended()
        assert api.count("no handshake") == 1
        first = await api.tcp()
        for _ in range(3):
            await api.tcp()
        await api.wait("evicted")
        assert await first.ended()
        assert await (await api.tcp(ssl=tls)).ask(SHOWN) == 200
        assert api.connections.number(STRANGER) <= 3


async def test_budgets_of_those_who_may(serve: Serve) -> None:
    async with serve(ApiLimits(local=1, authenticated=1, strangers=2)) as api:
        assert await (await api.tcp()).ask(SHOWN) == 200
        more = await api.tcp()
        assert await more.ask(SHOWN) == 503
        assert await more.ended()
        assert await (await api.unix()).ask() == 200
        turned_away = await api.unix()
        assert await turned_away.ask(b"") == 503
        assert api.count("refused") == 2
        api.peers[0].writer.close()
        await until(lambda: api.connections.number(AUTHENTICATED) == 0, "its end")
        assert await (await api.tcp()).ask(SHOWN) == 200


async def test_a_place_that_is_not_left_is_refused_in_the_form_of_problems(serve: Serve) -> None:
    async with serve(ApiLimits(authenticated=0)) as api:
        peer = await api.tcp()
        peer.writer.write(SHOWN)
        answer = await peer.reader.read()
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "busy"


async def test_descriptors_that_run_out_are_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(ApiLimits()) as api:
        loop = asyncio.get_running_loop()
        accept, failures = loop.sock_accept, [errno.EMFILE, errno.ENFILE]

        async def short(listening: socket.socket) -> Any:
            if failures:
                raise OSError(failures.pop(), "Too many open files")
            return await accept(listening)

        monkeypatch.setattr(loop, "sock_accept", short)
        await (await api.tcp()).ask()  # the one that was waited for
        with caplog.at_level(logging.WARNING):
            assert await (await api.tcp()).ask(SHOWN) == 200
        assert api.count("not accepted") == 2
