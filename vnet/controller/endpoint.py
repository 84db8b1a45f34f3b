"""What a call of the API is, and what a handler of one gets. One rule: a handler never sees a request or a byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from vnet.controller.errors import Invalid
from vnet.controller.service import Service

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Call(Generic[B]):
    """One call. path: what the path names, decoded; query: one value per name; body: decoded, or None."""

    service: Service
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: B

    @property
    def id(self) -> str:
        return self.path["id"]

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


Handler = Callable[[Call[Any]], Awaitable[Any]]
Steps = Callable[[Call[Any]], AsyncIterator[tuple[str, Any]]]  # lines of progress; the last one carries the answer


@dataclass(frozen=True, slots=True)
class Route:
    """One call of the API. query: its parameters, by name, each with what it means. media: what a raw body is."""

    method: str
    path: str
    summary: str
    answer: Any
    handler: Handler | None = None
    steps: Steps | None = None
    body: Any = None
    media: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""

    @property
    def changes(self) -> bool:
        return self.method != "GET"
