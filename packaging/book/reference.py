"""The generated pages of the reference. One rule: nothing is written here that the code does not say itself."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent, fill
from typing import Any

import click

from vnet.cli.exits import ExitCode
from vnet.cli.main import cli
from vnet.client.aio import AsyncClient
from vnet.client.blocking import Client
from vnet.controller import openapi
from vnet.controller.routes import routes
from vnet.controller.sse import EVENTS
from vnet.objects.state import CONFIGURED

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "vnet/controller").glob("*.py")), *sorted((ROOT / "vnet/agent").glob("*.py"))]
WIDTH = 100  # of a call's arguments on one line
CODE_OR_BAR = re.compile(r"`[^`]*`|\|")
METRIC_MAKERS = {"counter", "gauge", "histogram", "value"}


def pages() -> dict[str, str]:
    """The pages' text by their paths."""
    made = {
        "cli": _cli,
        "exit-codes": _exit_codes,
        "rest": _rest,
        "bodies": _bodies,
        "clients": _clients,
        "metrics": _metrics,
        "events": _events,
    }
    return {f"reference/{name}.md": "\n".join(make()) + "\n" for name, make in made.items()}


# -- the command line


def _cli() -> Iterator[str]:
    yield "# The command line\n"
    yield "Man pages and shell completion are made of the same (`vnet completion`). Exit codes: [those that there are](exit-codes.md).\n"
    with click.Context(cli, info_name="vnet") as context:
        yield "## vnet\n"
        yield from _command(context)
        for name in cli.list_commands(context):
            yield from _below(context, cli, name)


def _below(parent: click.Context, group: click.Group, name: str) -> Iterator[str]:
    command = group.get_command(parent, name)
    if command is None or command.hidden:
        return
    with click.Context(command, info_name=name, parent=parent) as context:
        depth = "##" if parent.parent is None else "###"
        yield f"{depth} {context.command_path}\n"
        yield from _command(context)
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                yield from _below(context, command, inner)


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield from (f"{_text(' '.join(part.split()))}\n" for part in (command.help or "").split("\n\n"))
    records = [record for option in command.params if (record := option.get_help_record(context))]
    own = [(name, text) for name, text in records if not name.startswith("-h") and (name.startswith("-") or text)]
    if own:
        yield from _table(("option", "means"), ((f"`{option}`", _text(text)) for option, text in own))


def _exit_codes() -> Iterator[str]:
    yield "# Exit codes\n"
    yield "Every command ends with one of these.\n"
    yield from _table(
        ("code", "name", "means"), ((str(int(code)), f"`{code.name}`", code.meaning) for code in ExitCode)
    )


# -- REST


def _rest() -> Iterator[str]:
    document = openapi.document([*routes(), EVENTS], "")
    yield "# REST\n"
    yield f"{document['info']['description']}\n"
    yield "A controller has this document as `GET /v1/openapi.json`. Calls that change something take the header `Vnet-Reason`, which `vnet history` shows.\n"
    yield "## Refusals of any call\n"
    yield from _table(("status", "means"), openapi._REFUSALS.items())
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            by_tag.setdefault(call["tags"][0], []).append((method.upper(), path, call))
    for tag, found in by_tag.items():
        yield f"## {tag}\n"
        for method, path, call in found:
            yield from _call(method, path, call)


def _bodies() -> Iterator[str]:
    yield "# REST: bodies\n"
    yield "What [calls](rest.md) take and answer, as JSON.\n"
    for name, schema in sorted(openapi.document([*routes(), EVENTS], "")["components"]["schemas"].items()):
        yield from _schema(name, schema)


def _call(method: str, path: str, call: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`\n"
    yield f"{_text(call['summary'])}\n"
    facts = [f"Roles: {', '.join(call['x-vnet-roles'])}" + ("; also with a scope" if call["x-vnet-scoped"] else "")]
    for word, holder in (("Body", call.get("requestBody", {})), ("Answer", call["responses"]["200"])):
        for media, content in holder.get("content", {}).items():
            facts.append(f"{word}: {_type(content.get('schema', {}))} as `{media}`")
    yield from (f"- {fact}." for fact in facts)
    yield ""
    if call["parameters"]:
        rows = ((f"`{it['name']}`", it["in"], _text(it.get("description", ""))) for it in call["parameters"])
        yield from _table(("parameter", "in", "means"), rows)


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}\n"
    if schema.get("description"):
        yield f"{_text(' '.join(schema['description'].split()))}\n"
    needed = set(schema.get("required", ()))
    fields = schema.get("properties", {}).items()
    if fields:
        rows = (
            (f"`{word}`" + (" **needed**" if word in needed else ""), _type(of), _text(of.get("description", "")))
            for word, of in fields
        )
        yield from _table(("field", "is", "means"), rows)


def _type(schema: dict[str, Any]) -> str:
    """A schema in some words, with a link to the body that it names."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](bodies.md#{name.lower()})"
    if choices := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(map(_type, choices)))
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if schema.get("type") == "array":
        return f"a list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"a map to {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


# -- the clients


def _clients() -> Iterator[str]:
    yield "# The Python clients\n"
    yield "`vnet.client.Client` blocks, `vnet.client.AsyncClient` is the same with `await`. Errors are those of `vnet.api.errors`; what calls take and give is in `vnet.api` ([bodies](bodies.md)). [The guide](../toolstack.md) uses them.\n"
    yield f"## Client\n\n```python\nClient{_signature(Client.__init__)}\n```\n\n{_doc(Client)}\n"
    names = {of: {name for name in dir(of) if not name.startswith("_")} for of in (Client, AsyncClient)}
    for name in sorted(names[Client]):
        if callable(call := getattr(Client, name)):
            blocking_only = "" if name in names[AsyncClient] else " Blocking only."
            yield f"### {name}\n\n```python\n{name}{_signature(call)}\n```\n\n{_doc(call)}{blocking_only}\n"
    alone = sorted(names[AsyncClient] - names[Client])
    yield f"## AsyncClient\n\nHas the same calls{''.join(f', and `{name}`' for name in alone)}.\n"


def _signature(call: Any) -> str:
    """A method's arguments and answer, as its source has them."""
    function = ast.parse(dedent(inspect.getsource(call))).body[0]
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - of a method's source
    (function.args.posonlyargs or function.args.args).pop(0)  # self
    own, answer = ast.unparse(function.args), call.__annotations__.get("return") or "None"
    wrapped = fill(own, WIDTH, initial_indent="    ", subsequent_indent="    ", break_long_words=False)
    return f"({own}) -> {answer}" if len(own) < WIDTH else f"(\n{wrapped}\n) -> {answer}"


def _doc(of: Any) -> str:
    paragraphs = (inspect.getdoc(of) or "").split("\n\n")
    return "\n\n".join(_text(" ".join(part.split())) for part in paragraphs)


# -- metrics and events


def _metrics() -> Iterator[str]:
    yield "# Metrics\n"
    yield "All that `/metrics` may have. [Monitoring](../monitoring.md) says who may read them, their labels, and what alerts make of them.\n"
    for of in ("agent", "controller"):
        yield f"## Of {'an' if of == 'agent' else 'a'} {of}\n"
        yield from _table(("metric", "type", "says"), metrics_of(of))


def metrics_of(daemon: str) -> list[tuple[str, str, str]]:
    """(name, type, text) of each metric that a daemon's module makes. A part of a name that is a variable stands in braces."""
    found = []
    for node in ast.walk(ast.parse((ROOT / f"vnet/{daemon}/metrics.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in METRIC_MAKERS:
            name, text = (ast.unparse(part).lstrip("f")[1:-1] for part in node.args[:2])
            found.append((f"`{name}`", "gauge" if node.func.id == "value" else node.func.id, _text(text)))
    return sorted(found)


def _events() -> Iterator[str]:
    yield "# Events\n"
    yield "Their names are stable. [Monitoring](../monitoring.md#events) says what each means, and how they are sent on.\n"
    yield "## Of objects\n"
    verbs = ("created", "changed", "deleted")
    yield from _table(verbs, (tuple(f"`{it.NOUN.word}-{verb}`" for verb in verbs) for it in CONFIGURED))
    yield "## Others\n"
    yield from (f"- `{name}`" for name in event_kinds())


def event_kinds() -> list[str]:
    """The names of events that controllers and agents write, as far as they are written out there, without those of objects."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Event":
                for argument in node.args[1:2]:
                    if isinstance(argument, ast.Constant):
                        found.add(argument.value)
    builder = (ROOT / "vnet/controller/event_builder.py").read_text()
    return sorted(found | set(re.findall(r'"(migration-\w+)"', builder)))


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _cell(text: str) -> str:
    """A bar ends a cell, but for one in code."""
    return CODE_OR_BAR.sub(lambda found: found[0] if found[0] != "|" else r"\|", " ".join(text.split()))


def _text(text: str) -> str:
    """Text that Markdown leaves as it is: no tags, no emphasis, no links."""
    safe = text.replace("<", "&lt;")
    return safe if "`" in safe else re.sub(r"([*_\[\]])", r"\\\1", safe)
