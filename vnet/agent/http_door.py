"""What machines ask a host's agent for: /metrics, /healthz and /readyz, by HTTP on the agent's own socket and, where it is told, at a port.

One rule: it reads GET requests of these three paths and nothing else, one on a connection; at the port of a few at once, and for a few seconds.
"""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import Final

from vnet.agent.agent import Agent
from vnet.agent.metrics import HostMetrics
from vnet.agent.obstacles import obstacle
from vnet.util.exposition import MEDIA_TYPE
from vnet.util.loopback import is_loopback
from vnet.util.shown_certificate import ShownCertificate
from vnet.util.transport import CA, HOST, SERVER, TransportError, identity_file, read_secret

MAX_HEADERS, MAX_LINE_BYTES = 100, 8 * 1024
MAX_CALLERS = 16
PATIENCE_S = 10.0
PLAIN = "text/plain; charset=utf-8"


class HttpDoor:
    """Answers one request on a connection. token: who calls must show it, None where the socket itself says who may."""

    def __init__(self, agent: Agent, pki_dir: Path | None, token: bytes | None = None) -> None:
        certificates = {"host": identity_file(pki_dir, HOST), "ca": pki_dir / CA} if pki_dir is not None else {}
        self.metrics: Final = HostMetrics(agent, certificates)
        self._agent: Final = agent
        self._token: Final = token
        self._callers: Final[set[asyncio.StreamWriter]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a connection that has just come. One that is too many is closed: whoever is silent keeps his place for PATIENCE_S."""
        if len(self._callers) >= MAX_CALLERS:
            writer.transport.abort()
            return
        self._callers.add(writer)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.answer(await reader.readline(), reader, writer)
        except (ConnectionError, ValueError, TimeoutError):
            pass  # the peer went, is silent, or sends what is too long
        finally:
            self._callers.discard(writer)
            writer.close()

    async def answer(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the request that begins with this line. Raises ConnectionError, and ValueError for a line that is too long."""
        token = b""
        for _ in range(MAX_HEADERS):
            header = await reader.readline()
            if header in (b"\r\n", b"\n", b""):
                break
            name, _, text = header.partition(b":")
            if name.strip().lower() == b"authorization":
                token = text.strip().removeprefix(b"Bearer ").strip()
        status, media, body = await self._reply(line, token)
        data = body.encode()
        head = (
            f"HTTP/1.1 {status} -\r\nContent-Type: {media}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + data)
        await writer.drain()

    async def _reply(self, line: bytes, token: bytes) -> tuple[int, str, str]:
        method, _, rest = line.partition(b" ")
        path = rest.partition(b" ")[0]
        if method != b"GET":
            return 405, PLAIN, "GET is all there is\n"
        if path == b"/healthz":
            return 200, PLAIN, "ok\n"
        if path == b"/readyz":
            found = obstacle(self._agent.facts)
            if found is None or found.works:
                return 200, PLAIN, f"{found.text if found else 'ready'}\n"
            return 503, PLAIN, f"{found.text}\n"
        if path != b"/metrics":
            return 404, PLAIN, "there are /metrics, /healthz and /readyz\n"
        if self._token is not None and not hmac.compare_digest(token, self._token):
            return 401, PLAIN, "show the token of --metrics-token-file as a bearer token\n"
        return 200, MEDIA_TYPE, await self.metrics.text()


class MetricsPort:
    """Where an agent is told to listen for scrapes. Raises TransportError for what would show them to others."""

    def __init__(self, address: str, pki_dir: Path, token_file: Path | None) -> None:
        secure = address.startswith("https://")
        host, _, port = address.removeprefix("https://").removeprefix("tcp:").rpartition(":")
        if not (secure or address.startswith("tcp:")) or not host or not (port.isascii() and port.isdigit()):
            raise TransportError(f"--metrics: expected tcp:HOST:PORT or https://HOST:PORT, got {address!r}")
        self.host: Final = host.strip("[]")
        self.port: Final = int(port)
        if not secure and not is_loopback(self.host):
            raise TransportError(f"--metrics: {address} is cleartext off loopback: use https://{host}:{port}")
        if secure and token_file is None:
            raise TransportError(
                "--metrics: at https it takes --metrics-token-file, which callers show as a bearer token"
            )
        self.token: Final = read_secret(token_file, "--metrics-token-file") if token_file is not None else None
        self.tls: Final = ShownCertificate(identity_file(pki_dir, SERVER)).context if secure else None

    async def run(self, agent: Agent, pki_dir: Path) -> None:
        """Listens until cancelled. Raises OSError if it cannot."""
        door = HttpDoor(agent, pki_dir, self.token)
        server = await asyncio.start_server(
            door.serve, self.host, self.port, ssl=self.tls, limit=MAX_LINE_BYTES,
            ssl_handshake_timeout=PATIENCE_S if self.tls is not None else None,
        )  # fmt: skip
        async with server:
            await server.serve_forever()
