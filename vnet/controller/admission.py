"""Objects in the bodies of calls: read by their declarations, judged with the pool, and refused with all errors at once."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from vnet import api
from vnet.api.errors import Conflict, Invalid, NotFound, Refused
from vnet.grammar.declare import Declared, Shape, Stated, attrs_of, json_word, read, shape_of
from vnet.grammar.json_tree import json_tree
from vnet.grammar.problems import Problem
from vnet.grammar.source import Source
from vnet.grammar.value_types import ValueRefused
from vnet.objects.proposal import Fault
from vnet.objects.state import NOUNS
from vnet.plan.decide import Admission, Inadmissible
from vnet.util.suggest import nearest

T = TypeVar("T")

Seen = Callable[[str], Container[str]] | None  # the names of a noun that the caller may see, None for all

_CLASHES = frozenset({"exhausted", "in-use", "too-many"})  # besides faults that are clashes by themselves


@dataclass(frozen=True, slots=True)
class ObjectBody:
    """A body with the fields of an object. broken: no object can be made of them. source: the errors, and the paths of fields."""

    stated: Stated
    source: Source
    broken: bool


def read_object(declared: type[Declared], data: bytes, words: Mapping[str, Any], *, partial: bool) -> ObjectBody:
    """The fields that a body states, of those that it may have. partial: it may leave out each. Raises Invalid for no JSON."""
    try:
        node, paths = json_tree(data)
    except (ValueError, RecursionError) as error:
        raise Invalid("json", f"the body is no JSON: {error}") from None
    source = Source("", paths=paths)
    shape = shape_of(declared, flat=True, toolstack=True)
    stated, broken = read(declared, node, source, Shape(shape.title, shape.doc, words), partial=partial)
    return ObjectBody(stated, source, broken)


def check_name(declared: type[Declared], name: str | None, body: ObjectBody) -> None:
    """Add an error for a name in a call's path that no object may have."""
    if name is None:
        return
    try:
        attrs_of(declared)[declared.NOUN.key].type.check(name)
    except ValueRefused as refused:
        body.source.note(Problem(refused.code, refused.message, refused.hint, path=declared.NOUN.key))


def words_without_name(declared: type[Declared]) -> Mapping[str, Any]:
    """The words of a body whose object is named by the call's path."""
    words = shape_of(declared, flat=True, toolstack=True).words
    return {word: item for word, item in words.items() if word != declared.NOUN.key}


def admitted(body: ObjectBody, name: str | None, decide: Callable[[], Admission], seen: Seen = None) -> Admission:
    """The decision that a body comes to. Raises Invalid or Conflict with the errors of the body and of the pool after, which suggest no name but those
    that are `seen`."""
    problems = body.source.ordered()
    clash = False
    if not body.broken:
        try:
            decision = decide()
        except Inadmissible as error:
            faults = [fault for fault in error.faults if not _unclear(fault, body.stated)]
            clash = not problems and _clash(faults[0])
            problems += [_problem(fault, name, body, seen) for fault in faults]
    if problems:
        raise refusal(problems, Conflict if clash else Invalid)
    return decision


def refusal(problems: list[Problem], refused: type[Refused] = Invalid) -> Refused:
    """The refusal of a body with these errors, with the code of the first one."""
    first = problems[0]
    hint = f"; {first.hint}" if first.hint else ""
    more = f" (and {len(problems) - 1} more errors)" if len(problems) > 1 else ""
    message = f"{first.path}: {first.message}" if first.path else first.message
    made = refused(first.code, f"{message}{hint}{more}", first.path)
    made.problems = [
        api.InputProblem(code=each.code, message=each.message, hint=each.hint, path=each.path) for each in problems
    ]
    return made


def _clash(fault: Fault) -> bool:
    """Whether the object is fine, and another state of the pool would take it."""
    code = fault.code
    return fault.clash or code in _CLASHES or code.startswith("owned-by-") or code.endswith("-exists")


def _unclear(fault: Fault, stated: Stated) -> bool:
    """Whether a fault may follow from a field that could not be read."""
    noun = stated.type.NOUN.word
    fields = [fault.field] if fault.noun == noun else []
    return any(map(stated.unclear, (*fields, *(field for other, _, field in fault.relies_on if other == noun))))


def _problem(fault: Fault, name: str | None, body: ObjectBody, seen: Seen) -> Problem:
    """A fault with the path of the body's field at fault, or with the name of another object at fault."""
    declared, hint = body.stated.type, fault.hint
    path = f"{fault.noun} {fault.name}"
    sides = [((fault.noun, fault.name, fault.field), fault.path), (fault.other, ())]
    for side, inside in sides:
        if side is not None and side[0] == declared.NOUN.word and name in (None, side[1]):
            node = body.stated.at(side[2], inside)
            path = (body.source.paths or {}).get(id(node), "") or _word(declared, side[2])
            break
    if fault.refers is not None and not hint:
        noun, target = fault.refers
        among = fault.among if seen is None else [name for name in fault.among if name in seen(noun)]
        hint = body.source.suggest(target, among)
    return Problem(fault.code, fault.message, hint, path=path)


def _word(declared: type[Declared], field: str) -> str:
    found = attrs_of(declared).get(field)
    return field if found is None or field == declared.NOUN.key else json_word(found, found.spellings[0])


def find(noun: str, name: str, among: Mapping[str, T]) -> T:
    """The object of that name; raises NotFound, with the nearest name if it looks like a typo."""
    found = among.get(name)
    if found is None:
        meant = nearest(name, among)
        hint = f"; did you mean {meant}?" if meant is not None else ""
        raise NotFound(f"unknown-{noun}", f"there is no {NOUNS[noun].text} {name}{hint}", name)
    return found
