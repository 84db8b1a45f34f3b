"""Generates code from the declarations in vnet.objects: the objects' structs in vnet.api, the clients' calls of objects, and the blocking client.

Run `python -m vnet.api.generate` after a declaration has changed. A test compares the result with what is checked in.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from keyword import iskeyword
from pathlib import Path
from typing import Any

from vnet.api import ANSWER_FILTERS
from vnet.grammar.declare import Attr, Declared, Named, Spelling, StructOf, attrs_of, json_word, references_of, shape_of
from vnet.grammar.value_types import Choice, ListOf, NotYet, ValueType
from vnet.objects.labels import has_labels
from vnet.objects.state import CONFIGURED
from vnet.util.suggest import plural

ROOT = Path(__file__).parents[1]
API, CLIENT = ROOT / "api/__init__.py", ROOT / "client/__init__.py"
CALLS = ROOT / "client/calls.py"
ASYNC, BLOCKING = ROOT / "client/aio.py", ROOT / "client/blocking.py"
BEGIN, END = "# --- generated: begin\n", "# --- generated: end\n"

# Fields of answers that follow from other objects.
DERIVED = {
    "host": ("agent: Agent", "vifs: int = 0", "neighbours: list[LinkNeighbour] = []"),
    "network": ("vifs: int = 0",),
    "security-group": ("vifs: int = 0",),
    "vm": ("vifs: list[Vif] = []", "migration: Migration"),
    "vif": ("place: Place", "migration: Migration | None = None"),
}


def main() -> None:
    for path, text in generated().items():
        path.write_text(text)


def generated() -> Mapping[Path, str]:
    """The text of each file with generated code, as the declarations have it."""
    api = _formatted(_filled(API, "\n\n".join(("", *_structs()))))
    bodies = sorted(re.findall(r"^class (Unit|\w+(?=\((?:ObjectStruct|\w+Spec),))", api, re.MULTILINE))
    imported, listed = f"from vnet.api import {', '.join(bodies)}", f"__all__ += {bodies}"
    return {
        API: api,
        CLIENT: _formatted(_filled(CLIENT, imported, listed)),
        CALLS: _formatted(_filled(CALLS, "\n".join(map(_calls, CONFIGURED)), indent="    ")),
        BLOCKING: _formatted(_blocking(ASYNC.read_text())),
    }


def _filled(path: Path, *codes: str, indent: str = "") -> str:
    """A file with these codes between its marks, in their order."""
    head, *marked = path.read_text().split(indent + BEGIN)
    tails = (part.split(indent + END)[1] for part in marked)
    return head + "".join(
        f"{indent}{BEGIN}{code}\n{indent}{END}{tail}" for code, tail in zip(codes, tails, strict=True)
    )


def _formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(API), "-"]
    return subprocess.run(command, input=text, text=True, capture_output=True, check=True).stdout


# --- structs ----------------------------------------------------------------------------------------


def _structs() -> Iterator[str]:
    done: set[type[Declared]] = set()
    for declared in CONFIGURED:
        for found in attrs_of(declared).values():
            if (inside := _inside(found.type)) is not None and inside not in done:
                done.add(inside)
                yield _struct(inside.__name__, "ObjectStruct", _doc(inside), map(_part, _fields(inside)))
        yield from _struct_of_object(declared)
    yield "RESOURCES = {\n" + "".join(map(_resource, CONFIGURED)) + "}"


def _inside(of: ValueType[Any]) -> type[Declared] | None:
    """The objects that a list has inside."""
    item = of.item if isinstance(of, (ListOf, Named)) else None
    return item.declared if isinstance(item, StructOf) else None


def _struct_of_object(declared: type[Declared]) -> Iterator[str]:
    noun, name, title = declared.NOUN, declared.__name__, declared.TITLE
    shown = [_shown(found, spelling) for found in attrs_of(declared).values() for spelling in found.spellings]
    yield _struct(name, "AnswerStruct", _doc(declared), [*shown, *DERIVED.get(noun.word, ())])
    stated = [(found, spelling) for found, spelling in _fields(declared) if found.name != noun.key]
    doc = f"{title[0].upper()}{title[1:]} as a toolstack makes it. None leaves a field out."
    yield _struct(f"{name}Spec", "ObjectStruct", doc, (_stated(*item) for item in stated))
    if _names_itself(declared):
        doc = f"{title[0].upper()}{title[1:]} whose {noun.key} is in the body; left out, it follows from the other fields."
        key = attrs_of(declared)[noun.key]
        yield _struct(f"New{name}", f"{name}Spec", doc, [_stated(key, key.spellings[0])])
    doc = f"The fields of {title} that change; the others stay as they are. None gives a field its default."
    yield _struct(f"{name}Change", "ObjectStruct", doc, (_changed(*item) for item in stated))


def _resource(declared: type[Declared]) -> str:
    noun, name = declared.NOUN, declared.__name__
    new = f", new=New{name}" if _names_itself(declared) else ""
    named = _named(declared)
    references = f", references={named!r}" if named else ""
    labelled = ", labelled=True" if has_labels(declared) else ""
    words = ", ".join(map(repr, (noun.word, noun.plural, noun.text, noun.key)))
    return f"{noun.word!r}: Resource({words}, {name}, {name}Spec, {name}Change{new}{references}{labelled}),\n"


def _named(declared: type[Declared]) -> tuple[str, ...]:
    """The nouns that the objects name, but for those that are filtered by what answers show."""
    others = {found.name for found in ANSWER_FILTERS.get(declared.NOUN.word, ())}
    return tuple(dict.fromkeys(refers for _, refers in references_of(declared) if refers not in others))


def _names_itself(declared: type[Declared]) -> bool:
    """Whether an object's name may be left out."""
    return attrs_of(declared)[declared.NOUN.key].allocated


def _fields(declared: type[Declared]) -> Iterator[tuple[Attr, Spelling]]:
    """The fields that a toolstack states."""
    for item in shape_of(declared, flat=True, toolstack=True).words.values():
        if isinstance(item, tuple) and not isinstance(item[1].type, NotYet):
            yield item


def _struct(name: str, base: str, doc: str, fields: Any) -> str:
    body = "\n    ".join(fields)
    quoted = f'"""{doc}"""' if len(doc) < 110 and "\n" not in doc else f'"""{doc}\n    """'
    return f"class {name}({base}, frozen=True, kw_only=True):\n    {quoted}\n\n    {body}"


def _doc(declared: type[Declared]) -> str:
    return cleandoc(declared.__doc__ or "").replace("\n", "\n    ")


def _name(found: Attr, spelling: Spelling) -> str:
    word = json_word(found, spelling)
    return f"{word}_" if iskeyword(word) else word


def _field(found: Attr, spelling: Spelling, type_: str, default: str | None) -> str:
    """A field of a struct. Python's keywords get an underscore, which JSON lacks."""
    name, word = _name(found, spelling), json_word(found, spelling)
    if name != word:
        default = f"field_of(name={word!r}" + (")" if default is None else f", default={default})")
    return f"{name}: {type_}" + (f" = {default}" if default is not None else "")


def _optional(found: Attr, spelling: Spelling) -> bool:
    return found.optional or bool(spelling.only)


def _shown(found: Attr, spelling: Spelling) -> str:
    """A field of an answer. A choice is a string there, for words that later versions add."""
    type_ = "str" if isinstance(spelling.type, Choice) else spelling.type.python
    return _field(found, spelling, f"{type_} | None" if _optional(found, spelling) else type_, None)


def _part(item: tuple[Attr, Spelling]) -> str:
    """A field of an object inside another one."""
    found, spelling = item
    type_ = f"{spelling.type.python} | None" if found.optional else spelling.type.python
    default = None if found.required else found.default
    shown = spelling.type.plain(default) if default is not None else None
    return _field(found, spelling, type_, None if found.required else repr(shown))


def _stated(found: Attr, spelling: Spelling) -> str:
    required = found.required and not spelling.only
    type_ = spelling.type.python if required else f"{spelling.type.python} | None"
    return _field(found, spelling, type_, None if required else "None")


def _changed(found: Attr, spelling: Spelling) -> str:
    none = "" if found.required or found.allocated else " | None"
    return _field(found, spelling, f"{spelling.type.python} | UnsetType{none}", "UNSET")


# --- clients ----------------------------------------------------------------------------------------

_CALLS = '''
    @call
    def {many}(self{filters}) -> ApiRequest[list[api.{name}]]:
        """All {texts}{filtered}."""
        return reading(list[api.{name}], "{plural}"{chosen})

    @call
    def {word}(self, {key}: str) -> ApiRequest[api.{name}]:
        """One {text}. Raises NotFound."""
        return reading(api.{name}, "{plural}", {key})

    @call
    def put_{word}(self, {key}: str, spec: api.{name}Spec, *, if_match: str | None = None) -> ApiRequest[api.{name}]:
        """{put} if_match: as for `change_{word}`."""
        return sending("PUT", api.{name}, spec, "{plural}", {key}, if_match=if_match)

    @call
    def plan_{word}(self, {key}: str, spec: api.{name}Spec) -> ApiRequest[api.Plan]:
        """The changes that `put_{word}` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "{plural}", {key}, dry_run=True)

    @call
    def change_{word}(
        self, {key}: str, change: api.{name}Change, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of {title} in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "{plural}", {key}, dry_run=dry_run, if_match=if_match)

    @call
    def delete_{word}(self, {key}: str, *, dry_run: bool = False, if_match: str | None = None) -> ApiRequest[api.Plan]:
        """Remove {title}; nothing to do if there is none. dry_run, if_match: as for `change_{word}`."""
        return sending("DELETE", api.Plan, None, "{plural}", {key}, dry_run=dry_run, if_match=if_match)
'''
_CREATE = '''
    @call
    def create_{word}(self, spec: api.New{name}, *, if_match: str | None = None) -> ApiRequest[api.{name}]:
        """Make {title}; its {key} follows from the other fields where `spec` leaves it out. if_match: as for `change_{word}`."""
        return sending("POST", api.{name}, spec, "{plural}", if_match=if_match)
'''


def _calls(declared: type[Declared]) -> str:
    noun = declared.NOUN
    filters = [found.name.replace("-", "_") for found in ANSWER_FILTERS.get(noun.word, ())]
    filters += [word.replace("-", "_") for word in _named(declared)] + ["label"] * has_labels(declared)
    put = f"Make {declared.TITLE}. The same again changes nothing; another one of that {noun.key} is a Conflict."
    if noun.replaced:
        put = f"Make {declared.TITLE}, or make it what `spec` says."
    template = _CALLS + (_CREATE if _names_itself(declared) else "")
    return template.format(
        name=declared.__name__,
        word=noun.word.replace("-", "_"),
        many=noun.plural.replace("-", "_"),
        plural=noun.plural,
        text=noun.text,
        texts=plural(noun.text),
        title=declared.TITLE,
        key=noun.key,
        put=put,
        filtered=" that the filters leave" if filters else "",
        filters="".join([", *", *(f", {word}: str | None = None" for word in filters)]) if filters else "",
        chosen="".join(f", {word}={word}" for word in filters),
    )


_BLOCKING = (
    (r"The asyncio client", "The blocking client"),
    (r"import asyncio", "import time"),
    (r"asyncio\.sleep", "time.sleep"),
    (r"AsyncCalls", "BlockingCalls"),
    (r"\bAsync(Iterator|Client|HTTPTransport)", r"\1"),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\ba(close|iter_bytes)\b", r"\1"),
    (r"\basync (def|with|for) ", r"\1 "),
    (r"\bawait ", ""),
    (r"for (\w+) in (.*):\n\s+yield \1\n", r"yield from \2\n"),
)


def _blocking(text: str) -> str:
    """The blocking client's module: the asyncio one's without `async` and `await`."""
    for pattern, replacement in _BLOCKING:
        text = re.sub(pattern, replacement, text)
    head, rest = text.split('"""\n', 1)
    return f'{head}\n\nGenerated from aio.py by `python -m vnet.api.generate`.\n"""\n{rest}'


if __name__ == "__main__":
    main()
