"""Mirrors: copies of what VIFs send and get, to a VIF, a VLAN of the physical network, or a collector.

One rule: a copy is made where a frame enters the pool, and once, whatever of its sender and its receiver the mirror is of. What a mirror carries is
never mirrored again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from vnet.grammar.declare import Declared, Flaw, SetBy, attr
from vnet.grammar.nodes import MapNode, Node, TextNode, clip, entry_of, is_null
from vnet.grammar.noun import Noun
from vnet.grammar.packet_filter import FilterRefused, packet_filter
from vnet.grammar.value_types import (
    FAILED,
    Column,
    Failed,
    Integer,
    JsonSchema,
    Scalar,
    ValueRefused,
    ValueType,
    choice,
)
from vnet.objects.carriers import GENEVE
from vnet.objects.enums import Owner
from vnet.objects.impact import Cost, Disruption, Usage
from vnet.objects.labels import Labels
from vnet.objects.limits import MAX_TAG
from vnet.objects.vif_sources import are_of, parsed, sources_list
from vnet.objects.words import ADDRESS, NAME_KIND, OWNER, UPLINK_NAME, VIF_ID_KIND

if TYPE_CHECKING:
    from vnet.grammar.source import Source

MAX_MIRRORS = 16  # of a pool
MAX_SESSION = 1023  # of ERSPAN: ten bits (draft-foschiano-erspan-03 §4.1)
MAX_GRE_ID = 2**32 - 1  # RFC 2890 §2
COLLECTOR_DEVICE = "mirror-"  # before the key: the port of br-int by which copies go to a collector
TRANSPORT = GENEVE  # by which copies reach a VIF on another host
_COPIED = Disruption.NONE, "frames go on as they do"


class TargetType(Enum):
    VIF = "vif"
    VLAN = "vlan"  # of an uplink, for nothing else: RSPAN
    ERSPAN = "erspan"
    GRE = "gre"


@dataclass(frozen=True, slots=True)
class MirrorTarget:
    """Where copies go. name: the VIF, the uplink or the collector's address. id: the tag, the session or the key. version: of ERSPAN."""

    type: TargetType
    name: str
    id: int = 0
    version: int = 0

    def __str__(self) -> str:
        match self.type:
            case TargetType.VIF:
                return self.name
            case TargetType.VLAN:
                return f"vlan {self.id} on {self.name}"
            case TargetType.ERSPAN:
                return f"erspan {self.name} id {self.id}" + (f" version {self.version}" if self.version != 1 else "")
            case TargetType.GRE:
                return f"gre {self.name} key {self.id}"


_TARGET = re.compile(
    r"vlan (?P<tag>\d{1,9}) on (?P<uplink>\S+)|erspan (?P<erspan>\S+) id (?P<session>\d{1,9})(?: version (?P<version>\d))?"
    r"|gre (?P<gre>\S+) key (?P<key>\d{1,10})"
)
_FORMS = "a VIF as ids1/0, {vlan: 99, uplink: trunk0}, {erspan: 10.0.0.9, id: 7} or {gre: 10.0.0.9, key: 7}"
_KEYS = {"vlan": ("uplink",), "erspan": ("id", "version"), "gre": ("key",), "vif": ()}


def _target(text: str) -> MirrorTarget:
    """The target of a text: as a map is written in one line."""
    found = _TARGET.fullmatch(text)
    if found is None:
        return MirrorTarget(TargetType.VIF, VIF_ID_KIND.parse(text))
    if found["tag"]:
        return MirrorTarget(
            TargetType.VLAN, UPLINK_NAME.parse(found["uplink"]), _within(found["tag"], 1, MAX_TAG, "tag")
        )
    if found["gre"]:
        return MirrorTarget(TargetType.GRE, ADDRESS.parse(found["gre"]), _within(found["key"], 0, MAX_GRE_ID, "key"))
    session = _within(found["session"], 0, MAX_SESSION, "id")
    version = _within(found["version"] or "1", 1, 2, "version of ERSPAN")
    return MirrorTarget(TargetType.ERSPAN, ADDRESS.parse(found["erspan"]), session, version)


def _within(text: str, low: int, high: int, noun: str) -> int:
    if not low <= int(text) <= high:
        raise ValueRefused("out-of-range", f"{noun} {text} is outside {low}..{high}")
    return int(text)


@dataclass(frozen=True, slots=True, eq=False)
class MirrorTargetType(ValueType[MirrorTarget]):
    """A target, as one line of text or as a map."""

    expected: str = _FORMS
    python: str = "str"
    column: Column = Column("string", encode=str, decode=_target)

    def read(self, node: Node, source: Source) -> MirrorTarget | Failed:
        if isinstance(node, TextNode) and not is_null(node):
            return parsed(_target, node.text, node, source)
        type = next((name for name in _KEYS if entry_of(node, name) is not None), None)
        if not isinstance(node, MapNode) or type is None:
            return self.wrong(node, source)
        words = {}
        for key, value in node.entries:
            if key.text not in (type, *_KEYS[type]) or not isinstance(value, TextNode):
                source.add("unknown-key", f"'{clip(key.text)}' does not go with '{type}': wanted {_FORMS}", key)
                return FAILED
            words[key.text] = value.text
        missing = [key for key in _KEYS[type] if key not in words and key != "version"]
        if missing:
            source.add("missing-key", f"'{type}' needs '{missing[0]}': wanted {_FORMS}", node)
            return FAILED
        text = {
            "vif": words[type],
            "vlan": f"vlan {words[type]} on {words.get('uplink')}",
            "gre": f"gre {words[type]} key {words.get('key')}",
            "erspan": f"erspan {words[type]} id {words.get('id')} version {words.get('version', 1)}",
        }[type]
        if type != "vif" and _TARGET.fullmatch(text) is None:
            return self.wrong(node, source)
        return parsed(_target, text, node, source)

    def check(self, value: MirrorTarget) -> None:
        if not isinstance(value, MirrorTarget) or _target(str(value)) != value:
            raise ValueRefused("wrong-value", f"wanted {self.expected}, found {clip(str(value))}")

    def plain(self, value: MirrorTarget) -> str:
        return str(value)

    def schema(self) -> JsonSchema:
        number, word = {"type": "integer"}, {"type": "string"}
        types = {
            "uplink": word,
            "vif": word,
            "vlan": number,
            "erspan": word,
            "gre": word,
            "id": number,
            "key": number,
            "version": number,
        }
        maps = [
            {
                "type": "object",
                "properties": {key: types[key] for key in (name, *keys)},
                "required": [name, *(key for key in keys if key != "version")],
                "additionalProperties": False,
            }
            for name, keys in _KEYS.items()
        ]
        return {"oneOf": [word, *maps]}


@dataclass(frozen=True, slots=True, eq=False)
class FilterText(ValueType[str]):
    """A filter in the language of pcap-filter(7), as it was written."""

    expected: str = "a filter as in pcap-filter(7), for example tcp port 443"
    python: str = "str"

    def read(self, node: Node, source: Source) -> str | Failed:
        if not isinstance(node, TextNode) or is_null(node):
            return self.wrong(node, source)
        try:
            packet_filter(node.text)
        except FilterRefused as refused:
            from vnet.grammar.problems import Place  # noqa: PLC0415 - an agent reads rows, which have no place

            at: Node | Place = node
            quotes = node.length - len(node.text)
            if source.paths is None and quotes in (0, 2):  # as it stands in the document
                at = Place(node.line + 1, node.column + 1 + quotes // 2 + refused.at, refused.length)
            source.add("wrong-filter", f"filter: {refused}", at)
            return FAILED
        return node.text

    def check(self, value: str) -> None:
        try:
            packet_filter(value)
        except FilterRefused as refused:
            raise ValueRefused("wrong-filter", str(refused)) from None

    def schema(self) -> JsonSchema:
        return {"type": "string"}


def _moment(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or found.year < 2000:
        hint = "as 2026-12-24T18:00:00Z, with its time zone"
        raise ValueRefused("wrong-value", f"'{clip(text)}' is no moment", hint)
    return found.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


class MirrorDirection(Enum):
    BOTH = "both"
    FROM_VM = "from-vm"
    TO_VM = "to-vm"


class MirrorPoint(Enum):
    """Before or after the groups and limits of the VIF that a mirror is of."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class FrameMirror(Declared):
    """Copies of frames of VIFs, wherever they run."""

    NOUN: ClassVar[Noun] = Noun(
        "mirror", "mirrors", "mirror", "Mirror", "mirrors",
        doc="Copies of what VIFs send and get, by name.", also=("span", "port-mirroring", "mirroring", "rspan"),
        unique=("key",),
    )  # fmt: skip
    TITLE: ClassVar[str] = "a mirror"

    name: str = attr(NAME_KIND, "Its name.", set_by=SetBy.NAME)
    from_: tuple[str, ...] = attr(
        sources_list("name what is mirrored"),
        "The VIFs whose frames are copied: by id, or those in a group (`group:NAME`), on a network (`network:NAME`), or with a label (`label:KEY=VALUE`).",
        also=("source", "sources", "select", "vifs"),
        change=_COPIED,
    )  # fmt: skip
    to: MirrorTarget = attr(
        MirrorTargetType(),
        "Where copies go: a VIF, wherever it runs; a VLAN of an uplink that is for nothing else (RSPAN); a collector by ERSPAN or GRE.",
        also=("target", "destination", "output"),
        change=_COPIED,
    )
    key: int = attr(
        Integer(f"a VNI, {GENEVE.keys[0]}..{GENEVE.max_key}", GENEVE.keys[0], GENEVE.max_key),
        "The Geneve VNI by which copies for a VIF on another host travel; no network has it.",
        set_by=SetBy.RUNTIME,
        allocated=True,
    )
    direction: MirrorDirection = attr(
        choice(
            "a direction",
            MirrorDirection,
            dict.fromkeys(("from", "egress", "tx", "out", "sent"), "did you mean 'from-vm'?")
            | dict.fromkeys(("to", "ingress", "rx", "in", "received"), "did you mean 'to-vm'?"),
        ),
        "What is copied of each VIF: what it sends, what it gets, or both.",
        default=MirrorDirection.BOTH,
        change=_COPIED,
    )
    filter: str | None = attr(
        FilterText(), "Which frames are copied, as in pcap-filter(7). Left out: all.", default=None, change=_COPIED
    )
    policy: MirrorPoint = attr(
        choice("a point", MirrorPoint),
        "Whether frames are copied as they come to the guard, groups and limits of the VIF, or only those that pass them.",
        default=MirrorPoint.BEFORE,
        change=_COPIED,
    )
    expires: str | None = attr(
        Scalar("a moment as 2026-12-24T18:00:00Z", {"type": "string", "format": "date-time"}, _moment),
        "When the controller takes it off. Left out: never.",
        default=None,
        also=("until", "ends"),
        change=_COPIED,
    )
    owner: Owner = attr(
        OWNER, "The document or the toolstack, as made it.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME
    )

    def flaws(self) -> Iterator[Flaw]:
        if self.from_ == (self.to.name,) and self.to.type is TargetType.VIF:
            yield Flaw("mirror", "to", f"VIF {self.to.name} cannot get copies of its own frames", relies_on=("from_",))

    @property
    def target(self) -> str | None:
        """The VIF that gets the copies; None where they leave the pool."""
        return self.to.name if self.to.type is TargetType.VIF else None

    @property
    def device(self) -> str | None:
        """The port of br-int by which copies go to a collector."""
        return f"{COLLECTOR_DEVICE}{self.key}" if self.to.type in (TargetType.ERSPAN, TargetType.GRE) else None

    def selects(self, vif: str, network: str, groups: tuple[str, ...], labels: Labels) -> bool:
        """Whether a VIF is one of its sources, by id, network, groups and all its labels. Its target is none."""
        if vif == self.target:
            return False
        return are_of(self.from_, vif, network, groups, labels)

    @property
    def copies_sent(self) -> bool:
        return self.direction is not MirrorDirection.TO_VM

    @property
    def copies_got(self) -> bool:
        return self.direction is not MirrorDirection.FROM_VM

    def ends_by(self, now_ms: int) -> bool:
        """Whether it has expired. now_ms: milliseconds since 1970."""
        return self.expires is not None and datetime.fromisoformat(self.expires).timestamp() * 1000 <= now_ms

    @property
    def summary(self) -> str:
        """A few words for a plan."""
        words = ["from", ", ".join(self.from_), "to", str(self.to)]
        words += [self.direction.value] if self.direction is not MirrorDirection.BOTH else []
        words += [f"filter '{self.filter}'"] if self.filter else []
        words += ["after policy"] if self.policy is MirrorPoint.AFTER else []
        return " ".join(words + ([f"until {self.expires}"] if self.expires else []))

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return _COPIED

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return Disruption.NONE, "its target gets no more copies"
