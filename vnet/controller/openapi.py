"""The OpenAPI 3.1 document of the API, and a page to read it, both made from the routes: they cannot disagree with the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from inspect import get_annotations
from typing import Any

import msgspec

from vnet import api
from vnet.controller.endpoint import Route
from vnet.controller.entity_tags import IF_MATCH, MATCHES
from vnet.controller.resources import DRY_RUN
from vnet.objects.impact import Disruption
from vnet.objects.state import meanings
from vnet.objects.token import ApiRole
from vnet.util.suggest import plural

_REF = "#/components/schemas/{name}"
_NAMES = re.compile(r"\{(\w+)\}")
# Refusals that any call may get; the problem in the answer has the reason.
_REFUSALS = {
    "400": "The call can never be right.",
    "401": "No token, a wrong one, or one that has ended.",
    "403": "The caller's role or scope does not have it.",
    "404": "There is no such object.",
    "409": "Not as the pool is now; the problem says why.",
    "412": "What If-Match names is another by now.",
    "413": "The body is too large.",
    "421": "This server has another name.",
    "503": "The pool database does not answer.",
    "507": "The pool database's disk is full. Nothing has changed.",
}


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    types = [t for route in routes for t in (route.answer, route.body) if t is not None]
    types += [api.Problem, api.Progress, api.Plan]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    _describe(components)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "vnet", "version": version or "0", "description": (api.__doc__ or "").strip()},
        "security": [{}, {"bearer": []}],
        "x-vnet-nouns": [_noun(resource) for resource in api.RESOURCES.values()],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(components: dict[str, Any]) -> None:
    """Describe the fields of objects by their declarations; a name only in a body that may leave it out."""
    for resource in api.RESOURCES.values():
        texts = meanings(resource.word)
        for type_ in filter(None, (resource.answer, resource.spec, resource.new, resource.change)):
            for word, schema in components[type_.__name__]["properties"].items():
                if word in texts and (word != resource.key or type_ is resource.new):
                    schema.setdefault("description", texts[word])


def _noun(resource: api.Resource) -> dict[str, Any]:
    """A sort of objects, for programs that show any: its words, the schema of an object, and the filters of its list."""
    return {
        "word": resource.word,
        "plural": resource.plural,
        "text": resource.text,
        "texts": plural(resource.text),
        "key": resource.key,
        "schema": resource.answer.__name__,
        "filters": [msgspec.to_builtins(found) for found in resource.filters],
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path.removeprefix('/v1')}").strip("_"),
        "tags": [route.tag],
        "x-vnet-roles": [role.value for role in ApiRole if role in route.allowed],
        "x-vnet-scoped": route.scoped,
        "x-vnet-whole-pool": sorted(route.whole),
        "parameters": [*_parameters(route)],
        "responses": {**_answers(route, schemas), **_refusals(schemas)},
    }
    if route.media is not None and route.changes:
        operation["requestBody"] = {"required": True, "content": {route.media: {"schema": {"type": "string"}}}}
    elif route.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": schemas[repr(route.body)]}}}
    return operation


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in _NAMES.findall(route.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": "Its name or id, with '/' as %2F.",
            "schema": {"type": "string"},
        }
    for name, text in route.query.items():
        yield {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
    if route.conditional:
        yield {"name": IF_MATCH, "in": "header", "description": MATCHES, "schema": {"type": "string"}}


def _answers(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    if route.media is not None and not route.changes:
        return {"200": {"description": "OK", "content": {route.media: {"schema": {"type": "string"}}}}}
    if route.produces:
        binary = {"schema": {"type": "string", "format": "binary"}}
        return {"200": {"description": "OK", "content": {route.produces: binary}}}
    schema, headers = schemas[repr(route.answer)], {}
    if DRY_RUN.keys() & route.query.keys() and route.answer is not api.Plan:
        schema = {"anyOf": [schema, schemas[repr(api.Plan)]]}
        disruptions = {"type": "string", "enum": [disruption.name.lower() for disruption in Disruption]}
        headers = {"Vnet-Disruption": {"description": "The disruption of the change.", "schema": disruptions}}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if route.in_steps:
        content["application/x-ndjson"] = {"schema": schemas[repr(api.Progress)]}
    if route.tag == "events":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"200": {"description": "OK", "content": content} | ({"headers": headers} if headers else {})}


def _refusals(schemas: dict[str, Any]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": schemas[repr(api.Problem)]}}
    return {status: {"description": text, "content": content} for status, text in _REFUSALS.items()}


# --- the page -------------------------------------------------------------------------------------

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h2{margin:2rem 0 .5rem;text-transform:capitalize}
details{border:1px solid #8884;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer} code,b{font-family:ui-monospace,monospace}
b{display:inline-block;min-width:4.5rem} dt{font-family:ui-monospace,monospace;margin-top:.4rem}
"""


def page(routes: Sequence[Route]) -> str:
    """The API for people: one HTML page that loads nothing else."""
    tags = dict.fromkeys(route.tag for route in routes)
    parts = [f"<h2>{escape(tag)}</h2>" + "".join(_entry(r) for r in routes if r.tag == tag) for tag in tags]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>vnet API</title><style>{_STYLE}</style>"
        "<h1>vnet API</h1><p>Every call may be repeated. "
        'For programs: <a href="openapi.json">openapi.json</a>.</p>' + "".join(parts)
    )


def _entry(route: Route) -> str:
    fields = _fields("In the path", dict.fromkeys(_NAMES.findall(route.path), "its name or id, with '/' as %2F"))
    fields += _fields("Query", dict(route.query))
    fields += _fields("Headers", {IF_MATCH: MATCHES} if route.conditional else {})
    if route.media is not None and route.changes:
        fields += _fields("Body", {route.media: "the document"})
    elif route.body is not None:
        fields += _struct("Body", route.body)
    fields += _struct("Answer", route.answer)
    return (
        f"<details><summary><b>{route.method}</b> <code>{escape(route.path)}</code> {escape(route.summary)}</summary>"
        f"{fields}</details>"
    )


def _struct(title: str, type_of: Any) -> str:
    inner = getattr(type_of, "__args__", (type_of,))[0] if type_of is not None else None
    if not (isinstance(inner, type) and issubclass(inner, msgspec.Struct)):
        return ""
    many = " (a list of)" if inner is not type_of else ""
    of = next((each for each in api.RESOURCES.values() if inner in (each.spec, each.new)), None)
    texts = {word: f": {text}" for word, text in meanings(of.word).items()} if of is not None else {}
    types = {name: type_ for base in reversed(inner.__mro__) for name, type_ in get_annotations(base).items()}
    rows = {name: f"{type_}{texts.get(name.rstrip('_'), '')}" for name, type_ in types.items()}
    return _fields(f"{title}{many}", rows, inner.__doc__ or "")


def _fields(title: str, rows: dict[str, str], doc: str = "") -> str:
    if not rows:
        return ""
    shown = "".join(f"<dt>{escape(name)}<dd>{escape(text)}" for name, text in rows.items())
    return f"<h4>{escape(title)}</h4><p>{escape(doc)}</p><dl>{shown}</dl>"
