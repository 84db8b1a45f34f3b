"""Documents on the command line: validate, schema, plan, apply, export."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from vnet.cli.exits import CommandError, Exit
from vnet.cli.output import dump, echo, output_option, plain, progress, say
from vnet.cli.remote import connected, stopped

if TYPE_CHECKING:
    from vnet import api
    from vnet.topology import TopologyErrors

READ_MAX_BYTES = 64 * 1024 * 1024  # a larger document has an error of its own
file_argument = click.argument("file", type=click.Path(allow_dash=True), metavar="FILE")
DEGREES = ("none", "flows", "vif", "uplink")  # of disruption, from least to most, as plans of the API have them
_SIGNS = {"+": "green", "~": "yellow", "-": "red"}


class YesLimits(NamedTuple):
    """The most that --yes agrees to."""

    deletions: int = 10
    disruption: str = "vif"


def read(file: str) -> tuple[bytes, str]:
    """A document's bytes and what to call it; raises CommandError if it cannot be read."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(READ_MAX_BYTES), "standard input"
        with open(file, "rb") as opened:
            return opened.read(READ_MAX_BYTES), file
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", Exit.INVALID_INPUT) from None


def read_valid(file: str) -> tuple[bytes, str]:
    """The same, of a valid document; raises CommandError with all that is wrong with it."""
    data, name = read(file)
    if (errors := _errors(data, name)) is not None:
        raise invalid(errors)
    return data, name


def _errors(data: bytes, name: str) -> TopologyErrors | None:
    """All that is wrong with a document; None if it is valid."""
    from vnet.topology import TopologyErrors, load  # noqa: PLC0415 - half of the start, and help needs none of it

    try:
        load(data, name)
    except TopologyErrors as errors:
        return errors
    return None


def invalid(errors: TopologyErrors) -> CommandError:
    """The error of a command for a document that is not valid."""
    count = len(errors.problems)
    return CommandError(f"{count} problem{'s'[: count > 1]}\n\n{errors}", Exit.INVALID_INPUT)


@click.command()
@file_argument
@output_option
def validate(file: str, output: str) -> int:
    """Check the document FILE; no pool is asked, nothing changes."""
    data, name = read(file)
    if (errors := _errors(data, name)) is not None:
        if output == "table":
            raise invalid(errors)
        dump({"valid": False, "problems": errors.as_dicts()}, output)
        return Exit.INVALID_INPUT
    if output == "table":
        say(f"{name} is valid")
    else:
        dump({"valid": True, "problems": []}, output)
    return Exit.OK


@click.command()
def schema() -> None:
    """Print the JSON Schema of topology documents, for editors."""
    from vnet.topology.schema import schema_text  # noqa: PLC0415 - only this needs it

    echo(schema_text(), nl=False)


@click.command()
@file_argument
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there is something to apply.")
@click.option("--reachability", is_flag=True, help="Also who gains and who loses a way to whom.")
@output_option
def plan(file: str, detailed_exitcode: bool, reachability: bool, output: str) -> int:
    """Show what applying FILE would change, each with its reason and what it disturbs; and which expectations would fail."""
    data, name = read_valid(file)
    with connected() as client:
        planned = client.plan(data, name, reachability=reachability)
    _print_plan(planned, output)
    return Exit.CHANGES if detailed_exitcode and planned.changes else Exit.OK


@click.command()
@file_argument
@click.option("--yes", is_flag=True, help="Do not ask, as long as it stays within limits.")
@click.option("--allow", multiple=True, metavar="LIMIT=VALUE",
              help="A limit of --yes: deletions=N  [default: 10], disruption=none, flows, vif or uplink  [default: vif].")  # fmt: skip
@click.option("--wait", "wait_s", type=click.IntRange(0, 600), default=30, show_default=True, metavar="SECONDS",
              help="How long to wait for the hosts to follow.")  # fmt: skip
@click.option("--force", is_flag=True, help="Apply even what breaks an expectation that holds now.")
@output_option
def apply(file: str, yes: bool, allow: tuple[str, ...], wait_s: int, force: bool, output: str) -> int:
    """Make the pool what FILE says: all of it in one transaction, or nothing.

    Exits with 6 if --yes has a lower limit, and with 7 if it was applied and a live host does not carry it out, or no host is alive.
    """
    limits = _limits(allow)
    data, name = read_valid(file)
    with connected() as client:
        planned = client.plan(data, name)
        if output == "table":
            _print_plan(planned, output)
        broken = [one.name for one in planned.expectations if one.held and not one.holds]
        if broken and not force:
            raise CommandError(f"nothing was applied, since it would break: {'; '.join(broken)}; --force does it all the same",
                               Exit.EXPECTATION_FAILED)  # fmt: skip
        if planned.changes and not yes:
            _ask()
        elif beyond := _beyond(planned, limits):
            raise CommandError(f"nothing was applied: {'; '.join(beyond)}", Exit.CONFLICT)
        with stopped(
            f"'vnet plan {file}' shows what of the document is not applied, 'vnet status' who has not followed"
        ):
            applied = client.apply(data, name, revision=planned.revision, wait_s=wait_s, force=force, progress=progress)
    if output != "table":
        dump(plain(applied), output)
    return _report(applied)


@click.command()
def export() -> None:
    """Write the pool as a document; applying it changes nothing."""
    with connected() as client:
        echo(client.export(), nl=False)


def _print_plan(planned: api.Plan, output: str) -> None:
    if output != "table":
        dump(plain(planned), output)
        return
    for line in planned.text.splitlines():
        echo(line, fg=_SIGNS.get(line[:1]))
    for one in planned.reachability or ():
        echo(one.text, fg=_SIGNS.get(one.text[:1]))
    if planned.reachability == []:
        echo("Nobody gains or loses a way to anybody.")
    for expected in planned.expectations:
        if not expected.holds:
            text = "broken by this" if expected.held else "does not hold, as it does not now"
            echo(f"expectation {text}: {expected.where}: {expected.name}: {expected.why}", fg="red")
            echo("".join(f"      {line}\n" for line in expected.trace.splitlines()), nl=False)


def _limits(allow: tuple[str, ...]) -> YesLimits:
    """The limits of --yes. Raises UsageError."""
    limits = YesLimits()
    for text in allow:
        name, _, value = text.partition("=")
        if name == "deletions" and value.isascii() and value.isdigit():
            limits = limits._replace(deletions=int(value))
        elif name == "disruption" and value in DEGREES:
            limits = limits._replace(disruption=value)
        else:
            wanted = f"deletions=N or disruption={', '.join(DEGREES)}"
            raise click.UsageError(f"--allow: expected {wanted}, got '{text}'")
    return limits


def _beyond(planned: api.Plan, limits: YesLimits) -> list[str]:
    """What a plan does beyond the limits, each with the option that allows it."""
    found = []
    deleted = [f"{change.kind} {change.name}" for change in planned.changes if change.action == "delete"]
    if len(deleted) > limits.deletions:
        names = f"{', '.join(deleted[:3])}{', ...' if len(deleted) > 3 else ''}"
        found.append(
            f"it would delete {len(deleted)} objects ({names}), and --yes allows {limits.deletions}; "
            f"--allow deletions={len(deleted)} allows them"
        )
    if planned.disruption not in DEGREES[: DEGREES.index(limits.disruption) + 1]:  # nor one of a later version
        found.append(f"its disruption is '{planned.disruption}'; --allow disruption={planned.disruption} allows it")
    return found


def _ask() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask: say --yes to apply")
    click.confirm("Apply?", abort=True, err=True)


def _report(applied: api.Applied) -> int:
    """Tell which hosts have not followed. Dead ones are no failure, since they follow when they are back; all of them are."""
    for host in applied.dead:
        say(f"host {host} does not report: it will follow when it is back")
    for host in applied.waiting:
        say(f"host {host} has not programmed generation {applied.generation} yet")
    for problem in applied.problems:
        say(problem.text)
    followed, hosts = len(applied.acknowledged), len(applied.acknowledged + applied.waiting + applied.dead)
    if applied.plan.changes:
        failing = len({problem.host for problem in applied.problems})
        count = f"{hosts} hosts" if followed == hosts else f"{followed} of {hosts} hosts"
        say(
            f"applied: revision {applied.revision}, on {count}{f', {failing} of them with problems' if failing else ''}"
        )
    incomplete = applied.waiting or applied.problems or (hosts and not followed)
    return Exit.NOT_FOLLOWED if incomplete else Exit.OK
