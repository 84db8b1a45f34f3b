"""HTTP for the API's routes: bytes to values and back, refusals to problems, long calls to lines of progress.

One rule: whatever comes in is bounded and decoded by its type before anything looks at it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route as StarletteRoute

from vnet import api
from vnet.api.errors import Invalid, NotFound, Refused, TooLarge, Unauthorized, Unavailable
from vnet.controller import openapi
from vnet.controller.access import Access, Caller, reason_of, user_of, with_call
from vnet.controller.body_decoder import decode_body
from vnet.controller.browsers import check_browser
from vnet.controller.connections import admit_of, peer_of
from vnet.controller.endpoint import MAX_STRANGERS_BYTES, AnswerStream, Call, Route, Tagged, Text, is_for_strangers
from vnet.controller.entity_tags import IF_MATCH, tags_in
from vnet.controller.routes import routes
from vnet.controller.service import Service
from vnet.controller.sse import EVENTS, events
from vnet.db.database import now_ms
from vnet.db.history import Author
from vnet.util.loopback import is_loopback
from vnet.web import HEADERS, PageFile, page_files

log = logging.getLogger("vnet.controller.http")

JSON = "application/json"
LINES = "application/x-ndjson"
CALLER = "vnet.caller"  # in the scope of a request
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
_encode = msgspec.json.Encoder(order="deterministic").encode


def application(service: Service, access: Access | None = None, names: Collection[str] | None = None) -> Asgi:
    """The API as an ASGI application. access: how callers prove who they are. names: those that this server is called by, besides addresses,
    for one that strangers reach; None for a unix socket, whose callers may do everything unless they show a token.
    """
    gate_of = _Gate(access or Access(), names)
    table = routes()
    document = _encode(openapi.document([*table, EVENTS], service.version))
    page = openapi.page([*table, EVENTS])

    async def get_document(request: Request) -> Response:
        return Response(document, media_type=JSON)

    async def get_page(request: Request) -> Response:
        return HTMLResponse(page)

    async def get_events(request: Request) -> Response:
        caller = request.scope[CALLER]

        async def answer() -> Response:
            caller.check_role(EVENTS.allowed, scoped=EVENTS.scoped)
            return await events(service.by(caller), request, lambda: gate_of.access.holds(caller, now_ms()))

        return await _guarded(service, caller, answer)

    app = Starlette(
        routes=[
            *(_mounted(service, gate_of.access, route) for route in table),
            StarletteRoute("/v1/events", get_events, methods=["GET"]),
            StarletteRoute("/v1/openapi.json", get_document),
            StarletteRoute("/v1/", get_page),
            StarletteRoute("/v1", lambda request: RedirectResponse("/v1/")),
            *(StarletteRoute(path, _served(file), methods=["GET"]) for path, file in page_files().items()),
        ],
        exception_handlers={404: _no_path, 405: _no_method},
    )
    app.router.redirect_slashes = False

    async def gate(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            # Routes match what is between the slashes as it was sent: a VIF's id has slashes of its own, sent as %2F.
            scope["path"] = scope["raw_path"].decode("latin-1")
            try:
                scope[CALLER] = await gate_of.caller(scope)
            except Refused as refused:
                service.refused_calls.note(gate_of.claimed(scope), refused, proved=False)
                await _refusal(refused, {"Connection": "close"})(scope, receive, send)
                return
        await app(scope, receive, send)

    return gate


class _Gate:
    """Lets callers in: a stranger to what strangers may ask for, others by what they show."""

    def __init__(self, access: Access, names: Collection[str] | None) -> None:
        self.access = access
        self._names = names
        self._users: dict[int, str] = {}  # names of users of this machine, by their number

    async def caller(self, scope: Scope) -> Caller:
        """Who makes a call. Raises Unauthorized, Forbidden, WrongServer, TooLarge, Unavailable, Invalid."""
        headers = scope["headers"]
        check_browser(scope["method"], headers, self._names)
        source, uid = _source(scope)
        caller = self.access.caller(headers, source, now_ms())
        if caller is None and self._names is None:
            caller = Caller(await self._user(uid), source, reason=reason_of(headers))
        if caller is not None:
            if not admit_of(scope)():
                raise Unavailable("busy", "there are as many connections as may be: close some, or try again")
            return with_call(caller, _call(scope))
        if not is_for_strangers(scope["method"], scope["path"]):
            raise Unauthorized("unauthorized", "show a token as a bearer token ('vnet token make' makes one)")
        if (refused := _too_much(scope)) is not None:
            raise refused
        return Caller("a stranger", source, None, call=_call(scope))

    def claimed(self, scope: Scope) -> Author:
        """The caller of a call that was not let in, as it says itself: a name that is no token's is not repeated."""
        name = self.access.claimed(scope["headers"])
        return Author(f"a stranger as token {name}" if name else "a stranger", _source(scope)[0], "", _call(scope))

    async def _user(self, uid: int | None) -> str:
        if uid is None:
            return "unknown"
        if uid not in self._users:
            self._users[uid] = await asyncio.to_thread(user_of, uid)  # names may come from elsewhere, and take long
        return self._users[uid]


def _call(scope: Scope) -> str:
    return f"{scope['method']} {unquote(scope['path'])}"[:200]


def _source(scope: Scope) -> tuple[str, int | None]:
    """Where a call comes from, and of a unix socket's peer its user."""
    peer = peer_of(scope)
    if peer is not None:
        return f"process {peer.pid} here", peer.uid
    return (scope["client"][0], None) if scope.get("client") else ("", None)


def _too_much(scope: Scope) -> Refused | None:
    """The refusal of a stranger's body of any length, or a great one."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not (length.isdigit() and int(length) <= MAX_STRANGERS_BYTES):
        return TooLarge("too-large", f"without a token the body has at most {MAX_STRANGERS_BYTES} bytes")
    return None


def _mounted(service: Service, access: Access, route: Route) -> StarletteRoute:
    async def endpoint(request: Request) -> Response:
        caller = request.scope[CALLER]

        def holds() -> bool:
            return access.holds(caller, now_ms())

        return await _guarded(service, caller, lambda: _answer(service, route, request, holds))

    return StarletteRoute(route.path, endpoint, methods=[route.method], name=f"{route.method} {route.path}")


def _served(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    """A file of the web page, to whoever asks."""
    headers = {**HEADERS, "ETag": file.tag}

    async def endpoint(request: Request) -> Response:
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.data, headers=headers, media_type=file.media)

    return endpoint


async def _guarded(service: Service, caller: Caller, answer: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await answer()
    except Refused as refused:
        service.refused_calls.note(caller.author, refused, proved=caller.role is not None)
        return _refusal(refused)


def _refusal(refused: Refused, headers: Mapping[str, str] | None = None) -> Response:
    if isinstance(refused, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    media = "application/problem+json"
    return Response(_encode(refused.problem), refused.status, headers=headers, media_type=media)


async def _no_path(request: Request, error: Exception) -> Response:
    return _refusal(NotFound("no-such-path", "there is no such call; a '/' inside an id is sent as %2F"))


async def _no_method(request: Request, error: Exception) -> Response:
    refused = Invalid("no-such-method", f"this path has no {request.method}")
    refused.status = 405
    return _refusal(refused)


# --- one call -------------------------------------------------------------------------------------


async def _answer(service: Service, route: Route, request: Request, holds: Callable[[], bool]) -> Response:
    path = {name: unquote(value) for name, value in request.path_params.items()}
    caller = request.scope[CALLER]
    if not is_for_strangers(route.method, request.scope["path"]):
        caller.check_role(route.allowed, scoped=route.scoped)
    service = service.by(caller)
    if route.noun and "id" in path and not (route.method == "PUT" and route.path.endswith("{id}")):  # that may make it
        service.check_visible(route.noun, path["id"])
    body = await _body(route, request)
    call = Call(service, path, _query(route, request), body, _is_in_clear(request.scope), _tags(route, request))
    caller.check_whole(name for name in sorted(route.whole) if name in call.query or getattr(call.body, name, None))
    if route.handler is None:
        raise NotImplementedError(route.path)
    made = route.handler(call)
    if isinstance(made, AsyncIterator):
        if LINES in request.headers.get("accept", ""):
            return StreamingResponse(await _started(made), media_type=LINES)
        return _value(await _last(made))
    answer = await (_while_awaited(request, made) if route.asks else made)
    return _Streamed(answer, holds) if isinstance(answer, AnswerStream) else _value(answer)


async def _while_awaited(request: Request, answer: Awaitable[Any]) -> Any:
    """An answer, unless its caller goes first: then its work is given up."""
    working, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(request))
    gone.add_done_callback(lambda _: working.cancel())
    try:
        return await working
    except asyncio.CancelledError:
        if not gone.done():
            raise  # the controller ends
        return Text("", "text/plain")  # nobody is there to read it
    finally:
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Streamed(StreamingResponse):
    """A stream, to its end or to that of the caller's token. Whatever ends it, its maker is told."""

    def __init__(self, stream: AnswerStream, holds: Callable[[], bool]) -> None:
        self._stream = stream
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._pieces(holds), media_type=stream.media, headers=headers)

    async def _pieces(self, holds: Callable[[], bool]) -> AsyncIterator[bytes]:
        async for piece in self._stream.pieces:
            if not holds():
                return
            yield piece

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


def _is_in_clear(scope: Scope) -> bool:
    """Whether an answer leaves this machine without TLS."""
    client = scope.get("client")
    return scope.get("scheme") != "https" and peer_of(scope) is None and not (client and is_loopback(client[0]))


def _value(value: Any) -> Response:
    if isinstance(value, Tagged):
        headers = {"ETag": f'"{value.tag}"'}
        if value.disruption is not None:
            headers["Vnet-Disruption"] = value.disruption.name.lower()
        return Response(_encode(value.value), headers=headers, media_type=JSON)
    if isinstance(value, Text):
        return Response(value.text, media_type=value.media)
    return Response(_encode(value), media_type=JSON)


def _query(route: Route, request: Request) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in route.query:
            known = ", ".join(route.query) or "none"
            raise Invalid("query", f"{name[:40]}: no such parameter here; there are: {known}", name[:40])
        if name in query:
            raise Invalid("query", f"{name}: stands twice", name)
        query[name] = value
    return query


def _tags(route: Route, request: Request) -> frozenset[str] | None:
    """The tags that a write is bound to, None for none. Raises Invalid for some that this call would not heed."""
    sent = request.headers.getlist(IF_MATCH)
    if sent and not route.conditional:
        raise Invalid("if-match", f"this call takes no {IF_MATCH}", IF_MATCH)
    return tags_in(", ".join(sent)) if sent else None


async def _body(route: Route, request: Request) -> Any:
    data = await read_bounded(request, api.MAX_BODY_BYTES)
    if route.media is not None and route.changes:
        return data
    if route.body is None:
        if data:
            raise Invalid("body", "this call takes no body")
        return None
    return route.read(data) if route.read is not None else decode_body(data, route.body)


async def read_bounded(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes; raises TooLarge without reading more."""
    too_large = TooLarge("too-large", f"the body is larger than {limit} bytes")
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length) > limit:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise too_large
    return bytes(data)


# --- long calls -----------------------------------------------------------------------------------


async def _last(steps: AsyncIterator[tuple[str, Any]]) -> Any:
    last: Any = None
    async for _, result in steps:
        last = result
    return last


async def _started(steps: AsyncIterator[tuple[str, Any]]) -> AsyncIterator[bytes]:
    """The lines of a long call, once it is past what can be refused at once: that is answered by its status."""
    try:
        first = await anext(steps)
    except StopAsyncIteration:
        first = ("", None)
    return _lines(first, steps)


async def _lines(first: tuple[str, Any], steps: AsyncIterator[tuple[str, Any]]) -> AsyncIterator[bytes]:
    """A line per step, without results but for the last one: they may be large."""
    text, result = first
    try:
        yield _line(api.Progress(kind="progress", text=text))
        async for step in steps:
            text, result = step
            yield _line(api.Progress(kind="progress", text=text))
        yield _line(api.Progress(kind="done", text=text, result=result))
    except Refused as refused:
        yield _line(api.Progress(kind="failed", text=refused.message, problem=refused.problem, result=result))


def _line(progress: api.Progress) -> bytes:
    return _encode(progress) + b"\n"
