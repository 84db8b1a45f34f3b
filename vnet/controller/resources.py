"""The calls of every noun, made from its declaration: list, get, make, change in place, and remove.

One rule: a call that changes the pool says its disruption, and with `dry-run` it says it without changing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from vnet import api
from vnet.api.errors import Forbidden, Invalid, NotFound
from vnet.controller.access import ADMINS, OPERATORS, VIEWERS
from vnet.controller.admission import ObjectBody, Seen, admitted, check_name, find, read_object, words_without_name
from vnet.controller.apply import show_plan
from vnet.controller.endpoint import Call, Route, Tagged
from vnet.controller.entity_tags import check_match, object_tag
from vnet.controller.presenters import Presenter
from vnet.db.view import PoolView
from vnet.grammar.declare import Declared, Stated, attrs_of, names_in, references_of, shape_of
from vnet.grammar.source import Source
from vnet.objects import Network, QosClass, SecurityGroup, Subnet, Vif, Vm
from vnet.objects.impact import Disruption
from vnet.objects.labels import Labels, is_label, labels_of
from vnet.objects.scope import OWN_FIELDS
from vnet.objects.state import CONFIGURED, NOUNS, PoolState
from vnet.plan import decide
from vnet.plan.decide import Admission, NotThere
from vnet.util.suggest import plural

SCOPED = (Network, Subnet, SecurityGroup, QosClass, Vm, Vif)  # what may be in a scope
# What of an object that is in a scope is the whole pool's all the same (`Scope.obstacles` refuses it).
WHOLE: Mapping[type[Declared], frozenset[str]] = {
    SecurityGroup: frozenset({"tier", "selector"}),
    Vm: frozenset({"security_groups"}),
    Vif: frozenset(found.word.replace("-", "_") for name, found in attrs_of(Vif).items() if name not in OWN_FIELDS),
}
DRY_RUN = {"dry-run": "Say what would change and what that disrupts, and change nothing: true or false."}


def resource_routes() -> Iterator[Route]:
    """The calls of all nouns."""
    for declared in CONFIGURED:
        yield from _routes(declared)
    body = partial(read_object, Vif, words={"security-groups": _words(Vif)["security-groups"]}, partial=True)
    yield Route(
        "PUT",
        "/v1/vifs/{id}/security-groups",
        _put_groups,
        answer=api.Vif,
        body=api.VifChange,
        read=body,
        tag="vifs",
        **_whose(Vif),
    )
    body = partial(read_object, Vif, words={"network": _words(Vif)["network"]}, partial=True)
    path, whose = "/v1/vifs/{id}/quarantine", OPERATORS
    yield Route(
        "PUT",
        path,
        _quarantine,
        answer=api.Plan,
        body=api.VifChange,
        read=body,
        query=DRY_RUN,
        tag="vifs",
        roles=whose,
        conditional=True,
    )
    yield Route("DELETE", path, _release, answer=api.Plan, query=DRY_RUN, tag="vifs", roles=whose, conditional=True)


def _whose(declared: type[Declared]) -> dict[str, Any]:
    """Who may change objects: operators VMs and VIFs, network admins all; with a scope what is in it, but no network."""
    roles = OPERATORS if declared in (Vm, Vif) else ADMINS
    scoped = declared in SCOPED and declared is not Network
    whole, noun = WHOLE.get(declared, frozenset()), declared.NOUN.word
    return {"roles": roles, "scoped": scoped, "whole": whole, "noun": noun, "conditional": True}


def _words(declared: type[Declared]) -> Mapping[str, Any]:
    return shape_of(declared, flat=True, toolstack=True).words


def _routes(declared: type[Declared]) -> Iterator[Route]:
    noun, types, title = declared.NOUN, api.RESOURCES[declared.NOUN.word], declared.TITLE
    many, single, tag = f"/v1/{noun.plural}", f"/v1/{noun.plural}/{{id}}", noun.plural.replace("-", " ")
    words = words_without_name(declared)
    whose = _whose(declared)
    seen: dict[str, Any] = {"roles": VIEWERS, "scoped": declared in SCOPED, "noun": noun.word}
    stated = partial(read_object, declared, words=words, partial=False)
    query = {filter_.name: _doc(filter_) for filter_ in types.filters}

    async def list_(call: Call[None]) -> list[dict[str, Any]]:
        return _listed(declared, call)

    async def get(call: Call[None]) -> Tagged:
        return _shown(declared, call, call.id)

    async def put(call: Call[ObjectBody]) -> Any:
        return await _made(declared, call, call.id)

    async def post(call: Call[ObjectBody]) -> Any:
        return await _made(declared, call, call.body.stated.values.get(noun.key))

    async def patch(call: Call[ObjectBody]) -> Any:
        return await _decided(call, call.id, partial(decide.change, declared=declared, name=call.id))

    async def delete(call: Call[None]) -> Any:
        return await _removed(declared, call)

    same = "becomes as the body says" if noun.replaced else "must be the same"
    text, answer = f"All {plural(noun.text)}.", list.__class_getitem__(types.answer)
    yield Route("GET", many, list_, text, answer, query=query, tag=tag, **seen)
    if types.new is not None:
        body = partial(read_object, declared, words=_words(declared), partial=False)
        text = f"Make {title}; one that is there {same}."
        yield Route("POST", many, post, text, types.answer, types.new, read=body, query=DRY_RUN, tag=tag, **whose)
    yield Route("GET", single, get, f"One {noun.text}.", types.answer, tag=tag, **seen)
    text = f"Make {title} of this {noun.key}; one that is there {same}."
    yield Route("PUT", single, put, text, types.answer, types.spec, read=stated, query=DRY_RUN, tag=tag, **whose)
    text = f"Change fields of {title} in place; null gives a field its default."
    changed = partial(read_object, declared, words=words, partial=True)
    yield Route("PATCH", single, patch, text, api.Plan, types.change, read=changed, query=DRY_RUN, tag=tag, **whose)
    yield Route("DELETE", single, delete, f"Remove {title}.", api.Plan, query=DRY_RUN, tag=tag, **whose)


# --- reading --------------------------------------------------------------------------------------


def _presenter(call: Call[Any]) -> Presenter:
    return Presenter(call.service.seen(), call.service.feed.defined_since)


def _shown(declared: type[Declared], call: Call[Any], name: str, disruption: Disruption | None = None) -> Tagged:
    presenter = _presenter(call)
    noun = declared.NOUN
    value = find(noun.word, name, getattr(presenter.view.state, noun.state))
    return Tagged(presenter.show(value), object_tag(value), disruption)


def _listed(declared: type[Declared], call: Call[None]) -> list[dict[str, Any]]:
    """The objects that the filters leave, by name."""
    presenter, noun = _presenter(call), declared.NOUN
    objects = getattr(presenter.view.state, noun.state)
    chosen = {filter_.name: text for filter_ in api.RESOURCES[noun.word].filters if (text := _filter(filter_, call))}
    labels = frozenset(chosen.pop("label", "").split(",")) - {""}
    late = {name: chosen.pop(name) for name in [*chosen] if (noun.word, name) in _OF_ANSWER}
    named = [(field, chosen[refers]) for field, refers in references_of(declared) if refers in chosen]
    found = (objects[name] for name in sorted(objects))
    if labels:
        found = (each for each in found if labels.issubset(_labels(each, presenter.view.state)))
    shown = [presenter.show(each) for each in found if all(name in names_in(each, field) for field, name in named)]
    return [each for each in shown if all(_OF_ANSWER[noun.word, name](each) == late[name] for name in late)]


def _labels(value: Any, state: PoolState) -> Labels:
    """The labels of an object that has some; of a VIF all."""
    labels: Labels = labels_of(value, state.networks[value.network].labels) if isinstance(value, Vif) else value.labels
    return labels


# Filters by what an answer says, in place of a field of the object.
_OF_ANSWER: dict[tuple[str, str], Callable[[Mapping[str, Any]], str | None]] = {
    ("vif", "host"): lambda shown: shown["place"].host or shown["host"],
    ("vif", "state"): lambda shown: shown["place"].state,
}


def _doc(filter_: api.ListFilter) -> str:
    return f"{filter_.doc.removesuffix('.')}: {', '.join(filter_.choices)}." if filter_.choices else filter_.doc


def _filter(filter_: api.ListFilter, call: Call[None]) -> str | None:
    """A filter's value; raises Invalid for one that names nothing."""
    text = call.query.get(filter_.name)
    if text is None:
        return None
    if filter_.choices and text not in filter_.choices:
        choices = ", ".join(filter_.choices)
        raise Invalid("query", f"{filter_.name}: {text[:40]!r} is none of {choices}", filter_.name)
    if filter_.labels and not all(map(is_label, text.split(","))):
        raise Invalid(
            "query", f"{filter_.name}: {text[:40]!r} is no label KEY=VALUE, nor several by commas", filter_.name
        )
    if filter_.refers:
        named(call, filter_.refers, filter_.name, text)
    return text


def named(call: Call[Any], noun: str, parameter: str, name: str) -> None:
    """Check the name in a query; raises Invalid for one that names nothing, with the nearest name."""
    try:
        find(noun, name, getattr(call.service.seen().state, NOUNS[noun].state))
    except NotFound as missing:
        raise Invalid(missing.code, f"{parameter}: {missing.message}", parameter) from None


# --- changing -------------------------------------------------------------------------------------


async def _written(call: Call[Any], declared: type[Declared], decision: Callable[[PoolView], Admission]) -> Admission:
    """A decision, written unless the call only asks. Raises PreconditionFailed for one that its caller does not mean."""

    def meant(view: PoolView) -> Admission:
        found = decision(view)
        check_match(call.tags, declared, found, view)
        return found

    if call.flag("dry-run"):
        view = call.service.view()
        found = meant(view)
        call.service.admit(found.changes, view)
        return found
    return await call.service.configure(meant)


def _planned(call: Call[Any], found: Admission) -> Any:
    """The plan of a decision, with its tag where the call only asks."""
    pool = call.service.view().state.pool
    shown = show_plan(found.plan, pool_id=pool.id if pool is not None else "")
    return Tagged(shown, shown.id) if call.flag("dry-run") else shown


def _seen(call: Call[Any]) -> Seen:
    """The names that its caller may see, by noun; None for all."""
    if call.service.caller.scope is None:
        return None
    state = call.service.seen().state
    return lambda noun: getattr(state, NOUNS[noun].state)


async def _judged(
    call: Call[ObjectBody], name: str | None, judge: Callable[[PoolView, Stated], Admission]
) -> Admission:
    """The decision that a body comes to, written unless the call only asks. Raises Invalid, Conflict, NotFound."""
    body = call.body

    def decision(view: PoolView) -> Admission:
        try:
            return admitted(body, name, lambda: judge(view, body.stated), _seen(call))
        except NotThere as missing:
            raise _not_found(missing) from None

    return await _written(call, body.stated.type, decision)


async def _made(declared: type[Declared], call: Call[ObjectBody], name: str | None) -> Any:
    check_name(declared, name, call.body)
    _check_hidden(call, declared, name or decide.name_of(declared, call.body.stated))
    decision = await _judged(call, name, lambda view, stated: decide.make(view, declared, name, stated))
    if call.flag("dry-run"):
        return _planned(call, decision)
    return _shown(declared, call, decision.name, decision.plan.disruption)


def _check_hidden(call: Call[Any], declared: type[Declared], name: str | None) -> None:
    """Raises Forbidden for the name of an object that is there and that the caller may not see: what it is stays untold."""
    state = declared.NOUN.state
    if call.service.caller.scope is None or name is None or name not in getattr(call.service.view().state, state):
        return
    if name not in getattr(call.service.seen().state, state):
        raise Forbidden(
            "scope", f"{declared.NOUN.text} {name} is not in the scope of {call.service.caller.name}", "scope"
        )


async def _decided(call: Call[ObjectBody], name: str, judge: Callable[..., Admission]) -> Any:
    return _planned(call, await _judged(call, name, lambda view, stated: judge(view, stated=stated)))


async def _put_groups(call: Call[ObjectBody]) -> Any:
    """Have a VIF obey these security groups instead of its present ones; also while it runs."""
    if "groups" not in call.body.stated.values and not call.body.source.problems:
        raise Invalid("missing-key", "the body needs 'security_groups'", "security_groups")
    decision = await _judged(call, call.id, lambda view, stated: decide.change(view, Vif, call.id, stated))
    return _shown(Vif, call, call.id, decision.plan.disruption)


async def _quarantine(call: Call[ObjectBody]) -> Any:
    """Put a VIF on this network till it is released, also while it runs."""
    if "network" not in call.body.stated.values and not call.body.source.problems:
        raise Invalid("missing-key", "the body needs 'network'", "network")
    return await _decided(call, call.id, partial(decide.quarantine, name=call.id))


async def _release(call: Call[None]) -> Any:
    """Put a VIF back on the network that it was on before its quarantine, with the addresses that it had there."""
    return await _without_body(call, Vif, lambda view: decide.release(view, call.id))


async def _removed(declared: type[Declared], call: Call[None]) -> Any:
    """Remove an object. There is nothing to do if it is gone: a lost answer is asked for again."""
    return await _without_body(call, declared, lambda view: decide.remove(view, declared, call.id))


async def _without_body(call: Call[None], declared: type[Declared], judge: Callable[[PoolView], Admission]) -> Any:
    def decision(view: PoolView) -> Admission:
        nothing = ObjectBody(Stated(declared, {}), Source("", paths={}), broken=False)
        try:
            return admitted(nothing, call.id, lambda: judge(view), _seen(call))
        except NotThere as missing:
            raise _not_found(missing) from None

    return _planned(call, await _written(call, declared, decision))


def _not_found(missing: NotThere) -> NotFound:
    hint = f"; did you mean {missing.nearest}?" if missing.nearest else ""
    return NotFound(f"unknown-{missing.noun}", f"{missing}{hint}", missing.name)
