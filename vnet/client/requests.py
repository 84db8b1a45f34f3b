"""Calls of the controller as values: the request, and the type of the answer. The clients send them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from vnet import api
from vnet.api.errors import BadAnswer, ClientError, error_of

T = TypeVar("T")
Progress = Callable[[str], None]

LINES = "application/x-ndjson"
STREAM = "text/event-stream"
PCAPNG = "application/x-pcapng"
DISRUPTION = "Vnet-Disruption"  # the header with the disruption of a PUT or POST: none, flows, vif or uplink
REASON = "Vnet-Reason"  # the header with the reason of a change, percent-encoded
MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024
TWIN_S = 300.0  # that the twin of a large pool takes
GRACE_S = 30.0  # on top of what a call itself may wait


def silent(text: str) -> None:
    """Ignores progress."""


@dataclass(frozen=True, slots=True)
class ApiRequest(Generic[T]):
    """One call. wait_s: how long it may take by itself. if_match: the tag that it is bound to. progress: is told of each step of a long call; None
    for a call of one step."""

    method: str
    path: str
    answer: Any
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    media: str = "application/json"
    wait_s: float = 0.0
    if_match: str | None = None
    progress: Progress | None = None

    def reporting(self, progress: Progress) -> ApiRequest[T]:
        """The same as a long call."""
        return replace(self, progress=progress)

    def decode(self, status: int, data: bytes) -> T:
        """The answer; raises the typed error of a refusal, BadAnswer."""
        if status >= 400:
            raise _refusal(status, data)
        try:
            if self.answer is str:
                return data.decode()  # type: ignore[return-value]
            return msgspec.json.decode(data, type=self.answer)  # type: ignore[no-any-return]
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadAnswer(f"{self.method} {self.path}: {error}") from None

    def result(self, line: api.Progress, status: int) -> T:
        """The answer in the last line of a long call."""
        if line.kind == "failed":
            raise error_of(line.problem or api.Problem(code="failed", message=line.text), status)
        try:
            return msgspec.convert(line.result, self.answer)  # type: ignore[no-any-return]
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"{self.method} {self.path}: {error}") from None


def _refusal(status: int, data: bytes) -> ClientError:
    try:
        return error_of(msgspec.json.decode(data, type=api.Problem), status)
    except msgspec.MsgspecError:
        return BadAnswer(f"status {status} without a problem: {data[:200]!r}")


def progress_of(line: bytes) -> api.Progress:
    """A line of a long call; raises BadAnswer."""
    try:
        return msgspec.json.decode(line, type=api.Progress)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"a line of progress: {error}") from None


def path(*parts: str) -> str:
    """/v1/PARTS, a '/' inside a part as %2F."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def reading(answer: type[T], *parts: str, **query: str | None) -> ApiRequest[T]:
    """A GET. Of the query, parameters that are None are left out; their names have dashes for underscores."""
    given = {name.replace("_", "-"): value for name, value in query.items() if value is not None}
    return ApiRequest("GET", path(*parts), answer, given)


def circumstances(at: str = "", down: Sequence[str] = (), cut: Sequence[str] = ()) -> dict[str, str]:
    """The part of a query that says of when it is, and which hosts and links fail."""
    found = {"at": at, "down": ",".join(down), "cut": ",".join(cut)}
    return {name: text for name, text in found.items() if text}


def sending(
    method: str,
    answer: type[T],
    body: object,
    *parts: str,
    dry_run: bool = False,
    wait_s: float = 0.0,
    if_match: str | None = None,
) -> ApiRequest[T]:
    """A call that changes the pool. body: sent as JSON, None for no body. if_match: the tag that it is bound to."""
    data = None if body is None else msgspec.json.encode(body)
    query = {"dry-run": "true"} if dry_run else {}
    return ApiRequest(method, path(*parts), answer, query, data, wait_s=wait_s, if_match=if_match)


def uploading(
    answer: type[T], *parts: str, document: bytes | None, query: Mapping[str, str | None], wait_s: float
) -> ApiRequest[T]:
    """A call that makes the pool another one, with a document or without. Of the query, parameters that are None are left out."""
    given = {name: value for name, value in query.items() if value is not None}
    return ApiRequest("POST", path(*parts), answer, given, document, "application/yaml", wait_s)


@dataclass(frozen=True, slots=True)
class ApiAnswer(Generic[T]):
    """An answer with what its headers say. disruption: of the call; empty where nothing was to be made. tag: of the object, or the plan."""

    value: T
    disruption: str = ""
    tag: str = ""
