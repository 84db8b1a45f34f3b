"""Events over HTTP: as a list, or as server-sent events that a reader resumes with Last-Event-ID.

One rule: a stream holds nothing but its place in the feed, so a reader that does not read costs no memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from vnet import api
from vnet.api.errors import Invalid
from vnet.controller.endpoint import Call, Route
from vnet.controller.event_log import KEPT, Entry
from vnet.controller.service import Service
from vnet.objects import Event

STREAM = "text/event-stream"
IDLE_S = 15.0  # a comment this often keeps proxies from closing a quiet stream
RETRY_MS = 1000

FILTERS = ("kind", "host", "network", "vif")
EVENTS = Route(
    "GET",
    "/v1/events",
    summary="The newest events, oldest first; with `Accept: text/event-stream` those that come, resumed after Last-Event-ID.",
    answer=list[api.Event],
    query={
        "limit": "How many of the newest, 100 unless told; for a stream, how many to start with, none unless told. At most the 2,000 that are kept.",
        "kind": "Only events of this kind.",
        "host": "Only events of this host.",
        "network": "Only events of this network.",
        "vif": "Only events of this VIF.",
    },
    tag="events",
    scoped=True,
)


async def events(service: Service, request: Request, holds: Callable[[], bool]) -> Response:
    """Answer GET /v1/events; raises Invalid. holds: whether the caller's token still is one."""
    query = dict(request.query_params)
    unknown = query.keys() - EVENTS.query.keys()
    if unknown:
        raise Invalid("query", f"{min(unknown)[:40]}: no such parameter here", min(unknown)[:40])
    call: Call[None] = Call(service, {}, query, None)
    streamed = STREAM in request.headers.get("accept", "")
    limit = call.number("limit", 0 if streamed else 100, 0, 10_000)
    latest = service.feed.latest(KEPT if limit else 0)
    found = [entry for entry in latest if _wanted(service, entry.event, query)]
    newest = found[max(0, len(found) - limit) :]
    if not streamed:
        return Response(b"[" + b",".join(entry.data for entry in newest) + b"]", media_type="application/json")
    if last := request.headers.get("last-event-id"):
        position = service.feed.position_after(last)
    else:
        position = newest[0].position - 1 if newest else service.feed.end
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(service, position, query, holds), media_type=STREAM, headers=headers)


def _wanted(service: Service, event: Event, query: Mapping[str, str]) -> bool:
    return all(getattr(event, name) == query[name] for name in FILTERS if name in query) and _visible(service, event)


def _visible(service: Service, event: Event) -> bool:
    """Whether the caller may see an event: of what is in its scope, or was."""
    scope = service.caller.scope
    if scope is None:
        return True
    state = service.database.mirror.state
    vif = state.vifs.get(event.vif)
    return bool(event.network) and scope.resolved(state.networks.values()).sees_event(event.network, event.vif, vif)


async def _stream(
    service: Service, position: int, query: Mapping[str, str], holds: Callable[[], bool]
) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    async for batch in service.feed.follow(position, IDLE_S):
        if not holds():  # the token is revoked, or has ended
            return
        messages = b"".join(_message(entry) for entry in batch if _wanted(service, entry.event, query))
        if messages or not batch:
            yield messages or b": alive\n\n"


def _message(entry: Entry) -> bytes:
    """One message of the stream (HTML Living Standard §9.2.5): JSON has no line breaks, so the data is one line."""
    return b"id: " + entry.id.encode() + b"\ndata: " + entry.data + b"\n\n"
