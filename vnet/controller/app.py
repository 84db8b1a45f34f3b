"""HTTP for the API's routes: bytes to values and back, refusals to problems, long calls to lines of progress.

One rule: whatever comes in is bounded and decoded by its type before anything looks at it.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route as StarletteRoute

from vnet import api
from vnet.controller import openapi
from vnet.controller.body_decoder import decode_body
from vnet.controller.connections import admit_of
from vnet.controller.endpoint import MAX_STRANGERS_BYTES, Call, Route, Text, Written, is_for_strangers
from vnet.controller.errors import Invalid, NotFound, Refused, TooLarge, Unauthorized, Unavailable
from vnet.controller.routes import routes
from vnet.controller.service import Service
from vnet.controller.sse import EVENTS, events

log = logging.getLogger("vnet.controller.http")

JSON = "application/json"
LINES = "application/x-ndjson"
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
_encode = msgspec.json.Encoder(order="deterministic").encode


def application(service: Service, token: bytes | None = None) -> Asgi:
    """The API as an ASGI application. With a token, every call must carry it as `Authorization: Bearer`."""
    table = routes()
    document = _encode(openapi.document([*table, EVENTS], service.version))
    page = openapi.page([*table, EVENTS])

    async def get_document(request: Request) -> Response:
        return Response(document, media_type=JSON)

    async def get_page(request: Request) -> Response:
        return HTMLResponse(page)

    async def get_events(request: Request) -> Response:
        return await _guarded(lambda: events(service, request))

    app = Starlette(
        routes=[
            *(_mounted(service, route) for route in table),
            StarletteRoute("/v1/events", get_events, methods=["GET"]),
            StarletteRoute("/v1/openapi.json", get_document),
            StarletteRoute("/v1/", get_page),
            StarletteRoute("/v1", lambda request: RedirectResponse("/v1/")),
        ],
        exception_handlers={404: _no_path, 405: _no_method},
    )
    app.router.redirect_slashes = False

    async def gate(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            # Routes match what is between the slashes as it was sent: a VIF's id has slashes of its own, sent as %2F.
            scope["path"] = scope["raw_path"].decode("latin-1")
            refused = _stranger(scope, token) if token is not None else None
            if refused is not None:
                await _refusal(refused, {"Connection": "close"})(scope, receive, send)
                return
        await app(scope, receive, send)

    return gate


def _stranger(scope: Scope, token: bytes) -> Refused | None:
    """The refusal of a call whose caller does not show the token, or for whom there is no place."""
    if is_for_strangers(scope["method"], scope["path"]):
        return _too_much(scope)
    if not _authorized(scope, token):
        return Unauthorized("unauthorized", "give the controller's token as a bearer token")
    if not admit_of(scope)():
        return Unavailable("busy", "there are as many connections as may be: close some, or try again")
    return None


def _too_much(scope: Scope) -> Refused | None:
    """The refusal of a stranger's body of any length, or a great one."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not (length.isdigit() and int(length) <= MAX_STRANGERS_BYTES):
        return TooLarge("too-large", f"without a token the body has at most {MAX_STRANGERS_BYTES} bytes")
    return None


def _authorized(scope: Scope, token: bytes) -> bool:
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, credentials = given.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(credentials.strip(), token)


def _mounted(service: Service, route: Route) -> StarletteRoute:
    async def endpoint(request: Request) -> Response:
        return await _guarded(lambda: _answer(service, route, request))

    return StarletteRoute(route.path, endpoint, methods=[route.method], name=f"{route.method} {route.path}")


async def _guarded(answer: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await answer()
    except Refused as refused:
        return _refusal(refused)


def problem_of(refused: Refused) -> api.Problem:
    """A refusal as the API tells it."""
    problems = list(refused.problems)
    return api.Problem(code=refused.code, message=refused.message, where=refused.where, problems=problems)


def _refusal(refused: Refused, headers: Mapping[str, str] | None = None) -> Response:
    if isinstance(refused, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    media = "application/problem+json"
    return Response(_encode(problem_of(refused)), refused.status, headers=headers, media_type=media)


async def _no_path(request: Request, error: Exception) -> Response:
    return _refusal(NotFound("no-such-path", "there is no such call; a '/' inside an id is sent as %2F"))


async def _no_method(request: Request, error: Exception) -> Response:
    refused = Invalid("no-such-method", f"this path has no {request.method}")
    refused.status = 405
    return _refusal(refused)


# --- one call -------------------------------------------------------------------------------------


async def _answer(service: Service, route: Route, request: Request) -> Response:
    path = {name: unquote(value) for name, value in request.path_params.items()}
    call = Call(service, path, _query(route, request), await _body(route, request))
    if route.steps is not None:
        steps = route.steps(call)
        if LINES in request.headers.get("accept", ""):
            return StreamingResponse(await _started(steps), media_type=LINES)
        return _value(await _last(steps))
    if route.handler is None:
        raise NotImplementedError(route.path)
    return _value(await route.handler(call))


def _value(value: Any) -> Response:
    if isinstance(value, Written):
        headers = {"Vnet-Disruption": value.disruption.name.lower()}
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
        yield _line(api.Progress(kind="failed", text=refused.message, problem=problem_of(refused), result=result))


def _line(progress: api.Progress) -> bytes:
    return _encode(progress) + b"\n"
