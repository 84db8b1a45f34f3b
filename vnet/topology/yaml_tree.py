"""Bytes to a tree of YAML nodes with places. One rule: a node is text until the grammar says what it should be.

libyaml reads the syntax; types are ours (YAML 1.2 core schema, guided by the grammar), so no MAC becomes a sexagesimal
number and no `on` becomes true. Hostile input is bounded: size, depth, number of values, aliases counted as what they repeat.

A document of several files is one text (files.py): a line FILE_MARK begins each further file, and each is parsed by itself. YAML ends a document
at such a line wherever it stands, so none is part of a value (YAML 1.2 §9.1.2).
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # libyaml's own events, without the loader's types

from vnet.grammar.nodes import ListNode, MapNode, Node, TextNode, clip, describe, is_null
from vnet.grammar.problems import Place, split_lines
from vnet.grammar.source import Source, place_of
from vnet.util.suggest import listing, nearest

MAX_BYTES = 8 * 2**20
MAX_NODES = 1_500_000  # about what MAX_BYTES of an ordinary document holds; an alias counts as all that it repeats
MAX_DEPTH = 32  # the grammar needs 8
FILE_MARK = "... # file: "

# YAML 1.2 §5.1; a byte order mark may stand at the start only.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def decode(data: bytes, filename: str) -> Source:
    """The text of a document. Raises TopologyErrors for one that is empty, too big, or not UTF-8 text."""
    source = Source(filename)
    if len(data) > MAX_BYTES:
        source.stop(
            "too-big",
            f"the document has {len(data):,} bytes; at most {MAX_BYTES:,} (8 MiB) are read",
            hint="is this the right file? about 60,000 VIFs fit",
        )
    try:
        source.text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        source.text = data.decode("utf-8", errors="replace")
        before = data[: error.start].decode("utf-8-sig")
        place = Place(len(split_lines(before)), len(split_lines(before)[-1]) + 1)
        message = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} of the file"
        source.stop("not-utf-8", message, place, _encoding_hint(data))
    if bad := _UNPRINTABLE.search(source.text):
        before = source.text[: bad.start()]
        line = before.count("\n") + 1
        place = Place(line, bad.start() - before.rfind("\n"))
        source.stop("syntax", f"control character U+{ord(bad.group()):04X} cannot stand in a document", place)
    if FILE_MARK in source.text:
        lines = split_lines(source.text)
        marks = [(number, line) for number, line in enumerate(lines, 2) if line.startswith(FILE_MARK)]
        source = Source(filename, source.text, None, [(first, line.removeprefix(FILE_MARK)) for first, line in marks])
    if not source.text.strip():
        source.stop("empty", "the document is empty", hint="it starts with 'apiVersion: vnet/v1' and 'pool: NAME'")
    return source


def _encoding_hint(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "this looks like UTF-16: save it as UTF-8"
    return "save it as UTF-8" if b"\0" not in data else "this looks like a binary file"


class _Builder:
    """Folds parse events into nodes, with its own stack: depth is bounded by MAX_DEPTH, not by Python's or C's."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.anchors: dict[str, tuple[Node, int]] = {}  # with the number of nodes it repeats
        self.open: list[tuple[ListNode | MapNode, str | None, int]] = []  # with its anchor, and the count before it
        self.keys: list[TextNode | None] = []  # one per open collection: the key whose value comes next
        self.count = 0
        self.before = 0  # the lines of the text before the file that is parsed
        self.root: Node | None = None  # of that file

    def scalar(self, event: Any) -> None:
        start, end = event.start_mark, event.end_mark
        if event.tag is not None:
            self.no_tag(event)
        length = end.column - start.column if start.line == end.line else 1
        node = TextNode(event.value, event.implicit[0], start.line + self.before, start.column, length)
        self.count += 1
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1)
        self.put(node)

    def alias(self, event: Any) -> None:
        start = event.start_mark
        place = Place(start.line + 1 + self.before, start.column + 1, len(event.anchor) + 1)
        found = self.anchors.get(event.anchor)
        if found is None:
            if any(anchor == event.anchor for _, anchor, _ in self.open):
                self.source.stop("alias", f"'*{event.anchor}' stands inside the value that it repeats", place)
            near = nearest(event.anchor, self.anchors)
            hint = (
                f"did you mean '*{near}'?" if near else f"anchors before this line: {listing(self.anchors) or 'none'}"
            )
            self.source.stop("alias", f"'*{event.anchor}' repeats no anchor", place, hint)
        self.count += found[1]
        self.bound(place)
        self.put(found[0])

    def begin(self, event: Any, node: ListNode | MapNode) -> None:
        if event.tag is not None:
            self.no_tag(event)
        if len(self.open) >= MAX_DEPTH:
            self.source.stop("too-deep", f"more than {MAX_DEPTH} lists and maps inside each other", place_of(node))
        self.open.append((node, event.anchor, self.count))
        self.keys.append(None)
        self.count += 1
        self.bound(place_of(node))

    def end(self) -> None:
        node, anchor, before = self.open.pop()
        self.keys.pop()
        if anchor is not None:
            self.anchors[anchor] = (node, self.count - before)
        self.put(node)

    def put(self, node: Node) -> None:
        """The node is whole: give it to the collection it stands in."""
        if not self.open:
            self.root = node
            return
        parent = self.open[-1][0]
        if isinstance(parent, ListNode):
            parent.items.append(node)
        elif (key := self.keys[-1]) is not None:
            parent.entries.append((key, node))
            self.keys[-1] = None
        elif isinstance(node, TextNode):
            self.keys[-1] = node
        else:
            self.source.stop("syntax", f"{describe(node)} cannot be a key", place_of(node), "a key is a name")

    def bound(self, place: Place) -> None:
        if self.count > MAX_NODES:
            self.source.stop(
                "too-many",
                f"more than {MAX_NODES:,} values, each alias counted as all that it repeats",
                place,
                "an alias of aliases grows fast: write it out",
            )

    def no_tag(self, event: Any) -> None:
        start = event.start_mark
        place = Place(start.line + 1 + self.before, start.column + 1)
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        self.source.stop(
            "tag", f"the tag '{clip(tag)}' is not used here", place, "leave it out: every key has its type"
        )


def parse(source: Source) -> Node:
    """The document of a text of one file. Raises as parse_files does."""
    return parse_files(source)[0]


def parse_files(source: Source) -> list[Node]:
    """The document of each file of a text, the first one's first; of the others those that have any. Raises TopologyErrors for text that is no YAML,
    more than one document in a file, or too much."""
    builder = _Builder(source)
    roots: list[Node] = []
    for number, (before, text) in enumerate(source.files()):
        builder.before, builder.root = before, None
        builder.anchors.clear()  # an alias repeats what stands in its own document (YAML 1.2 §3.2.2.2)
        try:
            _fold(CParser(text.encode()), builder)
        except yaml.MarkedYAMLError as error:
            _syntax(source, error, before)
        except yaml.YAMLError as error:
            source.stop("syntax", f"not YAML: {error}", Place(before + 1, 1))
        if builder.root is not None and not is_null(builder.root):
            roots.append(builder.root)
        elif not number:
            source.stop("empty", "the document is empty", hint="it starts with 'apiVersion: vnet/v1' and 'pool: NAME'")
    return roots


def _fold(parser: Any, builder: _Builder) -> None:
    next_event = parser.get_event
    while True:
        event = next_event()
        kind = event.__class__
        if kind is yaml.ScalarEvent:
            builder.scalar(event)
        elif kind is yaml.MappingStartEvent:
            builder.begin(event, MapNode([], event.start_mark.line + builder.before, event.start_mark.column))
        elif kind is yaml.SequenceStartEvent:
            builder.begin(event, ListNode([], event.start_mark.line + builder.before, event.start_mark.column))
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            builder.end()
        elif kind is yaml.AliasEvent:
            builder.alias(event)
        elif kind is yaml.DocumentStartEvent:
            _document(event, builder)
        elif kind is yaml.StreamEndEvent:
            return


def _document(event: Any, builder: _Builder) -> None:
    place = Place(event.start_mark.line + 1 + builder.before, event.start_mark.column + 1, 3)
    if builder.root is not None:
        builder.source.stop("many-documents", "a second document starts here", place, "one file holds one document")
    if event.version is not None and event.version != (1, 2):
        version = ".".join(map(str, event.version))
        builder.source.stop("syntax", f"'%YAML {version}': documents are YAML 1.2", place, "leave the line out")


# libyaml's words for what people do most often, in words that say what to do.
_SYNTAX_HINTS = {
    "mapping values are not allowed in this context": "a ': ' inside a value needs quotes; or the line above lacks its own ':'; or the indentation is off",
    "could not find expected ':'": "a key needs ': ' after it",
    "did not find expected key": "the indentation is not that of the keys above, or a quote or bracket is not closed",
    "did not find expected ',' or '}'": "a '{' further up is not closed, or a ',' is missing",
    "did not find expected ',' or ']'": "a '[' further up is not closed, or a ',' is missing",
    "did not find expected '-' indicator": "the items of a list start with '- ', all in one column",
    "found unexpected end of stream": "this quote is not closed",
}

# Where the start of the value is at fault, and libyaml noticed later.
_SYNTAX_AT_START = ("could not find expected ':'", "found unexpected end of stream")


def _syntax(source: Source, error: yaml.MarkedYAMLError, before: int) -> None:
    """before: the lines of the text before the file that is parsed."""
    mark = error.problem_mark or error.context_mark
    place = None if mark is None else Place(mark.line + 1 + before, mark.column + 1)
    problem = error.problem or "cannot be read"
    hint = _SYNTAX_HINTS.get(problem, "")
    char = source.line(place.line)[place.column - 1 : place.column] if place else ""
    if problem == "found character that cannot start any token":
        problem = f"a value cannot start with {char!r}" if char != "\t" else "a tab where only spaces may stand"
        hint = "put it in quotes" if char != "\t" else "indent with spaces"
    start = error.context_mark
    if start is not None and place is not None and start.line + 1 + before != place.line:
        if problem in _SYNTAX_AT_START:
            place = Place(start.line + 1 + before, start.column + 1)
        else:
            hint += f" (inside what starts on line {start.line + 1})"
    source.stop("syntax", f"not YAML: {problem}", place, hint)
