"""The pool as it was: the present, with the changes since taken back by their records.

One rule: what it costs follows from what has changed since. A record has the fields that it changed, so what others changed meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from vnet.db.changes import state_changes
from vnet.db.history import RENAME, RecordedChange, is_named, words_of
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared, attrs_of
from vnet.grammar.read_back import read_back
from vnet.objects import Owner, Pool, PoolState, Vif
from vnet.objects.allocate import in_order
from vnet.objects.impact import Usage
from vnet.objects.index import Overlay, VifIndex
from vnet.objects.proposal import Changes, Proposal
from vnet.objects.renames import renamed
from vnet.objects.resolve import pass_on
from vnet.objects.rules import faults
from vnet.objects.state import CONFIGURED
from vnet.plan.decide import Admission, Inadmissible, row_changes
from vnet.plan.pool import PoolPlan, plan_proposal

_DECLARED: tuple[type[Declared], ...] = (Pool, *CONFIGURED)
_TYPES: Mapping[str, type[Declared]] = {declared.NOUN.word: declared for declared in _DECLARED}
_RUNNING = frozenset({"host", "incoming", "epoch", "awaited"})  # of VMs and VIFs; agents and steps change them too
_OWNERS = ("owned-by-document", "owned-by-toolstack")  # what is taken back is of both
Words = dict[str, Any]
Records = Iterable[Sequence[RecordedChange]]


def object_of(noun: str, words: Words) -> Declared:
    """The object of its words, as words_of() has them."""
    return read_back(_TYPES[noun], msgspec.json.encode(_stated(words)))


def _stated(words: Any) -> Any:
    """Words without those that are empty, which a reader refuses where leaving them out means all."""
    if isinstance(words, list):
        return [_stated(item) for item in words]
    if isinstance(words, dict):
        return {word: _stated(content) for word, content in words.items() if content not in (None, [], {})}
    return words


def renames_in(records: Records) -> dict[str, dict[str, str]]:
    """The renames that take those of records back. records: the newest first. By PoolState's mapping: the name before them to the one after."""
    found: dict[str, dict[str, str]] = {}
    for changes in records:
        step = [change for change in changes if change.action == RENAME and change.noun in _TYPES]
        for change in step:
            names = found.setdefault(_TYPES[change.noun].NOUN.state, {})
            now = names.pop(change.name, change.name)
            names[change.old[_TYPES[change.noun].NOUN.key]] = now
    return {state: names for state, pairs in found.items() if (names := {a: b for a, b in pairs.items() if a != b})}


def undone(state: PoolState, records: Records) -> dict[str, dict[str, Any]]:
    """The objects that records changed as they were before, None for those that were not there; by PoolState's mapping and name.

    records: the newest first. What the pool runs, such as a VIF's place, is as it is now where nobody recorded how it changed.
    """
    now = {
        word: {"": state.pool} if word == Pool.NOUN.word else getattr(state, _TYPES[word].NOUN.state) for word in _TYPES
    }
    words: dict[tuple[str, str], Words | None] = {}
    for changes in records:
        for change in changes:
            if change.noun not in _TYPES:
                continue  # a step of what only runs, such as a binding
            at = change.noun, change.name
            if at not in words:
                value = now[change.noun].get(change.name)
                words[at] = words_of(value) if value is not None else None
            if change.action == RENAME and (after := words[at]) is not None:
                words[at] = None
                words[change.noun, change.old[_TYPES[change.noun].NOUN.key]] = _before(change, after)
                continue
            words[at] = _before(change, words[at])
    found: dict[str, dict[str, Any]] = {}
    for (noun, name), content in words.items():
        value = object_of(noun, content) if content is not None else None
        if value != now[noun].get(name):
            found.setdefault(_TYPES[noun].NOUN.state, {})[name] = value
    return _ordered(found)


def _ordered(changes: Changes) -> dict[str, dict[str, Any]]:
    """Changes in an order that no database gives."""
    return {state: {name: changed[name] for name in in_order(changed)} for state, changed in changes.items()}


def _before(change: RecordedChange, after: Words | None) -> Words | None:
    if change.action == "create":
        return None
    if change.action == "delete" or after is None:
        return dict(change.old) if change.action == "delete" else None
    before, attrs = dict(after), attrs_of(_TYPES[change.noun])
    for word, old in change.old.items():
        new = change.new.get(word)
        if word in _RUNNING and change.noun in ("vm", "vif") and after.get(word) != new:
            continue
        before[word] = _parts_before(after[word], old, new) if is_named(attrs.get(word)) else old
    return before


def _parts_before(parts: Any, old: Any, new: Any) -> list[Words]:
    gone = {part["name"] for part in new}
    staying = {part["name"]: part for part in parts if part["name"] not in gone}
    kept = staying | {part["name"]: part for part in old}
    return [kept[name] for name in sorted(kept)]


def as_it_was(state: PoolState, records: Records) -> PoolState:
    """The state before these records. What agents report is as it is now."""
    return _with(state, undone(state, records))


def _with(state: PoolState, changes: Changes) -> PoolState:
    tables: dict[str, Any] = {
        name: changed[""] if name == "pool" else Overlay(getattr(state, name), changed)
        for name, changed in changes.items()
    }
    return replace(state, **tables)


def take_back(view: PoolView, records: Records, source: str, *, wherever: bool = False) -> Admission:
    """The changes that take records back, as a plan like any other. VIFs and VMs stay where they are, and a VIF that comes again goes where its port is.

    source: where the pool comes from then, for the plan's reasons. wherever: also where VIFs run on hosts that their network leaves. Raises Inadmissible where the pool as it is now cannot be so.
    """
    base, changes = _back(view.state, list(records))
    proposal = _valid(_view_of(base, view), changes, _OF_PLACES if wherever else frozenset())
    plan = plan_proposal(proposal, Usage(base, view.bindings_of), source)
    rows = row_changes(proposal) if base is view.state else state_changes(view.state, proposal.after)
    return Admission("", tuple(rows), plan)


def _back(state: PoolState, records: Sequence[Sequence[RecordedChange]]) -> tuple[PoolState, dict[str, dict[str, Any]]]:
    """The pool with the names of before the records, as far as they are free, and the changes that take the rest back."""
    changes = undone(state, records)
    renames = {
        mapping: possible
        for mapping, names in renames_in(records).items()
        if (possible := {before: now for before, now in names.items() if _can_be(getattr(state, mapping), before, now)})
    }
    if not renames:
        return state, changes
    base = renamed(state, renames)
    now = {"pool": {"": base.pool}} | {
        declared.NOUN.state: getattr(base, declared.NOUN.state) for declared in CONFIGURED
    }
    differing = {
        mapping: {name: value for name, value in changed.items() if value != now[mapping].get(name)}
        for mapping, changed in changes.items()
    }
    return base, {mapping: changed for mapping, changed in differing.items() if changed}


def _can_be(objects: Mapping[str, Any], before: str, now: str) -> bool:
    return now in objects and before not in objects


def _view_of(state: PoolState, view: PoolView) -> PoolView:
    return view if state is view.state else PoolView.of(state, view.live)


# Faults of where VIFs run, which agents decide: their hosts report them.
_OF_PLACES = frozenset(
    {("in-use", "hosts"), ("not-on-host", "host"), ("not-on-host", "network"), ("migrating", "network")}
)


def check_reversible(view: PoolView, changes: Changes, records: Records) -> None:
    """Raises Inadmissible if records could not be taken back any more after these changes."""
    state = _with(view.state, changes)
    base, after = _back(state, list(records))
    if base is not state:
        _valid(PoolView.of(base, view.live), after, _OF_PLACES)
        return
    both = {name: {**changes.get(name, {}), **after.get(name, {})} for name in dict.fromkeys((*changes, *after))}
    _valid(view, both, _OF_PLACES)


def _valid(view: PoolView, changes: dict[str, dict[str, Any]], left_out: frozenset[tuple[str, str]]) -> Proposal:
    for id, vif in changes.get("vifs", {}).items():
        if isinstance(vif, Vif) and id not in view.state.vifs:
            changes["vifs"][id] = replace(vif, host=None, incoming=None, awaited=False)
    pass_on(Proposal(view.state, dict(changes), view.index, Owner.DOCUMENT), changes)
    proposal = Proposal(view.state, changes, view.index, Owner.DOCUMENT)
    if broken := [
        fault for fault in faults(proposal) if fault.code not in _OWNERS and (fault.code, fault.field) not in left_out
    ]:
        raise Inadmissible(broken)
    return proposal


def objects_of(state: PoolState) -> dict[str, list[Words]]:
    """All that is configured, by the word of its noun; see state_of()."""
    found = {
        declared.NOUN.word: [words_of(each) for each in getattr(state, declared.NOUN.state).values()]
        for declared in CONFIGURED
    }
    return found if state.pool is None else {Pool.NOUN.word: [words_of(state.pool)], **found}


def state_of(objects: Mapping[str, Iterable[Words]]) -> PoolState:
    """The state of objects_of()."""
    tables: dict[str, Any] = {}
    for noun, declared in _TYPES.items():
        made = [object_of(noun, words) for words in objects.get(noun, ())]
        if declared is Pool:
            tables["pool"] = made[0] if made else None
        else:
            tables[declared.NOUN.state] = {getattr(each, declared.NOUN.key): each for each in made}
    return PoolState(**tables)


def difference(old: PoolState, new: PoolState, source: str) -> PoolPlan:
    """What differs between two states of one pool, as a plan. source: where the new one is, for its reasons."""
    changes = Proposal.between(old, new, VifIndex(), Owner.DOCUMENT).changes
    return plan_proposal(Proposal(old, _ordered(changes), VifIndex(), Owner.DOCUMENT), Usage(old), source)
