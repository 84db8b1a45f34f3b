"""Declaring an object's fields once: reader, checks, JSON Schema, database columns, answers and commands follow from it.

One rule: an object is a frozen dataclass whose fields are made by `attr`. A field has one type of value, or several spellings of which
each belongs to some variants (a network's key is `vni` or `key`, as its type has it).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Set
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import Enum
from functools import cache as _cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from vnet.grammar.nodes import ListNode, MapNode, Node, TextNode, clip, describe, entry_of, is_null
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import FAILED, Failed, JsonSchema, NotYet, ValueRefused, ValueType, entries
from vnet.util.suggest import listing, plural

if TYPE_CHECKING:
    from vnet.grammar.source import Source

D = TypeVar("D", bound="Declared")
F = TypeVar("F", bound=Callable[..., Any])


def cache(function: F) -> F:
    """functools.cache, for functions of classes."""
    return _cache(function)  # type: ignore[return-value]  # a class is hashable, whatever its objects are


class SetBy(Enum):
    """The setter of a field: a document and a toolstack alike, one of them, the object's name, or the running pool alone."""

    ANYBODY = "anybody"
    DOCUMENT = "document"
    TOOLSTACK = "toolstack"
    NAME = "name"
    RUNTIME = "runtime"


@dataclass(frozen=True, slots=True, eq=False)
class Spelling:
    """A word for a field. only: the variants that have it; needed: those variants need it; also: words that people try instead.

    at: the maps of a document that the word stands in; JSON bodies are flat.
    """

    word: str
    type: ValueType[Any]
    doc: str
    only: tuple[str, ...] = ()
    needed: bool = False
    also: tuple[str, ...] = ()
    at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Attr:
    """A declared field. optional: its value may be None. allocated: left out, it is kept or allocated.

    change: the disruption of its change, see objects.impact. peers: other hosts need it, so bindings publish it. stored: it has
    a column; else its items are rows of their own. ephemeral: the column is not on disk.
    """

    name: str
    spellings: tuple[Spelling, ...]
    default: Any
    optional: bool
    set_by: SetBy
    allocated: bool
    change: Any
    peers: bool
    stored: bool
    ephemeral: bool

    @property
    def type(self) -> ValueType[Any]:
        return self.spellings[0].type

    @property
    def doc(self) -> str:
        return self.spellings[0].doc

    @property
    def word(self) -> str:
        return self.spellings[0].word

    @property
    def required(self) -> bool:
        return self.default is MISSING and not self.allocated

    @property
    def check(self) -> Callable[[Any], None]:
        """A function that raises ValueRefused for a value that no spelling takes."""
        return self.type.check if len(self.spellings) == 1 else _any_of(self)


@dataclass(frozen=True, slots=True, eq=False)
class Derived:
    """A column that follows from an object's fields, for the database to look through."""

    name: str
    type: ValueType[Any]
    value: Callable[[Any], Any]


def attr(
    type: ValueType[Any] | tuple[Spelling, ...],
    doc: str = "",
    *,
    default: Any = MISSING,
    word: str = "",
    only: tuple[str, ...] = (),
    needed: bool = False,
    also: tuple[str, ...] = (),
    at: tuple[str, ...] = (),
    set_by: SetBy | None = None,
    allocated: bool = False,
    change: Any = None,
    peers: bool = False,
    stored: bool = True,
    ephemeral: bool = False,
) -> Any:
    """A dataclass field that is declared; see Attr and Spelling. set_by: left out, as its object says."""
    spellings = type if isinstance(type, tuple) else (Spelling(word, type, doc, only, needed, also, at),)
    metadata = {"attr": (spellings, default is None, set_by, allocated, change, peers, stored, ephemeral)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


class InvalidValue(ValueError):
    """A value that no pool may hold. `field` names the attribute at fault."""

    def __init__(self, field: str, message: str, code: str = "invalid-value") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class Flaw:
    """A field of an object that does not fit the object's other fields.

    path: the place inside the field: names, words and positions. relies_on: fields that must have been read for it to be sure.
    """

    code: str
    field: str
    message: str
    hint: str = ""
    path: tuple[str | int, ...] = ()
    relies_on: tuple[str, ...] = ()


class Declared:
    """Base of declared objects: valid by construction. `flaws` has what no single field can know."""

    __slots__ = ()
    NOUN: ClassVar[Noun]
    TITLE: ClassVar[str] = "a map"  # "a host", for 'unknown key ... in a host'
    SET_BY: ClassVar[SetBy] = SetBy.ANYBODY  # of fields that do not say themselves who sets them
    VARIANT: ClassVar[str | None] = None  # the field by whose value others come and go
    # The maps of a document inside the object's own: path to (title, doc, words that people try instead).
    MAPS: ClassVar[Mapping[tuple[str, ...], tuple[str, str, tuple[str, ...]]]] = {}
    UNSUPPORTED: ClassVar[Mapping[str, NotYet]] = {}
    DERIVED: ClassVar[tuple[Derived, ...]] = ()
    ORDER: ClassVar[tuple[str, ...]] = ()  # words of a document's map that are read best first, before the others
    SHORT: ClassVar[str] = ""  # the word of the field that a list in place of the map states

    def __post_init__(self) -> None:
        for name, check, optional in _checks(type(self)):
            value = getattr(self, name)
            if value is None and optional:
                continue
            try:
                check(value)
            except ValueRefused as refused:
                raise InvalidValue(name, refused.message, refused.code) from None
        for flaw in self.flaws():
            raise InvalidValue(flaw.field, flaw.message, flaw.code)

    def flaws(self) -> Iterator[Flaw]:
        """All that is wrong between its fields."""
        return iter(())


def unchecked(declared: type[D], values: Mapping[str, Any]) -> D:
    """An object from values that their types have read. It may have flaws, for rules to report."""
    made = object.__new__(declared)
    for name, put, left_out in _setters(declared):
        put(made, values[name] if name in values else left_out())
    return made


@cache
def _setters(declared: type[Declared]) -> tuple[tuple[str, Callable[[Any, Any], None], Callable[[], Any]], ...]:
    """Of each field its name, the slot's own setter, which is faster than object.__setattr__, and its value if left out."""
    return tuple((entry.name, getattr(declared, entry.name).__set__, _left_out(entry)) for entry in _fields(declared))


def _left_out(entry: Field[Any]) -> Callable[[], Any]:
    default = entry.default
    return entry.default_factory if entry.default_factory is not MISSING else lambda: default


@cache
def _fields(declared: type[Declared]) -> tuple[Field[Any], ...]:
    return fields(declared)  # type: ignore[arg-type]  # every subclass is a dataclass


@cache
def attrs_of(declared: type[Declared]) -> Mapping[str, Attr]:
    """The declared fields by name, in their order."""
    found: dict[str, Attr] = {}
    for entry in _fields(declared):
        if "attr" not in entry.metadata:
            continue
        spellings, optional, set_by, allocated, change, peers, stored, ephemeral = entry.metadata["attr"]
        named = tuple(s if s.word else Spelling(entry.name.rstrip("_").replace("_", "-"), *_rest(s)) for s in spellings)
        default = {} if entry.default_factory is not MISSING else entry.default
        found[entry.name] = Attr(
            entry.name, named, default, optional, set_by or declared.SET_BY, allocated, change, peers, stored, ephemeral
        )
    return found


def _rest(spelling: Spelling) -> tuple[Any, ...]:
    s = spelling
    return s.type, s.doc, s.only, s.needed, s.also, s.at


def configured(declared: type[Declared]) -> list[str]:
    """The fields that a document or a toolstack decides, allocated ones included."""
    return [name for name, found in attrs_of(declared).items() if found.set_by is not SetBy.RUNTIME or found.allocated]


@cache
def references_of(declared: type[Declared], *, runtime: bool = False) -> tuple[tuple[str, str], ...]:
    """The fields that name other objects, each with the word of their noun. runtime: those that the running pool sets as well."""
    return tuple(
        (name, found.type.refers)
        for name, found in attrs_of(declared).items()
        if found.type.refers and (runtime or found.set_by is not SetBy.RUNTIME)
    )


def names_in(value: Declared, field: str) -> Collection[str]:
    """The names that a field of an object holds: none, one or several."""
    content = getattr(value, field)
    return () if content is None else (content,) if isinstance(content, str) else content


@cache
def _checks(declared: type[Declared]) -> tuple[tuple[str, Callable[[Any], None], bool], ...]:
    return tuple(
        (name, found.check, found.optional)
        for name, found in attrs_of(declared).items()
        if type(found.type).check is not ValueType.check
    )


def _any_of(found: Attr) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        refusals = []
        for spelling in found.spellings:
            try:
                return spelling.type.check(value)
            except ValueRefused as refused:
                refusals.append(refused)
        raise refusals[0]

    return check


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stated:
    """The fields of an object that an input states, as far as they could be read. node: the map with them.

    partial: fields of which a part could not be read.
    """

    type: type[Declared]
    values: Mapping[str, Any]
    node: MapNode | None = field(default=None, compare=False, repr=False)
    partial: frozenset[str] = frozenset()

    def at(self, name: str | None = None, path: tuple[str | int, ...] = ()) -> Node | None:
        """The node of a field's value, or of a place inside it; the object's own where it is left out."""
        if name is None or self.node is None:
            return self.node
        entry = self._entry(name)
        return self.node if entry is None else _inside(entry[1], path)

    def names(self, name: str) -> bool:
        """Whether the input has the field, also one without a value."""
        return name in self.values or self._entry(name) is not None

    def unclear(self, name: str) -> bool:
        """Whether the input has the field, or a word that may be meant for it, and it could not be read."""
        if name in self.partial:
            return True
        if name in self.values or self.node is None:
            return False
        if self._entry(name) is not None:
            return True
        known = words_of(self.type)
        return any(key.text not in known for key, _ in self.node.entries)

    def _entry(self, name: str) -> tuple[TextNode, Node] | None:
        found = attrs_of(self.type).get(name)
        for spelling in found.spellings if found is not None else ():
            flat = entry_of(self.node, spelling.word)
            inside: Node | None = self.node
            for step in spelling.at:
                entry = entry_of(inside, step)
                inside = entry[1] if entry is not None else None
            nested = entry_of(inside, spelling.word)
            if (entry := nested if spelling.at and nested is not None else flat) is not None:
                return entry
        return None


def _inside(node: Node, path: tuple[str | int, ...]) -> Node:
    """The node at a path, or as near to it as there is one. A word in a list is the item that it names."""
    for step in path:
        below: Node | None = None
        if isinstance(node, ListNode) and isinstance(step, int):
            below = node.items[step] if step < len(node.items) else None
        elif isinstance(node, ListNode):
            below = next((item for item in node.items if _names(item, step)), None)
        elif (entry := entry_of(node, str(step))) is not None:
            below = entry[1]
        if below is None:
            return node
        node = below
    return node


def _names(item: Node, word: str | int) -> bool:
    """Whether an item of a list is a word, or the map with it as its name, or a map with one entry that the word writes as KEY:VALUE."""
    for key, value in item.entries if isinstance(item, MapNode) and len(item.entries) == 1 else ():
        if isinstance(value, TextNode) and f"{key.text}:{value.text}" == word:
            return True
    named = entry_of(item, "name")
    text = named[1] if named is not None else item
    return isinstance(text, TextNode) and text.text.casefold() == str(word).casefold()


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A map of the grammar: its words, each a field's spelling or a map inside."""

    title: str
    doc: str
    words: Mapping[str, tuple[Attr, Spelling] | Shape]
    also: tuple[str, ...] = ()


@cache
def shape_of(declared: type[Declared], *, flat: bool = False, toolstack: bool = False) -> Shape:
    """The map that an object is in an input. flat: without maps inside, as in JSON. toolstack: with the fields it alone sets."""
    tree: dict[str, Any] = {}
    hidden = {SetBy.RUNTIME, SetBy.NAME, SetBy.DOCUMENT if toolstack else SetBy.TOOLSTACK}
    for found in attrs_of(declared).values():
        if found.set_by in hidden:
            continue
        for spelling in found.spellings:
            level = tree
            for step in () if flat else spelling.at:
                level = level.setdefault(step, {})
            level[json_word(found, spelling).replace("_", "-") if flat else spelling.word] = (found, spelling)
    if not flat:
        tree = {word: tree[word] for word in dict.fromkeys((*declared.ORDER, *tree)) if word in tree}
    return _shape(declared, tree, ())


def _shape(declared: type[Declared], tree: Mapping[str, Any], path: tuple[str, ...]) -> Shape:
    title, doc, also = declared.MAPS.get(path, (declared.TITLE, (declared.__doc__ or "").strip(), ()))
    words: dict[str, tuple[Attr, Spelling] | Shape] = {
        word: _shape(declared, item, (*path, word)) if isinstance(item, dict) else item for word, item in tree.items()
    }
    if not path:
        words.update((word, extra_word(word, type, "")) for word, type in declared.UNSUPPORTED.items())
    return Shape(title, doc, words, also)


def extra_word(word: str, type: ValueType[Any], doc: str, also: tuple[str, ...] = ()) -> tuple[Attr, Spelling]:
    """A word of a map that is no field of its object."""
    spelling = Spelling(word, type, doc, also=also)
    return Attr(word, (spelling,), None, True, SetBy.DOCUMENT, False, None, False, False, False), spelling


@cache
def words_of(declared: type[Declared]) -> frozenset[str]:
    """Every word that an input of the object may have at its top."""
    shapes = (shape_of(declared), shape_of(declared, flat=True, toolstack=True))
    return frozenset(word for shape in shapes for word in shape.words)


def read(
    declared: type[Declared], node: Node, source: Source, shape: Shape | None = None, *, partial: bool = False
) -> tuple[Stated, bool]:
    """The fields that a node states, and whether an object can be made of them: no field that it needs is wrong or missing.

    partial: of a change, which may leave out everything.
    """
    json = source.paths is not None
    shape = shape or shape_of(declared, flat=json, toolstack=json)
    if is_null(node):
        node = MapNode([], node.line, node.column)
    if not isinstance(node, MapNode):
        source.add(
            "wrong-type", f"wanted {shape.title} (a map with {listing(shape.words)}), found {describe(node)}", node
        )
        return Stated(declared, {}), True
    values: dict[str, Any] = {}
    present: set[str] = set()
    partial_fields: set[str] = set()
    broken = _read_map(shape, node, source, values, present, partial_fields)
    if declared.VARIANT is not None and not (partial and declared.VARIANT not in values):
        broken = _variant(declared, shape, node, values, present, source, partial=partial) or broken
    for found in () if partial else _required(declared):
        if found.name in values or found.word not in shape.words:
            continue
        broken = True
        if found.word not in present:
            hint = f"'{found.word}' is {found.type.expected}"
            source.add("missing-key", f"{shape.title} needs '{found.word}'", node, hint)
    return Stated(declared, values, node, frozenset(partial_fields)), broken


@cache
def _required(declared: type[Declared]) -> tuple[Attr, ...]:
    """The fields that every input of an object states, whatever its variant."""
    return tuple(found for found in attrs_of(declared).values() if found.required and not found.spellings[0].only)


def _read_map(
    shape: Shape, node: MapNode, source: Source, values: dict[str, Any], present: set[str], partial_fields: set[str]
) -> bool:
    broken = False
    for key, value in entries(node, source):
        item = shape.words.get(key.text)
        if item is None:
            present.update(_unknown(key, shape, source))
            continue
        present.add(key.text)
        if isinstance(item, Shape):
            if isinstance(value, MapNode):
                broken = _read_map(item, value, source, values, present, partial_fields) or broken
            elif not is_null(value):
                message = f"wanted {item.title} (a map with {listing(item.words)}), found {describe(value)}"
                source.add("wrong-type", message, value)
            continue
        found, spelling = item
        if isinstance(spelling.type, NotYet):
            hint = f"{spelling.type.expected}: leave the key out until then"
            source.add("not-supported", f"'{key.text}' is not supported yet", key, hint)
            continue
        if source.paths is not None and is_null(
            value
        ):  # JSON's null: the default; as if left out where one is allocated
            if not found.required and not found.allocated:
                values[found.name] = found.default
            continue
        got = spelling.type.read(value, source)
        if got is not FAILED:
            values[found.name] = got
            if id(value) in source.partial:
                partial_fields.add(found.name)
        elif found.required:
            broken = True
    return broken


def _unknown(key: TextNode, shape: Shape, source: Source) -> Set[str]:
    """Refuse a key; return those that were probably meant, so that their lack is not a second problem."""
    if key.text == "<<":
        message = "merge keys ('<<') are not part of YAML 1.2"
        source.add("unknown-key", message, key, "write the keys out: an alias repeats whole values only")
        return shape.words.keys()
    message = f"unknown key '{clip(key.text)}' in {shape.title}"
    word = key.text.casefold().replace("_", "-")
    also = ((name, item.also if isinstance(item, Shape) else item[1].also) for name, item in shape.words.items())
    meant = next((name for name, words in also if word in words), None)
    meant = meant or source.nearest(key.text, shape.words)
    hint = f"did you mean '{meant}'?" if meant else f"there is: {listing(shape.words)}"
    source.add("unknown-key", message, key, hint)
    return {meant} if meant else set()


def _variant(
    declared: type[Declared],
    shape: Shape,
    node: MapNode,
    values: dict[str, Any],
    present: set[str],
    source: Source,
    *,
    partial: bool,
) -> bool:
    """Refuse the words that this variant does not have, and the lack of those it needs."""
    chosen = values.get(declared.VARIANT or "")
    if chosen is None:
        return True
    variant, broken = str(chosen.value), False
    spelled = {word: item[1] for word, item in shape.words.items() if not isinstance(item, Shape)}
    has = [word for word, spelling in spelled.items() if not spelling.only or variant in spelling.only]
    objects = plural(declared.TITLE.split(" ", 1)[1])
    for key, _ in node.entries:
        spelling = spelled.get(key.text)
        if spelling is not None and spelling.only and variant not in spelling.only:
            broken = True
            hint = f"{' and '.join(spelling.only)} {objects} have it; {variant} ones have {', '.join(has)}"
            source.add("wrong-variant", f"{variant} {objects} have no '{key.text}'", key, hint)
    for word in has:
        spelling = spelled[word]
        if partial or not (spelling.needed and spelling.only):
            continue
        if word not in present:
            hint = f"'{word}' is {spelling.type.expected}"
            source.add("missing-key", f"{variant} {objects} need '{word}'", node, hint)
        item = shape.words[word]
        broken = broken or (not isinstance(item, Shape) and item[0].name not in values)
    return broken


def made_of(stated: Stated, values: Mapping[str, Any], source: Source) -> Any:
    """The object of these values, with its flaws in the source."""
    made = unchecked(stated.type, values)
    for flaw in made.flaws():
        if not any(map(stated.unclear, (flaw.field, *flaw.relies_on))):
            source.add(flaw.code, flaw.message, stated.at(flaw.field, flaw.path), flaw.hint)
    return made


# --- objects inside objects ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class StructOf(ValueType[D]):
    """A map that is an object with no place of its own in the pool, as a rule of a security group."""

    declared: type[D]

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.declared.TITLE} (a map with {listing(shape_of(self.declared).words)})"

    @property
    def python(self) -> str:  # type: ignore[override]
        return self.declared.__name__

    def read(self, node: Node, source: Source) -> D | Failed:
        stated, broken = read(self.declared, node, source)
        return FAILED if broken else made_of(stated, stated.values, source)

    def check(self, value: D) -> None:
        if not isinstance(value, self.declared):
            raise ValueRefused("wrong-type", f"wanted {self.declared.TITLE}, found {clip(str(value))}")

    def plain(self, value: D) -> Any:
        return plain(value, document=False)

    def schema(self) -> JsonSchema:
        return {"$ref": f"#/$defs/{self.declared.__name__}"}


@dataclass(frozen=True, slots=True, eq=False)
class Named(ValueType[tuple[D, ...]]):
    """Objects by name inside another one: a map from names in a document, a list of maps with a `name` in JSON.

    The value has them in the order of their names.
    """

    name: ValueType[str]
    item: StructOf[D]
    expected: str

    @property
    def python(self) -> str:  # type: ignore[override]
        return f"list[{self.item.python}]"

    def read(self, node: Node, source: Source) -> tuple[D, ...] | Failed:
        if is_null(node):
            return ()
        found: dict[str, D] = {}
        if source.paths is not None:
            if not isinstance(node, ListNode):
                return self.wrong(node, source)
            for item in node.items:
                value = self.item.read(item, source)
                if isinstance(value, Failed):
                    source.partial.add(id(node))
                    continue
                name = value.name  # type: ignore[attr-defined]  # what is named has one
                if name in found:
                    source.add("twice", f"{name} stands twice in this list", item)
                found[name] = value
        else:
            if not isinstance(node, MapNode):
                hint = "names are keys here, not items: 'NAME: {...}'" if isinstance(node, ListNode) else ""
                return self.wrong(node, source, hint)
            for key, item in entries(node, source):
                name_read = self.name.read(key, source)
                value = self._named(key, item, source)
                if isinstance(name_read, Failed) or isinstance(value, Failed):
                    source.partial.add(id(node))
                else:
                    found[name_read] = value
        return tuple(found[name] for name in sorted(found))

    def _named(self, key: TextNode, node: Node, source: Source) -> D | Failed:
        shape = shape_of(self.item.declared)
        words = {word: item for word, item in shape.words.items() if word != "name"}
        stated, broken = read(self.item.declared, node, source, Shape(shape.title, shape.doc, words), partial=False)
        return FAILED if broken else made_of(stated, {**stated.values, "name": key.text}, source)

    def check(self, value: tuple[D, ...]) -> None:
        for item in value:
            self.item.check(item)

    def plain(self, value: tuple[D, ...]) -> Any:
        return [self.item.plain(item) for item in value]

    def schema(self) -> JsonSchema:
        names = {key: word for key, word in self.name.schema().items() if key != "type"}
        return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": self.item.schema()}


def json_word(found: Attr, spelling: Spelling) -> str:
    """The word of a field in JSON, which is flat and spelled with underscores."""
    return (found.name.rstrip("_") if spelling.at else spelling.word).replace("-", "_")


# --- writing ---------------------------------------------------------------------------------------


def plain(value: Declared, *, document: bool) -> dict[str, Any]:
    """An object as JSON has it, or as a document: with the document's words and maps, and without what it would have anyway."""
    declared = type(value)
    variant = getattr(value, declared.VARIANT).value if declared.VARIANT is not None else None
    return _document_map(value, variant) if document else _json_map(value, variant)


def _json_map(value: Declared, variant: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, word, convert, only in _json_fields(type(value)):
        content = getattr(value, name)
        if content is None or (only and variant not in only):
            result[word] = None
        else:
            result[word] = content if convert is None else convert(content)
    return result


@cache
def _json_fields(declared: type[Declared]) -> tuple[tuple[str, str, Callable[[Any], Any] | None, tuple[str, ...]], ...]:
    """Name, word, conversion and variants of each field. Looked up once, since lists have many objects."""
    return tuple(
        (name, json_word(found, s), None if type(s.type).plain is ValueType.plain else s.type.plain, s.only)
        for name, found in attrs_of(declared).items()
        for s in found.spellings
    )


def _document_map(value: Declared, variant: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for found in attrs_of(type(value)).values():
        content = getattr(value, found.name)
        if found.set_by in (SetBy.RUNTIME, SetBy.TOOLSTACK, SetBy.NAME) or content == found.default:
            continue
        fitting = [s for s in found.spellings if not s.only or variant in s.only]
        if not fitting or content is None:
            continue
        spelling = fitting[0]
        level = result
        for step in spelling.at:
            level = level.setdefault(step, {})
        level[spelling.word] = spelling.type.plain(content)
    return result
