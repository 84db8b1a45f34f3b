"""Every noun's commands: list, get, create, set and delete, made from the structs that vnet.api has for it.

One rule: a command that changes the pool prints the object on standard output, the changes and their disruption on standard error.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vnet.api import RESOURCES, Plan, Resource
from vnet.cli.columns import columns_of, value_of, wide_columns_of
from vnet.cli.options import LIST_FORMATS, with_connection
from vnet.cli.output import dump, echo, emit, output_option, plain, say
from vnet.cli.remote import connected
from vnet.util.suggest import plural

if TYPE_CHECKING:
    from vnet.cli.fields import OptionField
    from vnet.grammar.nodes import Node

COMPLETION_S = 2.0  # that a shell waits for names
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
        self._makers = {
            "list": list_command, "get": _get, "create": _create, "set": _set, "edit": _edit, "delete": _delete,
        }  # fmt: skip

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._makers, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        maker = self._makers.get(cmd_name)
        return with_connection(maker(self._resource)) if maker is not None else self.commands.get(cmd_name)


def list_command(resource: Resource, name: str = "list") -> click.Command:
    """The command that lists a noun's objects, with a filter for each that the noun has."""

    @click.option("-w", "--watch", is_flag=True, help="Go on with those that change, until Ctrl-C.")
    @shown_options
    def run(watch: bool, fields: tuple[str, ...], output: str, **filters: str | None) -> None:
        from vnet.client.requests import reading  # noqa: PLC0415 - loads an HTTP library

        answer: Any = list[resource.answer]  # type: ignore[name-defined]  # a type that is a value
        with connected() as client:
            if not watch:
                show(client.send(reading(answer, resource.plural, **filters)).value, resource, fields, output)
                return
            from vnet.cli.watching import watched  # noqa: PLC0415

            ask = lambda: client.send(reading(answer, resource.plural, **filters)).value  # noqa: E731
            with contextlib.suppress(KeyboardInterrupt):
                for rows, gone in watched(client, resource, ask):
                    if rows or not gone:
                        show(rows, resource, fields, output)
                    for old in gone:
                        say(f"{resource.text} {old} is deleted")

    for found in reversed(resource.filters):
        choices = click.Choice(found.choices) if found.choices else None
        names = ("-l", "--label") if found.labels else (f"--{found.name}",)
        complete = _completion(RESOURCES[found.name]) if found.name in RESOURCES else None
        run = click.option(*names, type=choices, metavar=found.metavar, help=found.doc, shell_complete=complete)(run)
    return click.command(name, help=f"List {plural(resource.text)}.")(run)


def shown_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`-o table|wide|json|yaml` and `--field KEY`."""
    help_text = "Only this field, as -o json names it, a line for each object; of several, with tabs between them."
    field = click.option("--field", "fields", multiple=True, metavar="KEY", help=help_text)
    return field(output_option(function, LIST_FORMATS))


def show(data: Any, resource: Resource, fields: tuple[str, ...], output: str) -> None:
    """Print an object or several: as a table, with all columns if wide, as JSON or YAML, or only some fields."""
    if fields:
        for row in data if isinstance(data, list) else [data]:
            echo("\t".join(value_of(resource, row, field) for field in fields))
    elif output == "wide":
        emit(data, "table", wide_columns_of(resource, data if isinstance(data, list) else [data]))
    else:
        emit(data, output, columns_of(resource))


def name_argument(resource: Resource) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The name of an object, completed from the pool that runs."""
    return click.argument("name", metavar=resource.key.upper(), shell_complete=_completion(resource))


def _get(resource: Resource) -> click.Command:
    @name_argument(resource)
    @shown_options
    def run(name: str, fields: tuple[str, ...], output: str) -> None:
        from vnet.client.requests import reading  # noqa: PLC0415

        with connected() as client:
            show(client.send(reading(resource.answer, resource.plural, name)).value, resource, fields, output)

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

    @name_argument(resource)
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
    @name_argument(resource)
    @dry_run_option
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @output_option
    def run(name: str, dry_run: bool, yes: bool, output: str) -> None:
        from vnet.client.requests import sending  # noqa: PLC0415

        def call(*, dry_run: bool, if_match: str | None = None) -> Plan:
            request = sending("DELETE", Plan, None, resource.plural, name, dry_run=dry_run, if_match=if_match)
            return client.send(request).value

        with connected() as client:
            asks = not dry_run and not yes and sys.stdin.isatty() and sys.stderr.isatty()
            plan = call(dry_run=dry_run or asks)
            if asks and plan.changes:
                print_plan(plan, "table")
                click.confirm("Delete?", abort=True, err=True)
                plan = call(dry_run=False, if_match=plan.id)  # what was shown, or nothing
        if output != "table" or not (asks and plan.changes):
            print_plan(plan, output)

    return click.command("delete", help=f"Delete a {resource.text}; nothing to do if there is none.")(run)


def _edit(resource: Resource) -> click.Command:
    @name_argument(resource)
    @dry_run_option
    @output_option
    def run(name: str, dry_run: bool, output: str) -> None:
        import yaml  # noqa: PLC0415

        from vnet.cli.fields import fields_to_change  # noqa: PLC0415
        from vnet.client.requests import reading, sending  # noqa: PLC0415

        words = [field.word for field in fields_to_change(resource)]
        with connected() as client:
            read = client.send(reading(resource.answer, resource.plural, name))
            found = plain(read.value)
            before = {word: found[word] for word in words if word in found}
            text = yaml.safe_dump(before, sort_keys=False, allow_unicode=True)
            edited = click.edit(
                f"# {resource.text} {name}: what is changed here is changed in the pool.\n{text}", extension=".yaml"
            )
            after = _parsed((edited or text).encode(), resource.text, "nothing was changed")
            body = {word: after.get(word) for word in words if after.get(word) != before.get(word)}
            if unknown := [word for word in after if word not in words]:
                raise click.UsageError(f"a {resource.text} has no '{unknown[0]}' that can be changed")
            if not body:
                say("nothing to change")
                return
            call = sending("PATCH", Plan, body, resource.plural, name, dry_run=dry_run, if_match=read.tag)
            plan = client.send(call).value
        print_plan(plan, output)

    return click.command("edit", help=f"Change a {resource.text} in your editor ($EDITOR).")(run)


def _completion(resource: Resource) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    return lambda context, _, text: names_of_pool(context, resource, text)


def names_of_pool(context: click.Context, resource: Resource, text: str) -> list[str]:
    """The names of objects that begin with a text, for a shell; none where the controller does not answer soon."""
    from vnet.client import Client  # noqa: PLC0415
    from vnet.client.requests import reading  # noqa: PLC0415
    from vnet.client.wire import read_token  # noqa: PLC0415

    options = context.find_root().params
    with contextlib.suppress(Exception):  # a shell that completes shows no errors
        token = read_token(options.get("token_file"))
        ca, cleartext = options.get("ca"), bool(options.get("cleartext"))
        with Client(options["controller"], token=token, ca=ca, cleartext=cleartext, timeout_s=COMPLETION_S) as client:
            answer: Any = list[resource.answer]  # type: ignore[name-defined]  # a type that is a value
            rows = client.send(reading(answer, resource.plural)).value
            return [name for row in rows if (name := getattr(row, resource.key)).startswith(text)]
    return []


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

    data = _parsed(file.read(), file.name, "--file")
    fields = {field.word: field for field in fields_to_change(resource)}
    read_only = set(resource.answer.__struct_encode_fields__) - fields.keys() - {resource.key}
    empty = {word for word, value in data.items() if value == [] and word in fields and fields[word].nothing is None}
    return {word: _filled(value) for word, value in data.items() if word not in read_only | empty and value is not None}


def _parsed(text: bytes, name: str, failed: str) -> dict[str, Any]:
    """The fields of a YAML or JSON text. failed: what is said before the reason of a UsageError."""
    from vnet.grammar.problems import TopologyErrors  # noqa: PLC0415 - loads the YAML library
    from vnet.topology.yaml_tree import decode, parse  # noqa: PLC0415

    try:
        data = _data(parse(decode(text, name)))
    except TopologyErrors as errors:
        raise click.UsageError(f"{failed}: {errors}") from None
    if not isinstance(data, dict):
        raise click.UsageError(f"{failed}: {name} has no map with fields")
    return data


def _filled(value: Any) -> Any:
    """A value without the empty fields of objects inside it."""
    items = value if isinstance(value, list) else ()
    if not any(isinstance(item, dict) for item in items):
        return value
    return [{word: inner for word, inner in item.items() if inner not in (None, [])} for item in items]


def _data(node: Node) -> Any:
    """A tree as JSON has it. Words are spelled with underscores there."""
    from vnet.grammar.nodes import ListNode, MapNode, TextNode, is_null  # noqa: PLC0415

    match node:
        case MapNode(entries=entries):
            return {key.text.replace("-", "_"): _data(value) for key, value in entries}
        case ListNode(items=items):
            return [_data(item) for item in items]
        case TextNode(text=text, plain=True) if is_null(node) or text in ("true", "false"):
            return {"true": True, "false": False}.get(text)
        case TextNode(text=text, plain=True) if text.isascii() and text.isdigit() and str(int(text)) == text:
            return int(text)
        case TextNode(text=text):
            return text
