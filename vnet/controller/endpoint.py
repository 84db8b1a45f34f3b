"""Calls of the API, and the arguments of their handlers. One rule: a handler never sees a request or a byte."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from inspect import getdoc, isasyncgenfunction
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from vnet.api.errors import Invalid
from vnet.controller.access import ADMINS, VIEWERS
from vnet.controller.service import Service
from vnet.objects.impact import Disruption
from vnet.objects.token import ApiRole
from vnet.web import FOLDER

B = TypeVar("B")
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


# What a host asks for that is on its way into the pool, and has no token of the controller.
JOIN, SHOW_CA = ("POST", "/v1/join"), ("GET", "/v1/ca")
HEALTHY, READY = ("GET", "/healthz"), ("GET", "/readyz")
_CERTIFICATE = re.compile(r"/v1/hosts/[^/]+/certificate")
MAX_STRANGERS_BYTES = 16 * 1024  # of a body


def is_for_strangers(method: str, path: str) -> bool:
    """Whether a call takes no token: what it shows is no secret, or it takes an invitation."""
    return (method, path) in (JOIN, SHOW_CA, HEALTHY, READY) or (
        method == "GET" and (path == "/" or path.startswith(FOLDER) or _CERTIFICATE.fullmatch(path) is not None)
    )


@dataclass(frozen=True, slots=True)
class Call(Generic[B]):
    """One call. path: what the path names, decoded; query: one value per name; body: decoded, or None. in_clear: whether its answer can be read on
    the way to the caller. tags: one of which the write must match, None for any."""

    service: Service
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: B
    in_clear: bool = False
    tags: frozenset[str] | None = None

    @property
    def id(self) -> str:
        return self.path["id"]

    def flag(self, name: str) -> bool:
        """A query value that is yes or no, no if it is left out; raises Invalid."""
        text = self.query.get(name, "false")
        if text not in _FLAGS:
            raise Invalid("query", f"{name}: {text[:40]!r} is neither true nor false", name)
        return _FLAGS[text]

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A query value in low..high; raises Invalid."""
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise Invalid("query", f"{name}: {text[:40]!r} is no number from {low} to {high}", name)
        return int(text)


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is no JSON."""

    text: str
    media: str


@dataclass(frozen=True, slots=True)
class AnswerStream:
    """An answer that comes by and by. close: called once the caller is gone, or has all."""

    pieces: AsyncIterator[bytes]
    media: str
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Tagged:
    """An answer with its entity tag. disruption: of a call that may have changed the pool."""

    value: Any
    tag: str
    disruption: Disruption | None = None


Handler = Callable[[Call[Any]], Awaitable[Any]]
Steps = Callable[[Call[Any]], AsyncIterator[tuple[str, Any]]]  # lines of progress; the last one carries the answer


@dataclass(frozen=True, slots=True)
class Route:
    """One call of the API. summary, answer, body: left out, as the handler has them: the first paragraph of its docstring, and the types that it
    takes and returns. query: its parameters with their meaning. media: of a body that is no JSON.

    read: reads the body in place of its type. roles: those that may call it; left out, those that view may read, and
    network admins alone may change. scoped: whether callers with a scope may, who then see and change what is theirs. whole: what of its query and
    body is about the whole pool, and refused to those. noun: of the object in its path. produces: the type of an answer that is no JSON. conditional: whether it heeds If-Match; others refuse it.
    asks: whether it writes nothing, and its work is given up if its caller goes.
    """

    method: str
    path: str
    handler: Handler | Steps | None = None
    summary: str = ""
    answer: Any = None
    body: Any = None
    read: Callable[[bytes], Any] | None = None
    media: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""
    roles: frozenset[ApiRole] = frozenset()
    scoped: bool = False
    whole: frozenset[str] = frozenset()
    noun: str = ""
    produces: str = ""
    conditional: bool = False
    asks: bool = False

    def __post_init__(self) -> None:
        if self.handler is None:
            return
        hints = get_type_hints(self.handler)
        (body,), answer = get_args(hints["call"]), hints["return"]
        if self.in_steps:
            ((_, answer),) = map(get_args, get_args(answer))
        text, *_ = (getdoc(self.handler) or "").partition("\n\n")
        object.__setattr__(self, "summary", self.summary or " ".join(text.split()))
        object.__setattr__(self, "answer", self.answer or {Text: str, AnswerStream: bytes}.get(answer, answer))
        if self.body is None and body not in (NoneType, bytes):
            object.__setattr__(self, "body", body)

    @property
    def in_steps(self) -> bool:
        """Whether it is a long call, whose handler yields lines of progress."""
        return isasyncgenfunction(self.handler)

    @property
    def allowed(self) -> frozenset[ApiRole]:
        """The roles that may call it."""
        return self.roles or (ADMINS if self.changes else VIEWERS)

    @property
    def changes(self) -> bool:
        return self.method != "GET"
