"""Every noun's commands: list, get, create, set and delete, made from the structs that vnet.api has for it.

One rule: a command that changes the pool prints the object on standard output, the changes and their disruption on standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vnet.api import RESOURCES, Plan, Resource
from vnet.cli.columns import columns_of
from vnet.cli.options import with_connection
from vnet.cli.output import dump, emit, output_option, plain, say
from vnet.cli.remote import connected
from vnet.util.suggest import plural

if TYPE_CHECKING:
    from vnet.cli.fields import OptionField
    from vnet.grammar.nodes import Node

dry_run_option = click.option("--dry-run", is_flag=True, help="Print the changes and their disruption; change nothing.")
file_option = click.option(
    "--file", "file", type=click.File("rb"), help="YAML or JSON with the fields, over which options go."
)


def __getattr__(name: str) -> click.Group:
    """The commands of the noun of that name: `security_group` for security groups."""
    if (word := name.replace("_", "-")) not in RESOURCES:
        raise AttributeError(name)
    return noun_group(word)


def noun_group(word: str) -> click.Group:
    """The commands of a noun."""
    return NounGroup(RESOURCES[word])


class NounGroup(click.Group):
    """The commands of a noun, each made when it is called: options take their time. Other commands may be added."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.word, help=f"List, make, change and delete {plural(resource.text)}.")
        self._resource = resource
        self._makers = {"list": list_command, "get": _get, "create": _create, "set": _set, "delete": _delete}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._makers, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        maker = self._makers.get(cmd_name)
        return with_connection(maker(self._resource)) if maker is not None else self.commands.get(cmd_name)


def list_command(resource: Resource, name: str = "list") -> click.Command:
    """The command that lists a noun's objects, with a filter for each that the noun has."""

    @output_option
    def run(output: str, **filters: str | None) -> None:
        from vnet.client.requests import reading  # noqa: PLC0415 - loads an HTTP library

        with connected() as client:
            answer: Any = list[resource.answer]  # type: ignore[name-defined]  # a type that is a value
            emit(client.send(reading(answer, resource.plural, **filters)).value, output, columns_of(resource))

    for found in reversed(resource.filters):
        choices = click.Choice(found.choices) if found.choices else None
        run = click.option(f"--{found.name}", type=choices, metavar=None if choices else "NAME", help=found.doc)(run)
    return click.command(name, help=f"List {plural(resource.text)}.")(run)


def _get(resource: Resource) -> click.Command:
    @click.argument("name", metavar=resource.key.upper())
    @output_option
    def run(name: str, output: str) -> None:
        from vnet.client.requests import reading  # noqa: PLC0415

        with connected() as client:
            emit(client.send(reading(resource.answer, resource.plural, name)).value, output, columns_of(resource))

    return click.command("get", help=f"Show one {resource.text}.")(run)


def _create(resource: Resource) -> click.Command:
    from vnet.cli.fields import fields_to_make  # noqa: PLC0415 - other commands need no fields

    fields = fields_to_make(resource)

    @click.argument("name", metavar=f"[{resource.key.upper()}]", required=False)
    @file_option
    @dry_run_option
    @output_option
    def run(name: str | None, file: Any, dry_run: bool, output: str, **options: Any) -> None:
        body = _of_file(resource, file) | _given(fields, options)
        stated = body.pop(resource.key, None)
        name = name or stated
        missing = [f"--{field.option}" for field in fields if field.required and field.word not in body]
        if name is None and resource.new is None:
            missing.insert(0, resource.key.upper())
        if missing:
            raise click.UsageError(f"missing: {', '.join(missing)}")
        _make(resource, name, body, output, dry_run=dry_run)

    text = f"Make a {resource.text}. Making the same one again changes nothing."
    return click.command("create", help=text)(_with(fields, run))


def _make(resource: Resource, name: str | None, body: dict[str, Any], output: str, *, dry_run: bool) -> None:
    from vnet.client.requests import sending  # noqa: PLC0415

    answer = Plan if dry_run else resource.answer
    with connected() as client:
        if name is None:
            call = sending("POST", answer, body, resource.plural, dry_run=dry_run)
        else:
            call = sending("PUT", answer, body, resource.plural, name, dry_run=dry_run)
        reply = client.send(call)
    if isinstance(reply.value, Plan):
        print_plan(reply.value, output)
        return
    emit(reply.value, output, columns_of(resource))
    say(f"{resource.text} {getattr(reply.value, resource.key)} is there; disruption: {reply.disruption}")


def _set(resource: Resource) -> click.Command:
    from vnet.cli.fields import fields_to_change  # noqa: PLC0415

    fields = fields_to_change(resource)

    @click.argument("name", metavar=resource.key.upper())
    @file_option
    @dry_run_option
    @output_option
    def run(name: str, file: Any, dry_run: bool, output: str, **options: Any) -> None:
        from vnet.client.requests import sending  # noqa: PLC0415

        body = _of_file(resource, file) | _given(fields, options)
        body.pop(resource.key, None)
        if not body:
            raise click.UsageError("nothing to change: an option is missing")
        with connected() as client:
            plan = client.send(sending("PATCH", Plan, body, resource.plural, name, dry_run=dry_run)).value
        print_plan(plan, output)

    text = f"Change a {resource.text} in place: the fields that options name, no others."
    return click.command("set", help=text)(_with(fields, run))


def _delete(resource: Resource) -> click.Command:
    @click.argument("name", metavar=resource.key.upper())
    @dry_run_option
    @output_option
    def run(name: str, dry_run: bool, output: str) -> None:
        from vnet.client.requests import sending  # noqa: PLC0415

        with connected() as client:
            plan = client.send(sending("DELETE", Plan, None, resource.plural, name, dry_run=dry_run)).value
        print_plan(plan, output)

    return click.command("delete", help=f"Delete a {resource.text}; nothing to do if there is none.")(run)


def print_plan(plan: Plan, output: str) -> None:
    """The changes and their disruption, as lines on standard error or as data."""
    if output != "table":
        dump(plain(plan), output)
    else:
        say(plan.text if plan.changes else "nothing to change")


# --- bodies from options and files ------------------------------------------------------------------


def _with(fields: tuple[OptionField, ...], run: Callable[..., None]) -> Callable[..., None]:
    for field in reversed(fields):
        run = field.decorate(run)
    return run


def _given(fields: tuple[OptionField, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The fields that options name, by their words."""
    return {word: value for field in fields for word, value in field.stated(options)}


def _of_file(resource: Resource, file: Any) -> dict[str, Any]:
    """The fields of a file. An answer of the API may be read again: fields that nobody sets are left out."""
    if file is None:
        return {}
    from vnet.cli.fields import fields_to_change  # noqa: PLC0415
    from vnet.grammar.problems import TopologyErrors  # noqa: PLC0415 - loads the YAML library
    from vnet.topology.yaml_tree import decode, parse  # noqa: PLC0415

    try:
        data = _data(parse(decode(file.read(), file.name)))
    except TopologyErrors as errors:
        raise click.UsageError(f"--file: {errors}") from None
    if not isinstance(data, dict):
        raise click.UsageError(f"--file: {file.name} has no map with fields")
    fields = {field.word: field for field in fields_to_change(resource)}
    read_only = set(resource.answer.__struct_encode_fields__) - fields.keys() - {resource.key}
    empty = {word for word, value in data.items() if value == [] and word in fields and fields[word].nothing is None}
    return {word: _filled(value) for word, value in data.items() if word not in read_only | empty and value is not None}


def _filled(value: Any) -> Any:
    """A value without the empty fields of objects inside it."""
    items = value if isinstance(value, list) else ()
    if not any(isinstance(item, dict) for item in items):
        return value
    return [{word: inner for word, inner in item.items() if inner not in (None, [])} for item in items]


def _data(node: Node) -> Any:
    """A tree as JSON has it. Words are spelled with underscores there."""
    from vnet.grammar.nodes import List, Map, Text, is_null  # noqa: PLC0415

    match node:
        case Map(entries=entries):
            return {key.text.replace("-", "_"): _data(value) for key, value in entries}
        case List(items=items):
            return [_data(item) for item in items]
        case Text(text=text, plain=True) if is_null(node) or text in ("true", "false"):
            return {"true": True, "false": False}.get(text)
        case Text(text=text, plain=True) if text.isascii() and text.isdigit() and str(int(text)) == text:
            return int(text)
        case Text(text=text):
            return text
