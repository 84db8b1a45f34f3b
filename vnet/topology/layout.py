"""The layout of documents: the order of keys, indentation and quotes, with comments kept. What `vnet fmt` writes.

One rule: a text that would not be read as before, comments included, is refused and never written.

YAML libraries that keep comments, such as ruamel.yaml, tie each to the key before it, so it would go with the wrong one where keys change
their order. Here a line of comments belongs to what follows it, and a comment behind a value to that value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from typing import Any

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]
from yaml.emitter import Emitter
from yaml.resolver import Resolver

from vnet.grammar.declare import Named, Shape
from vnet.grammar.nodes import ListNode, MapNode, Node, TextNode, is_null
from vnet.objects import Pool
from vnet.topology.document import Section, root_shape
from vnet.topology.schema import declared_of, shape_in_document
from vnet.topology.yaml_tree import decode, parse
from vnet.util.gc_pause import collector_held

WIDTH = 140  # columns of a line, comments aside; a longer map or list is broken
INDENT = 2
_CORE = re.compile(  # what is no text by YAML 1.2 §10.3.2, if it has no quotes
    r"~|null|Null|NULL|true|True|TRUE|false|False|FALSE|[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|"
)
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*[ \t]+(#.*)")


Position = tuple[int, int]  # line and column, from 0


class NotKept(Exception):
    """A text that cannot be laid out. line: from 1, 0 for no one line."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True, eq=False)
class _Collection:
    """A map or a list. column: of its entries, in the text as it was. foot: lines of comments after its last entry. inside: the one it stands in."""

    brackets: str  # that it has on one line
    flow: bool
    column: int
    inside: _Collection | None
    end: Position = (0, 0)  # of one in brackets
    items: list[_Item] = field(default_factory=list)
    foot: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Item:
    """An entry of a map or a list. value: as it is written, if it is a scalar. head: lines of comments before it, and "" for an empty line.

    beside: comments behind its key; behind: those behind its value.
    """

    key: str | None
    inside: _Collection
    start: Position
    value: str | _Collection = ""
    head: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


def laid_out(data: bytes, filename: str) -> str:
    """The text of one file of a document in vnet's layout. Raises TopologyErrors for what is no YAML, NotKept for what cannot be kept."""
    with collector_held():
        return _laid_out(data, filename)


def _laid_out(data: bytes, filename: str) -> str:
    source = decode(data, filename)
    if source.included:
        raise NotKept("this is several files in one: lay out each by itself")
    tree = parse(source)
    if not isinstance(tree, MapNode) or not tree.entries:
        raise NotKept("this is no document, which is a map")
    read = _CommentedTree(source.text)
    read.place_comments()
    first = read.root.items[0]
    _order(read.root, root_shape(), by_name=False)
    if first is not read.root.items[0] and (read.top or first.head) and first.head[:1] != [""]:
        first.head.insert(0, "")
    text = "\n".join([*read.top, *_block(read.root, 0)]).strip("\n") + "\n"
    if not _same(tree, parse(decode(text.encode(), filename))) or _CommentedTree(text).texts() != read.texts():
        raise NotKept("this cannot be laid out without changing what it says")
    return text


# --- reading -----------------------------------------------------------------------------------------


def _start(event: Any) -> Position:
    return event.start_mark.line, event.start_mark.column


def _end(event: Any) -> Position:
    return event.end_mark.line, event.end_mark.column


class _CommentedTree:
    """The tree of a text whose size and depth its parser has bounded. items: in the order of the text. comments: by their positions.

    ends: by line, the columns where a key or a value ends that a comment may follow, and the list that takes it. top: the lines that belong to the file.
    """

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.items: list[_Item] = []
        self.ends: dict[int, list[tuple[int, list[str]]]] = {}
        self.top: list[str] = []
        self._scalars: list[tuple[Position, Position]] = []
        self._parser = CParser(text.encode())
        while not isinstance(event := self._parser.get_event(), yaml.MappingStartEvent):
            pass
        self.root = self._collection(event, None, None)
        self.comments = dict(self._comments())

    def texts(self) -> list[str]:
        return sorted(self.comments.values())

    def _collection(self, event: Any, of: _Item | None, inside: _Collection | None) -> _Collection:
        """of: the item whose value it is."""
        self._check(event)
        is_map = isinstance(event, yaml.MappingStartEvent)
        made = _Collection("{}" if is_map else "[]", bool(event.flow_style), event.start_mark.column, inside)
        if made.flow and of is not None:
            self._ends(event, of.beside)
        while not isinstance(at := self._parser.get_event(), yaml.MappingEndEvent | yaml.SequenceEndEvent):
            item = _Item(None, made, _start(at))
            self.items.append(item)
            made.items.append(item)
            if is_map:
                item.key = self._scalar(at)
                self._ends(at, item.beside)
                at = self._parser.get_event()
            if isinstance(at, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                item.value = self._collection(at, item, made)
                continue
            item.value = self._scalar(at)
            if _start(at) != _end(at):
                self._ends(at, item.behind)
        if made.flow:
            made.end = _end(at)
            if of is not None:
                self._ends(at, of.behind)
        return made

    def _ends(self, event: Any, comments: list[str]) -> None:
        line, column = _end(event)
        self.ends.setdefault(line, []).append((column, comments))

    def _scalar(self, event: Any) -> str:
        self._check(event)
        self._scalars.append((_start(event), _end(event)))
        return written(event.value, plain=event.implicit[0])

    def _check(self, event: Any) -> None:
        if event.anchor is not None:
            message = "what '&' or '*' names is not laid out: write the value out where it is needed"
            raise NotKept(message, event.start_mark.line + 1)

    def _comments(self) -> Iterator[tuple[Position, str]]:
        """Every comment: from a '#' outside of scalars, at the start of a line or after a space, to the line's end (YAML 1.2 §6.6)."""
        covered: dict[int, list[tuple[int, int]]] = {}
        for (first, column), (last, end) in self._scalars:
            if (found := _BLOCK_HEADER.match(self.lines[first], column)) is not None:
                yield (first, found.start(1)), found[1].rstrip()
            for line in range(first, last + 1):
                covered.setdefault(line, []).append(
                    (column if line == first else 0, end if line == last else len(self.lines[line]))
                )
        for number, content in enumerate(self.lines):
            for mark in re.finditer(r"(?<!\S)#", content):
                if not any(start <= mark.start() < end for start, end in covered.get(number, ())):
                    yield (number, mark.start()), content[mark.start() :].rstrip()
                    break

    def place_comments(self) -> None:
        """Give each comment, and each empty line, to what it belongs to."""
        lines: dict[int, tuple[int, str]] = {n: (0, "") for n, line in enumerate(self.lines) if not line.strip()}
        for (number, column), text in self.comments.items():
            before = [(end, takes) for end, takes in self.ends.get(number, ()) if end <= column]
            if before:
                max(before, key=lambda it: it[0])[1].append(text)
            else:
                indented = len(self.lines[number]) - len(self.lines[number].lstrip())
                lines[number] = indented, text
        position = 0
        for number in sorted(lines):
            while position < len(self.items) and self.items[position].start[0] <= number:
                position += 1
            column, text = lines[number]
            if not text:
                continue
            empty = not lines.get(number - 1, (0, "-"))[1]
            takes = self._taker(number, column, position)
            takes.extend(["", text] if empty and (takes or position) else [text])
        self._empty_lines(lines)

    def _taker(self, number: int, column: int, position: int) -> list[str]:
        """The list that takes a line of comments. position: of the first item after it."""
        following = self.items[position] if position < len(self.items) else None
        inside = self.items[position - 1].inside if position else None
        chain: list[_Collection] = []
        while inside is not None:
            chain.append(inside)
            inside = inside.inside
        for each in chain:
            if each.flow and each.end > (number, column):
                return following.head if following is not None and following.start < each.end else each.foot
        if following is not None and (following.inside not in chain or column <= following.inside.column):
            return following.head
        least = following.inside.column if following is not None else -1
        ended = [each for each in chain if not each.flow and least < each.column <= column]
        if ended:
            return next(each for each in reversed(ended) if each.column == ended[0].column).foot
        return following.head if following is not None else self.root.foot

    def _empty_lines(self, lines: Mapping[int, tuple[int, str]]) -> None:
        """An empty line before an item that is no collection's first stays one. What stands above one at the start of the file is of the file."""
        seen: set[int] = set()
        for item in self.items:
            line = item.start[0]
            if line not in seen and not item.inside.flow and item is not self.root.items[0]:
                first = item is item.inside.items[0]
                while item.head[:1] == [""] and first:
                    del item.head[0]
                if line - 1 in lines and not lines[line - 1][1] and not (first and not item.head):
                    item.head.append("")
            seen.add(line)
        if "" in (head := self._first_head(lines)):
            last = len(head) - head[::-1].index("")
            self.top, self.items[0].head = head[:last], head[last:]

    def _first_head(self, lines: Mapping[int, tuple[int, str]]) -> list[str]:
        """The lines above the first item, with the empty ones."""
        return [lines[number][1] for number in range(self.items[0].start[0]) if number in lines]


# --- the layout ----------------------------------------------------------------------------------------


@lru_cache(maxsize=100_000)
def written(text: str, *, plain: bool) -> str:
    """A scalar as the layout has it: without quotes where every YAML takes it for the same text then, else in double ones. plain: as it was
    written without quotes; then a number, a truth or nothing stays one."""
    if plain and _CORE.fullmatch(text):
        return text
    analysis = _EMITTER.analyze_scalar(text)
    bare = analysis.allow_flow_plain and ":" not in text and not _CORE.fullmatch(text)
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    if bare and tag == "tag:yaml.org,2002:str":
        return text
    quoted: str = yaml.dump(text, Dumper=yaml.CSafeDumper, default_style='"', width=1 << 30, allow_unicode=True)
    return quoted.rstrip("\n")


_EMITTER, _RESOLVER = Emitter(StringIO()), Resolver()


def _order(value: str | _Collection, shape: Shape, *, by_name: bool) -> None:
    """Put the keys of each map in the order of their declarations. by_name: its keys are names, whose order stays."""
    if isinstance(value, str):
        return
    for item in value.items:
        if item.key is None or by_name:
            _order(item.value, shape, by_name=False)
        elif isinstance(found := shape.words.get(item.key), Shape):
            _order(item.value, found, by_name=False)
        elif found is not None and (declared := declared_of(found[1].type)) is not None:
            names = isinstance(found[1].type, Section | Named) and not getattr(declared, "NOUN", Pool.NOUN).listed
            _order(item.value, shape_in_document(declared), by_name=names)
    if not by_name:
        places = {word: place for place, word in enumerate(shape.words)}
        value.items.sort(key=lambda item: places.get(item.key or "", len(places)))


def _block(collection: _Collection, indent: int) -> list[str]:
    """The lines of a map or a list with an entry on each."""
    pad, lines = " " * indent, list[str]()
    widths = _widths(collection, indent) if indent else {}
    for item in collection.items:
        mark = "-" if item.key is None else f"{item.key}:"
        value, short = item.value, _beside(item, indent)
        head, below = item.head, list[str]()
        if isinstance(value, str) or short is not None:
            comments = [*item.beside, *item.behind]
            shown = f"{pad}{mark.ljust(widths.get(id(item), 0))} {short or 'null'}"
            if not short and item.key is not None:
                shown = f"{pad}{mark}"
            head, line = [*head, *comments[:-1]], " ".join([shown, *comments[-1:]])
        else:
            value.foot += item.behind
            below = _block(value, indent + INDENT)
            line = " ".join([f"{pad}{mark}", *item.beside])
            if item.key is None:
                first = next(n for n, each in enumerate(below) if each.strip() and not each.lstrip().startswith("#"))
                head = [*head, *item.beside, *(each.strip() for each in below[:first])]
                line, below = f"{pad}- {below[first].lstrip()}", below[first + 1 :]
        lines += [pad + each if each else "" for each in head]
        lines += [line, *below]
    return lines + [pad + each if each else "" for each in collection.foot]


def _beside(item: _Item, indent: int) -> str | None:
    """An entry's value, if it stands on the line of its key; a text always does."""
    short = _one_line(item.value)
    room = WIDTH - indent - len(item.key or "") - len(": ")
    return short if isinstance(item.value, str) or (short is not None and len(short) <= room) else None


def _widths(collection: _Collection, indent: int) -> dict[int, int]:
    """Of entries with maps or lists on one line, the columns of their keys: alike in a run of them without an empty line."""
    widths: dict[int, int] = {}
    run: list[_Item] = []
    for item in [*collection.items, None]:
        named = item is not None and item.key is not None and not isinstance(item.value, str)
        short = _beside(item, indent) if item is not None and named else None
        if item is None or short is None or "" in item.head:
            longest = max((len(each.key or "") + 1 for each in run), default=0)
            widths.update((id(each), longest) for each in run)
            run = []
        if item is not None and short is not None:
            run.append(item)
    return widths


def _one_line(value: str | _Collection) -> str | None:
    """A value on one line; None for one that takes several: it was written so, or has comments inside."""
    if isinstance(value, str):
        return value
    if value.foot or (value.items and not value.flow):
        return None
    parts = []
    for item in value.items:
        short = None if item.head or item.beside or item.behind else _one_line(item.value)
        if short is None:
            return None
        parts.append(short or "null" if item.key is None else f"{item.key}: {short or 'null'}")
    return f"{value.brackets[0]}{', '.join(parts)}{value.brackets[1]}"


def _same(before: Node, after: Node) -> bool:
    """Whether two trees say the same, keys of maps in any order."""
    if isinstance(before, MapNode) and isinstance(after, MapNode):
        mine, others = (sorted(node.entries, key=lambda entry: entry[0].text) for node in (before, after))
        return len(mine) == len(others) and all(
            a[0].text == b[0].text and _same(a[1], b[1]) for a, b in zip(mine, others, strict=True)
        )
    if isinstance(before, ListNode) and isinstance(after, ListNode):
        return len(before.items) == len(after.items) and all(map(_same, before.items, after.items))
    if not isinstance(before, TextNode) or not isinstance(after, TextNode):
        return False
    if is_null(before) or is_null(after):
        return is_null(before) and is_null(after)
    bare = [node.plain and _CORE.fullmatch(node.text) is not None for node in (before, after)]
    return before.text == after.text and bare[0] == bare[1]
