"""The asyncio client of the controller's REST API. One rule: every call may be repeated after a lost answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from vnet import api
from vnet.api.errors import BadAnswer, Unreachable
from vnet.client.calls import AsyncCalls
from vnet.client.requests import (
    DISRUPTION,
    GRACE_S,
    LINES,
    MAX_ANSWER_BYTES,
    PCAPNG,
    REASON,
    STREAM,
    ApiAnswer,
    ApiRequest,
    Progress,
    progress_of,
    sending,
)
from vnet.client.wire import Address, EventStream, Lines
from vnet.util.pcapng import PcapngBlocks

T = TypeVar("T")


class AsyncClient(AsyncCalls):
    """Calls the controller at `address` (unix:PATH or https://HOST:PORT), with a bearer token where it wants one.

    Every method raises the errors of `vnet.api.errors`. timeout_s: the wait for an answer, besides the wait of the call itself.
    ca: the file of the CA that signed the server's certificate; without it, those that this machine trusts count.
    cleartext: whether http:// to another machine is allowed. reason: why changes are made, for the pool's history. Raises ValueError for an address or token, OSError for a CA's file.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        ca: str | Path | None = None,
        cleartext: bool = False,
        reason: str = "",
        timeout_s: float = GRACE_S,
    ) -> None:
        parsed = Address.parse(address, cleartext=cleartext)
        if token is not None and not token.strip():
            raise ValueError("the token is empty")
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        if reason:
            headers[REASON] = quote(reason, safe=" ")
        transport = httpx.AsyncHTTPTransport(uds=parsed.socket, verify=parsed.verification(ca))
        self.address = address
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(transport=transport, base_url=parsed.url, headers=headers)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def capture(self, call: api.CaptureCall) -> AsyncIterator[bytes]:
        """Frames of VIFs as they come: the blocks of a file of pcapng, to its end. Closed before, it ends the capture."""
        request: ApiRequest[str] = sending("POST", str, call, "captures", wait_s=call.seconds)
        blocks = PcapngBlocks()
        try:
            async with self._http.stream(**self._arguments(request, {"Accept": PCAPNG})) as answer:
                if answer.status_code != 200:
                    request.decode(answer.status_code, await self._read(answer))
                async for chunk in answer.aiter_bytes():
                    for block in blocks.feed(chunk):
                        yield block
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.address}: {error}") from None
        except ValueError as error:
            raise BadAnswer(f"{self.address}: {error}") from None

    async def follow(self, *, after: str | None = None, **filters: str) -> AsyncIterator[api.Event]:
        """Every event from now on, or after the event of id `after`, without end. Goes on by itself when the connection is lost.

        Raises Unreachable only if the controller cannot be reached at first.
        """
        stream = EventStream(after)
        connected = False
        while True:
            headers = {"Accept": STREAM} | ({"Last-Event-ID": stream.last_id} if stream.last_id else {})
            try:
                async with self._http.stream(
                    "GET", "/v1/events", params=filters, headers=headers, timeout=60.0
                ) as answer:
                    if answer.status_code != 200:
                        ApiRequest("GET", "/v1/events", None).decode(answer.status_code, await self._read(answer))
                    connected = True
                    async for chunk in answer.aiter_bytes():
                        for event in stream.feed(chunk):
                            yield event
            except httpx.TransportError as error:
                if not connected:
                    raise Unreachable(f"{self.address}: {error}") from None
            stream.restart()
            await asyncio.sleep(1.0)

    async def send(self, call: ApiRequest[T]) -> ApiAnswer[T]:
        """Send a call; its answer with the disruption and the tag."""
        try:
            async with self._http.stream(**self._arguments(call, {})) as answer:
                value = call.decode(answer.status_code, await self._read(answer))
                tag = answer.headers.get("ETag", "").strip('"')
                return ApiAnswer(value, answer.headers.get(DISRUPTION, ""), tag)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.address}: {error}") from None

    async def _do(self, call: ApiRequest[T]) -> T:
        if call.progress is not None:
            return await self._long(call, call.progress)
        return (await self.send(call)).value

    async def _long(self, call: ApiRequest[T], progress: Progress) -> T:
        lines = Lines()
        try:
            async with self._http.stream(**self._arguments(call, {"Accept": LINES})) as answer:
                if answer.status_code != 200:
                    return call.decode(answer.status_code, await self._read(answer))
                async for chunk in answer.aiter_bytes():
                    for line in map(progress_of, lines.feed(chunk)):
                        if line.kind != "progress":
                            return call.result(line, answer.status_code)
                        progress(line.text)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.address}: {error}") from None
        raise Unreachable(f"{self.address}: the controller ended in the middle of the call; repeat it")

    def _arguments(self, call: ApiRequest[T], headers: dict[str, str]) -> dict[str, Any]:
        headers = {"Content-Type": call.media, **headers} if call.body is not None else headers
        if call.if_match is not None:
            headers = {"If-Match": f'"{call.if_match}"', **headers}
        wait_s = call.wait_s + self._timeout_s
        return {
            "method": call.method,
            "url": call.path,
            "params": call.query,
            "content": call.body,
            "headers": headers,
            "timeout": httpx.Timeout(wait_s, connect=5.0),
        }

    @staticmethod
    async def _read(answer: httpx.Response) -> bytes:
        data = bytearray()
        async for chunk in answer.aiter_bytes():
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                raise BadAnswer(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return bytes(data)
