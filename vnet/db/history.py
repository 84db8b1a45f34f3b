"""The history of a pool: a record of each change, with who made it, from where, why, and what was there before and after; and of refused calls.

One rule: a record is written in the transaction of its change, by the write itself, so that none is without the other. What it costs follows
from what changed. The oldest go first, by number and by bytes.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from zlib import compress, decompressobj
from zlib import error as ZlibError

import msgspec

from vnet.db.changes import OWN_FIELDS, RowChange
from vnet.grammar.declare import Attr, Declared, Named, SetBy, attr, attrs_of, plain
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Boolean, ListOf
from vnet.objects import Network, Pool, Vif
from vnet.objects.token import Token
from vnet.objects.words import COUNT, LINE

KEPT = 1000  # records of revisions, and as many of steps, which raise no revision, and of each sort of refusals
MAX_KEPT = 10_000  # that a controller may be told to keep, and lists
KEPT_BYTES = 32 * 1024 * 1024  # of all changes, as they are stored
BOUNDED = ("_uuid", "time", "revision", "size", "refused", "stranger")  # the columns by which the oldest are found
MAX_REASON = 500
MAX_CHANGES_BYTES = 256 * 1024 * 1024  # of a record's changes, read back
_SHORT = 2048  # bytes that are stored as they are


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change: the caller, from where, why, and by which call."""

    caller: str = "unknown"
    source: str = ""
    reason: str = ""
    call: str = ""


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of a write, as its plan has them. disruption: the worst; empty for a step. of: the reason and the disruption of an object's change,
    by its noun and name."""

    disruption: str = ""
    of: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)


RENAME = "rename"  # the action of an update by which an object has another name as well


class RecordedChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object's change. old, new: the fields that differ, in the words of the API; all of one that comes or goes. Of rules and
    uplinks those that differ. reason, disruption: as the plan had them; empty for a step."""

    action: str
    noun: str
    name: str
    old: dict[str, Any]
    new: dict[str, Any]
    reason: str = ""
    disruption: str = ""


@dataclass(frozen=True, slots=True)
class HistoryRecord(Declared):
    """A change of the pool."""

    NOUN: ClassVar[Noun] = Noun("history", "history", "record", "History", "", key="")
    TITLE: ClassVar[str] = "a record"
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    time: int = attr(COUNT, "Milliseconds since 1970.")
    revision: int = attr(COUNT, "The pool's after it; 0 for a step that raises none.")
    caller: str = attr(LINE, "Who made it.", default="")
    source: str = attr(LINE, "From where.", default="")
    reason: str = attr(LINE, "Why, in the caller's words.", default="")
    call: str = attr(LINE, "The call of the API.", default="")
    disruption: str = attr(LINE, "Of its plan; empty for a step.", default="")
    summary: str = attr(LINE, "A few words.", default="")
    count: int = attr(COUNT, "How many objects changed.", default=0)
    size: int = attr(COUNT, "Bytes of `changes`.", default=0)
    changes: str = attr(LINE, "A list of RecordedChange, see encoded().", default="")
    refused: str = attr(LINE, "The code of the refusal, of calls that were refused.", default="")
    stranger: bool = attr(Boolean(), "Whether their caller had not proved who it is.", default=False)


def record_of(
    changes: Sequence[RowChange], author: Author, revision: int, costs: Costs, now_ms: int, summary: str = ""
) -> HistoryRecord:
    """The record of a change."""
    objects = [_object_change(change, costs) for change in changes]
    text = encoded(objects)
    return HistoryRecord(
        now_ms,
        revision,
        author.caller,
        author.source,
        author.reason,
        author.call,
        costs.disruption,
        summary or _summary(objects),
        len(objects),
        len(text),
        text,
    )


def _summary(objects: Sequence[RecordedChange]) -> str:
    if not objects:
        return ""
    words = f"{objects[0].action} {objects[0].noun} {objects[0].name}".rstrip()
    return words if len(objects) == 1 else f"{words} and {len(objects) - 1} more"


def encoded(objects: Sequence[RecordedChange]) -> str:
    """The text that a record holds them in: JSON, or zlib's of that in base64 behind a 'z'."""
    data = msgspec.json.encode(objects)
    return data.decode() if len(data) <= _SHORT else f"z{b64encode(compress(data)).decode()}"


def decoded(text: str) -> list[RecordedChange]:
    """The changes in a record's text. Raises ValueError for one that is none."""
    data = text.encode()
    if data.startswith(b"z"):
        unpacked = decompressobj()
        try:
            data = unpacked.decompress(b64decode(data[1:]), MAX_CHANGES_BYTES)
        except (ZlibError, ValueError) as error:
            raise ValueError(f"no changes: {error}") from None
        if unpacked.unconsumed_tail:
            raise ValueError(f"more than {MAX_CHANGES_BYTES} bytes of changes")
    try:
        return msgspec.json.decode(data, type=list[RecordedChange])
    except msgspec.MsgspecError as error:
        raise ValueError(f"no changes: {error}") from None


# --- before and after ------------------------------------------------------------------------------


def _object_change(change: RowChange, costs: Costs) -> RecordedChange:
    old, new = change.old, change.new
    value: Any = new if new is not None else old
    noun = value.NOUN
    name = " ".join(str(getattr(value, key)) for key in noun.keys)
    action = "create" if old is None else "delete" if new is None else "update"
    if old is not None and getattr(old, noun.key, "") != getattr(value, noun.key, ""):
        action = RENAME
    before, after = _words(old), _words(new)
    if old is not None and new is not None:
        before, after = _differing(type(old), before, after)
    return RecordedChange(action, noun.word, name, before, after, *costs.of.get((noun.word, name), ()))


def _words(value: Declared | None) -> dict[str, Any]:
    left = {Token: ("digest",), Pool: OWN_FIELDS, Vif: ("stays",)}.get(type(value), ())
    return {word: content for word, content in words_of(value).items() if word not in left} if value is not None else {}


def words_of(value: Declared) -> dict[str, Any]:
    """An object in the words of records: those of the API, and the key of a VLAN network, for relays, which answers leave out."""
    words = plain(value, document=False)
    if isinstance(value, Network) and value.key not in (words["vni"], words["key"]):
        words["key"] = value.key
    return words


def _differing(
    declared: type[Declared], old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The words that differ, before and after. Of a list of named parts, those that differ."""
    words = [word for word in new if old[word] != new[word]]
    before, after = {word: old[word] for word in words}, {word: new[word] for word in words}
    for word in words:
        if is_named(attrs_of(declared).get(word)):
            was, now = ({part["name"]: part for part in words_of[word]} for words_of in (old, new))
            before[word] = [part for name, part in was.items() if now.get(name) != part]
            after[word] = [part for name, part in now.items() if was.get(name) != part]
    return before, after


def is_named(found: Attr | None) -> bool:
    """Whether a field has items with names of their own."""
    of = found.type if found is not None else None
    return isinstance(of, Named) or (isinstance(of, ListOf) and of.named)


# --- bounds ----------------------------------------------------------------------------------------


def beyond(rows: Iterable[Mapping[str, Any]], kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> list[Any]:
    """The UUIDs of records that go: of revisions, of steps, of refusals of strangers and of those of others the ones beyond the newest `kept`, and the
    oldest beyond `kept_bytes` together.

    rows: BOUNDED of each.
    """
    counts: Counter[tuple[bool, ...]] = Counter()
    total, gone = 0, []
    for row in sorted(rows, key=lambda row: (row["time"], row["revision"]), reverse=True):
        sort = row["revision"] > 0, bool(row["refused"]), row["stranger"]
        counts[sort] += 1
        total += row["size"]
        if counts[sort] > kept or total > kept_bytes:
            gone.append(row["_uuid"])
    return gone
