"""The topology document: the objects that a file states, and where each of them stands in it.

One rule: reading says what is wrong with the text alone; rules, which need a pool, say the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vnet.grammar.declare import Declared, Shape, Stated, attrs_of, cache, extra_word, read, shape_of
from vnet.grammar.nodes import ListNode, MapNode, Node, TextNode, clip, describe, entry_of, is_null
from vnet.grammar.problems import Place, Problem
from vnet.grammar.source import Source, place_of
from vnet.grammar.value_types import FAILED, Failed, JsonSchema, ListOf, Scalar, ValueRefused, ValueType, entries
from vnet.objects import Expectation, Pool, PoolState, Vif, Vm
from vnet.objects.limits import MAX_VIFS_OF_VM
from vnet.objects.proposal import Fault
from vnet.objects.renames import RENAMED
from vnet.objects.state import CONFIGURED
from vnet.objects.words import GROUP_NAME, LINE, NAME_KIND
from vnet.util.suggest import plural

API_VERSION = "vnet/v1"
RANGE = re.compile(r"([^\[\]]*)\[([0-9]{1,9})-([0-9]{1,9})\]([^\[\]]*)")  # of names
MAX_SPELLED_OUT = 20_000
MAX_INCLUDED = 1_000
INCLUDED = ListOf(LINE, "a list of files, in which '*' stands for any letters", most=MAX_INCLUDED)
SECTIONS = tuple(declared for declared in CONFIGURED if not declared.NOUN.parent)  # each a key of the document


def _api_version(text: str) -> str:
    if text != API_VERSION:
        raise ValueRefused("wrong-version", f"this program reads apiVersion {API_VERSION}, found '{clip(text)}'")
    return text


VERSION: Scalar[str] = Scalar(API_VERSION, {"const": API_VERSION}, _api_version)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The objects of one sort that could be read, by name, and the names of those that could not."""

    stated: Mapping[str, Stated] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Section(ValueType[Inputs]):
    """A document's map from names to objects of one sort, or its list of them. Nothing at all is an empty one."""

    declared: type[Declared]

    @property
    def expected(self) -> str:  # type: ignore[override]
        noun = self.declared.NOUN
        return f"a {'list' if noun.listed else 'map'} of {plural(noun.text)}"

    @property
    def name(self) -> Scalar[str]:
        return GROUP_NAME if self.declared.NOUN.state in ("groups", "address_sets") else NAME_KIND

    def read(self, node: Node, source: Source) -> Inputs | Failed:
        if is_null(node):
            return Inputs()
        if self.declared.NOUN.listed:
            return self._list(node, source)
        if not isinstance(node, MapNode):
            hint = "names are keys here, not items: 'NAME: {...}'" if isinstance(node, ListNode) else ""
            return self.wrong(node, source, hint)
        stated: dict[str, Stated] = {}
        refused: set[str] = set()
        for key, item in entries(node, source):
            name = self.name.read(key, source)
            if isinstance(item, ListNode) and self.declared.SHORT:
                item = MapNode([(replace(key, text=self.declared.SHORT), item)], item.line, item.column)  # noqa: PLW2901
            found, broken = read(self.declared, item, source, document_shape(self.declared))
            if broken or isinstance(name, Failed):
                refused.add(key.text)
            else:
                stated[name] = found
        return Inputs(stated, frozenset(refused))

    def _list(self, node: Node, source: Source) -> Inputs | Failed:
        if not isinstance(node, ListNode):
            return self.wrong(node, source, "one value is a list too: put it in [ ]")
        stated: dict[str, Stated] = {}
        for item in node.items:
            found, broken = read(self.declared, item, source)
            if broken:
                continue
            unsure = any(map(found.unclear, ("protocol", "port")))
            name = found.values.get("name") or (f"on line {item.line + 1}" if unsure else default_name(found))
            if stated.setdefault(name, found) is not found:
                source.add("twice", f"'{clip(name)}' stands twice in this list", item, "once is enough")
        return Inputs(stated)

    def schema(self) -> JsonSchema:
        item: JsonSchema = {"$ref": f"#/$defs/{self.declared.__name__}"}
        if self.declared.SHORT:
            item = {"oneOf": [item, attrs_of(self.declared)[self.declared.SHORT].type.schema()]}
        if self.declared.NOUN.listed:
            return {"type": ["array", "null"], "items": item}
        names = {key: word for key, word in self.name.schema().items() if key != "type"}
        if self.declared is Vm:
            names["pattern"] += f"|^{RANGE.pattern}$"
        return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": item}


@dataclass(frozen=True, slots=True)
class MovedNames(ValueType[Mapping[str, str]]):
    """Names that objects had, each with the one that they have."""

    name: Scalar[str]
    expected: str = "a map from former names to the names of now"

    def read(self, node: Node, source: Source) -> Mapping[str, str] | Failed:
        if is_null(node):
            return {}
        if not isinstance(node, MapNode):
            return self.wrong(node, source)
        found = {}
        for key, item in entries(node, source):
            old, new = self.name.read(key, source), self.name.read(item, source)
            if not isinstance(old, Failed) and not isinstance(new, Failed):
                found[old] = new
        return found

    def schema(self) -> JsonSchema:
        names = {key: word for key, word in self.name.schema().items() if key != "type"}
        return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": self.name.schema()}


@dataclass(frozen=True, slots=True)
class Moved(ValueType[Mapping[str, Mapping[str, str]]]):
    """By PoolState's mapping: names that objects had, each with the one that they have."""

    expected: str = "a map of renames by section, as {networks: {old: new}}"

    @property
    def sections(self) -> Mapping[str, tuple[str, MovedNames]]:
        """By the section's key its mapping, and the names there."""
        return {d.NOUN.plural: (d.NOUN.state, MovedNames(Section(d).name)) for d in SECTIONS if d in RENAMED}

    def read(self, node: Node, source: Source) -> Mapping[str, Mapping[str, str]] | Failed:
        if is_null(node):
            return {}
        if not isinstance(node, MapNode):
            return self.wrong(node, source)
        found, sections = {}, self.sections
        for key, item in entries(node, source):
            if key.text not in sections:
                hint = source.suggest(key.text, sections) or f"there can be: {', '.join(sections)}"
                source.add("unknown-key", f"'{clip(key.text)}' cannot be renamed in place", key, hint)
                continue
            state, names = sections[key.text]
            if not isinstance(read := names.read(item, source), Failed):
                found[state] = read
        return found

    def schema(self) -> JsonSchema:
        properties = {key: names.schema() for key, (_, names) in self.sections.items()}
        return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Children(ValueType[tuple[Stated | None, ...]]):
    """A list of objects that belong to the one it stands in; None for an item that could not be read."""

    declared: type[Declared]
    most: int

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"a list of {plural(self.declared.NOUN.text)}"

    def read(self, node: Node, source: Source) -> tuple[Stated | None, ...] | Failed:
        if is_null(node):
            return ()
        if not isinstance(node, ListNode):
            return self.wrong(node, source, "one value is a list too: put it in [ ]" * (not isinstance(node, MapNode)))
        if len(node.items) > self.most:
            source.add("too-many", f"{len(node.items)} items: at most {self.most} here", node.items[self.most])
            return FAILED
        found = [read(self.declared, item, source) for item in node.items]
        return tuple(None if broken else stated for stated, broken in found)

    def schema(self) -> JsonSchema:
        item = {"$ref": f"#/$defs/{self.declared.__name__}"}
        return {"type": ["array", "null"], "items": item, "maxItems": self.most}


def default_name(stated: Stated) -> str:
    """The name of an expectation that has none."""
    values = stated.values
    protocol = values.get("protocol")
    packet = "ping" if protocol is None else f"{protocol.value} {values.get('port', '')}".rstrip()
    return f"{values['from_']} to {values['to']}, {packet}: {values['expect'].value}"


@cache
def document_shape(declared: type[Declared]) -> Shape:
    """The map of an object in a document, with the objects that belong to it."""
    shape = shape_of(declared)
    if declared is not Vm:
        return shape
    children = extra_word("vifs", Children(Vif, MAX_VIFS_OF_VM), Vif.NOUN.doc, Vif.NOUN.also)
    return Shape(shape.title, shape.doc, {**shape.words, "vifs": children}, shape.also)


@cache
def root_shape() -> Shape:
    """The whole document's map: the pool's own fields, then a section for each sort of object."""
    pool = shape_of(Pool)
    words: dict[str, Any] = {
        "apiVersion": extra_word("apiVersion", VERSION, f"The grammar: {API_VERSION}."),
        "pool": pool.words["pool"],
        "defaults": pool.words["defaults"],
    }
    doc = "Files with further sections, by their paths from this one, as [networks/*.vnet.yaml, vms.vnet.yaml]. Included files include none."
    words["include"] = extra_word("include", INCLUDED, doc)
    doc = "Objects that have another name than in the pool, by section: `networks: {old: new}`. A rename is no deletion; where the old name is gone, it does nothing."
    words["moved"] = extra_word("moved", Moved(), doc, ("renamed", "renames", "aliases"))
    for declared in SECTIONS:
        noun = declared.NOUN
        words[noun.plural] = extra_word(noun.plural, Section(declared), noun.doc, noun.also)
        if noun.word == "host":
            words["underlay"] = pool.words["underlay"]
    return Shape(pool.title, pool.doc, words)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read. Its objects may still break rules, see `load` and `plan.desired_state`.

    pool: the name, and `fields` all that it states of the pool. inputs: its objects by sort. source: its text and problems.
    state: the objects as an empty pool would hold them, for those that the document alone concerns.
    """

    pool: str
    fields: Stated
    inputs: Mapping[type[Declared], Inputs]
    source: Source = field(compare=False, repr=False)
    state: PoolState = field(default_factory=PoolState)
    moved: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        return tuple(self.state.expectations.values())

    @property
    def refused(self) -> Mapping[str, frozenset[str]]:
        """The names of the objects that could not be read, by noun."""
        return {declared.NOUN.word: found.refused for declared, found in self.inputs.items()}

    def stated(self, noun: str, name: str) -> Stated | None:
        """What the document states of an object."""
        if noun == "pool":
            return self.fields
        found = next((inputs for declared, inputs in self.inputs.items() if declared.NOUN.word == noun), None)
        return found.stated.get(name) if found is not None else None

    def place(self, noun: str, name: str, field: str = "", path: tuple[str | int, ...] = ()) -> Place | None:
        """Where an object stands, or a field of it; None for one that the document does not have."""
        stated = self.stated(noun, name)
        node = stated.at(field or None, path) if stated is not None else None
        return None if node is None else place_of(node)

    def endpoint(self, word: str) -> tuple[str, ...]:
        """The VIF ids that an end of an expectation stands for: a VIF, a VM's, a network's, a group's; none for `outside`."""
        vifs = self.state.vifs.values()
        tests: tuple[tuple[bool, Callable[[Vif], bool]], ...] = (
            (word in self.state.vms, lambda vif: vif.vm == word),
            (word in self.state.networks, lambda vif: vif.network == word),
            (word in self.state.groups, lambda vif: word in vif.groups),
            (True, lambda vif: word in (vif.id, f"{vif.vm}/{vif.index}")),
        )
        test = next(test for holds, test in tests if holds)
        return tuple(vif.id for vif in vifs if test(vif))

    def moved_at(self, section: str, old: str) -> Place | None:
        """The place of a former name under `moved`."""
        root = self.fields.node
        node = _moved_at(root, section, old) if root is not None else None
        return place_of(node) if node is not None else None

    def problem(self, code: str, message: str, place: Place | None = None, hint: str = "") -> Problem:
        """A problem of this document, with the line's text where there is one."""
        return self.source.problem(code, message, place, hint)

    def report(self, faults: Iterable[Fault], source: Source) -> None:
        """Add the faults of a proposal that this document makes to the source, each at its place."""
        for fault in faults:
            self._report(fault, source)

    def _report(self, fault: Fault, source: Source) -> None:
        if fault.refers is not None and fault.refers[1] in self.refused.get(fault.refers[0], ()):
            return  # the object that it refers to was refused itself
        for noun, name, field_ in ((fault.noun, fault.name, fault.field), *fault.relies_on):
            stated = self.stated(noun, name)
            if stated is not None and field_ and stated.unclear(field_):
                return
        message = fault.message
        own = self.stated(fault.noun, fault.name)
        at: Node | None = own.at(fault.field or None, fault.path) if own is not None else None
        if fault.other is not None:
            noun, name, field_ = fault.other
            other = self.stated(noun, name)
            node = other.at(field_ or None) if other is not None else None
            if own is None:
                at = node
            if fault.clash and other is None:
                message += ", made by the toolstack"
            elif fault.clash and own is not None and node is not None:
                message += f", on {source.line_of(node)}"
        if at is None:
            declared = next((d for d in SECTIONS if d.NOUN.word == fault.noun), None)
            section = entry_of(self.fields.node, declared.NOUN.plural if declared is not None else "vms")
            at = section[0] if section is not None else None
        hint = fault.hint
        if fault.refers is not None and not hint:
            among = {*fault.among, *self.refused.get(fault.refers[0], ())} if source.problems else fault.among
            hint = source.suggest(fault.refers[1], among)
        source.add(fault.code, message, at, hint)


def read_document(files: Sequence[Node], source: Source) -> Document:
    """The document of the trees of its files. Problems of the text go to the source; objects with too many are left out."""
    root = files[0]
    if not isinstance(root, MapNode):
        source.stop("wrong-type", f"a document is a map, found {describe(root)}", root)
    root = _spelled_out(_with_included(root, files[1:], source), source)
    version = entry_of(root, "apiVersion")
    if version is not None and isinstance(VERSION.read(version[1], source), Failed):
        source.finish()  # another version's document: what this grammar says of it would only mislead
    if version is None:
        source.add("missing-key", "a document needs 'apiVersion'", root, f"'apiVersion' is {API_VERSION}")
    fields, _ = read(Pool, root, source, root_shape())
    inputs = {declared: fields.values.get(declared.NOUN.plural, Inputs()) for declared in SECTIONS}
    inputs[Vif] = _vifs(inputs[Vm], source)
    own = {name: value for name, value in fields.values.items() if name in attrs_of(Pool)}
    # Where the pool's name is wrong, the rest is checked all the same; the document is refused in the end.
    moved = fields.values.get("moved", {})
    _check_moved(moved, inputs, root, source)
    return Document(own.get("name", "pool"), Stated(Pool, own, root), inputs, source, moved=moved)


def _check_moved(
    moved: Mapping[str, Mapping[str, str]], inputs: Mapping[type[Declared], Inputs], root: MapNode, source: Source
) -> None:
    """An object has one name: a former one is no object's, and leads to one that there is."""
    for declared in RENAMED:
        noun, names, found = declared.NOUN, moved.get(declared.NOUN.state, {}), inputs[declared]
        there = {*found.stated, *found.refused}
        ends: dict[str, str] = {}
        for old in names:
            at = _moved_at(root, noun.plural, old)
            end = last_name(old, names)
            if end is None:
                hint = "names change places in two applies, with a third name in between"
                source.add("moved", f"{noun.text} {clip(old)} would be renamed in a circle", at, hint)
            elif old in there:
                hint = "one of both goes: the object, or the line under 'moved'"
                source.add(
                    "moved",
                    f"{noun.text} {clip(old)} is in this document, and was renamed to {clip(names[old])} as well",
                    at,
                    hint,
                )
            elif end not in there:
                source.add(
                    "moved",
                    f"there is no {noun.text} {clip(end)}, which {clip(old)} was renamed to",
                    at,
                    source.suggest(end, there),
                )
            elif names[old] not in names and ends.setdefault(end, old) != old:
                source.add("moved", f"{noun.text} {clip(ends[end])} and {clip(old)} cannot both become {clip(end)}", at)


def last_name(old: str, names: Mapping[str, str]) -> str | None:
    """The name that an object has in the end, of one that may have been renamed several times; None for one that goes in a circle."""
    seen = {old}
    while (old := names.get(old, "")) in names:
        if old in seen:
            return None
        seen.add(old)
    return old if old not in seen else None


def _moved_at(root: MapNode, section: str, old: str) -> Node | None:
    """The place of a former name."""
    names = entry_of(entry[1], section) if (entry := entry_of(root, "moved")) is not None else None
    found = entry_of(names[1], old) if names is not None else None
    return found[0] if found is not None else None


def _with_included(root: MapNode, parts: Sequence[Node], source: Source) -> MapNode:
    """The first file's map with the sections of the others. What belongs to the pool as a whole stands in the first one."""
    if (include := entry_of(root, "include")) is not None and not source.included:
        hint = "read it from its file, as 'vnet plan FILE' does; in Python by vnet.topology.read_file(FILE)"
        source.add("not-included", "'include' names files that this text does not have", include[0], hint)
    sections = {declared.NOUN.plural for declared in SECTIONS}
    made = {key.text: (key, value) for key, value in root.entries}
    found = list(root.entries) if len(made) < len(root.entries) else None  # the reader says which keys are there twice
    for part in parts:
        if not isinstance(part, MapNode):
            source.add("wrong-type", f"an included file is a map, found {describe(part)}", part)
            continue
        for key, value in entries(part, source):
            mine = made.get(key.text)
            if key.text not in sections:
                _of_the_pool(key, value, mine, source)
            elif mine is None:
                made[key.text] = key, value
            elif (both := _joined(mine[1], value)) is not None:
                made[key.text] = mine[0], both
            elif not is_null(value):
                source.add("wrong-type", f"'{key.text}' is {describe(mine[1])} in the first file", value)
    return MapNode(found or list(made.values()), root.line, root.column)


def _of_the_pool(key: TextNode, value: Node, mine: tuple[TextNode, Node] | None, source: Source) -> None:
    """What is no section may stand in an included file only as it stands in the first one, for editors and readers."""
    same = (
        mine is not None
        and isinstance(value, TextNode)
        and isinstance(mine[1], TextNode)
        and value.text == mine[1].text
    )
    if key.text not in ("apiVersion", "pool") or not same:
        hint = f"the first file says it, on {source.line_of(mine[0])}" if mine is not None else ""
        source.add("not-here", f"'{clip(key.text)}' cannot stand in an included file", key, hint)


def _joined(first: Node, second: Node) -> Node | None:
    """Two maps, or two lists, as one; None where they are no two of one sort."""
    if is_null(first) or is_null(second):
        return first if is_null(second) else second
    if isinstance(first, MapNode) and isinstance(second, MapNode):
        return MapNode([*first.entries, *second.entries], first.line, first.column)
    if isinstance(first, ListNode) and isinstance(second, ListNode):
        return ListNode([*first.items, *second.items], first.line, first.column)
    return None


def _spelled_out(root: MapNode, source: Source) -> MapNode:
    """The map with a name for each of a range: web[01-20] stands for web01 to web20, which are equal but for what is allocated."""
    vms = entry_of(root, Vm.NOUN.plural)
    if vms is None or not isinstance(vms[1], MapNode) or not any("[" in key.text for key, _ in vms[1].entries):
        return root
    found: list[tuple[TextNode, Node]] = []
    for key, value in vms[1].entries:
        found += [(replace(key, text=name), value) for name in names_of(key, source)]
        if len(found) > MAX_SPELLED_OUT:
            source.stop("too-many", f"ranges of names of more than {MAX_SPELLED_OUT:,} VMs", key)
    spelled = MapNode(found, vms[1].line, vms[1].column)
    return MapNode([(key, spelled if key is vms[0] else value) for key, value in root.entries], root.line, root.column)


def names_of(key: TextNode, source: Source) -> Iterable[str]:
    """The names that a key stands for: itself, or each of a range of numbers in it, of which the first says how many digits they have."""
    match = RANGE.fullmatch(key.text)
    if match is None:
        return (key.text,)
    before, first, last, after = match.groups()
    if len(first) > len(last) or int(first) > int(last) or int(last) - int(first) >= MAX_SPELLED_OUT:
        hint = f"the first number is the lower one, and has as many digits; at most {MAX_SPELLED_OUT:,} names"
        source.add("bad-range", f"'{clip(key.text)}' is no range of names", key, hint)
        return ()
    return (f"{before}{number:0{len(first)}}{after}" for number in range(int(first), int(last) + 1))


def _vifs(vms: Inputs, source: Source) -> Inputs:
    """The VIFs of all VMs, by id. An id is one VIF's; and so is VM/INDEX, which names a VIF with another id as well."""
    found: dict[str, Stated] = {}
    refused: set[str] = set()
    taken: dict[str, Stated] = {}
    for vm, stated in vms.stated.items():
        for index, vif in enumerate(stated.values.get("vifs", ())):
            position = f"{vm}/{index}"
            if vif is None:
                refused.add(position)
                continue
            id = vif.values.get("id") or position
            for word in dict.fromkeys((position, id)):
                other = taken.setdefault(word, vif)
                if other is not vif:
                    line = source.line_of(node) if (node := other.at("id")) is not None else "no line"
                    message = f"VIF id {word} is taken, on {line}"
                    source.add("duplicate-id", message, vif.at("id"), "an id is one VIF's in the whole pool")
            found.setdefault(id, Stated(Vif, {**vif.values, "id": id, "vm": vm, "index": index}, vif.node, vif.partial))
    for name in vms.refused:  # its VIFs are not known, and may be what an expectation names
        refused.update(f"{name}/{index}" for index in range(MAX_VIFS_OF_VM))
    return Inputs(found, frozenset(refused))
