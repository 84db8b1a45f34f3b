"""Documents on the command line: validate, schema, plan, apply, export."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from vnet.cli.applied import report_applied
from vnet.cli.ci_reports import CaseResult, report, report_options
from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.moment import at_option, moment
from vnet.cli.output import dump, echo, output_option, plain, progress, say
from vnet.cli.remote import connected, stopped
from vnet.cli.trial import await_confirmation

if TYPE_CHECKING:
    from vnet import api
    from vnet.topology import Problem, TopologyErrors

F = TypeVar("F", bound=Callable[..., Any])
READ_MAX_BYTES = 64 * 1024 * 1024  # a larger document has an error of its own
file_argument = click.argument("file", type=click.Path(allow_dash=True), metavar="FILE")
DEGREES = ("none", "flows", "vif", "uplink")  # of disruption, from least to most, as plans of the API have them
_SIGNS = {"+": "green", "~": "yellow", "-": "red"}


class YesLimits(NamedTuple):
    """The most that --yes agrees to."""

    deletions: int = 10
    disruption: str = "vif"


def read(file: str) -> tuple[bytes, str]:
    """A document's bytes, with the files that it includes, and what to call it; raises CommandError if it cannot be read."""
    from vnet.topology import TopologyErrors  # noqa: PLC0415 - help needs none of it
    from vnet.topology.files import included, read_file  # noqa: PLC0415

    try:
        if file == "-":
            data = sys.stdin.buffer.read(READ_MAX_BYTES)
            return included(data, "standard input", Path(), READ_MAX_BYTES), "standard input"
        return read_file(file, READ_MAX_BYTES), file
    except OSError as error:
        raise CommandError(f"{error.filename or file}: {error.strerror}", ExitCode.INVALID_INPUT) from None
    except TopologyErrors as errors:
        raise invalid(errors) from None


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


class InvalidInput(CommandError):
    """A document that is not valid, with all that is wrong with it."""

    def __init__(self, errors: TopologyErrors) -> None:
        count = len(errors.problems)
        super().__init__(f"{count} problem{'s'[: count > 1]}\n\n{errors}", ExitCode.INVALID_INPUT)
        self.errors = errors


def invalid(errors: TopologyErrors) -> CommandError:
    """The error of a command for a document that is not valid."""
    return InvalidInput(errors)


def apply_options(function: F) -> F:
    """The options of commands that make the pool another one."""
    for option in (
        click.option("--try", "try_s", type=click.IntRange(1, 86400), is_flag=False, flag_value=60, metavar="[SECONDS]",
                     help="Take it back by itself after so many seconds, 60 if left out, unless it is confirmed."),
        click.option("--force", is_flag=True, help="Apply even what breaks an expectation that holds now."),
        click.option("--wait", "wait_s", type=click.IntRange(0, 600), default=30, show_default=True, metavar="SECONDS",
                     help="How long to wait for the hosts to follow."),
        click.option("--allow", multiple=True, metavar="LIMIT=VALUE",
                     help="A limit of --yes: deletions=N  [default: 10], disruption=none, flows, vif or uplink  [default: vif]."),
        click.option("--yes", is_flag=True, help="Do not ask, as long as it stays within limits."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command()
@click.argument("files", type=click.Path(allow_dash=True), metavar="FILE...", nargs=-1, required=True)
@report_options
@output_option
def validate(files: tuple[str, ...], junit: str | None, annotate: str | None, output: str) -> int:
    """Check the document FILE, or several, each by itself; no pool is asked, nothing changes."""
    found = [(file, _problems(file)) for file in files]
    cases = (
        CaseResult(f"{file} is valid" if number is None else f"{file}: problem {number}", position, text)
        for file, problems in found
        for number, position, text in _cases(problems)
    )
    report("vnet validate", cases, junit, annotate)
    invalid_ones = [problems for _, problems in found if problems]
    if output != "table":
        rows = [
            {"file": file, "valid": not problems, "problems": [problem.as_dict() for problem in problems]}
            for file, problems in found
        ]
        dump(rows[0] if len(rows) == 1 else rows, output)
    else:
        for file, problems in found:
            if not problems:
                say(f"{file if file != '-' else 'standard input'} is valid")
        if invalid_ones:
            from vnet.topology import TopologyErrors  # noqa: PLC0415 - half of the start, and help needs none of it

            raise invalid(TopologyErrors(problem for problems in invalid_ones for problem in problems))
    return ExitCode.INVALID_INPUT if invalid_ones else ExitCode.OK


def _cases(problems: Sequence[Problem]) -> Iterator[tuple[int | None, str, str]]:
    """The number, the position and the text of each problem; one without either for none."""
    if not problems:
        yield None, "", ""
    for number, problem in enumerate(problems, 1):
        place = problem.place
        yield number, f"{problem.filename}:{place.line}:{place.column}" if place else "", str(problem)


def _problems(file: str) -> Sequence[Problem]:
    """All that is wrong with a document; raises CommandError if it cannot be read."""
    try:
        data, name = read(file)
    except InvalidInput as refused:
        return refused.errors.problems
    errors = _errors(data, name)
    return errors.problems if errors is not None else ()


@click.command()
def schema() -> None:
    """Print the JSON Schema of topology documents, for editors."""
    from vnet.topology.schema import schema_text  # noqa: PLC0415 - only this needs it

    echo(schema_text(), nl=False)


@click.command()
@file_argument
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there is something to apply.")
@click.option("--reachability", is_flag=True, help="Also who gains and who loses a way to whom.")
@click.option("--traces", is_flag=True, help="Also every step of a packet that breaks an expectation.")
@click.option(
    "--out",
    metavar="PLAN",
    type=click.Path(dir_okay=False),
    help="Write it to a file, for 'vnet apply PLAN' to make exactly it, or nothing.",
)
@output_option
def plan(file: str, detailed_exitcode: bool, reachability: bool, traces: bool, out: str | None, output: str) -> int:
    """Show what applying FILE would change, each with its reason and what it disturbs; and which expectations would fail."""
    data, name = read_valid(file)
    with connected() as client:
        planned = client.plan(data, name, reachability=reachability)
    if out is not None:
        from vnet.cli.plan_file import FORMAT, PlanFile, write_plan  # noqa: PLC0415 - help needs none of it

        write_plan(out, PlanFile(FORMAT, planned.id, planned.text, name, data.decode()))
    print_plan(planned, output, traces=traces)
    return ExitCode.CHANGES if detailed_exitcode and planned.changes else ExitCode.OK


@click.command()
@file_argument
@apply_options
@output_option
def apply(
    file: str, yes: bool, allow: tuple[str, ...], wait_s: int, force: bool, try_s: int | None, output: str
) -> int:
    """Make the pool what FILE says: all of it in one transaction, or nothing. FILE is a document, or a plan of 'vnet plan --out': exactly that one is made.

    With --try it is taken back by itself unless 'vnet confirm' is called in time, whatever becomes of this command, its terminal or the controller.
    Exits with 6 if --yes has a lower limit, and with 7 if it was applied and a live host does not carry it out, or no host is alive.
    """
    from vnet.cli.plan_file import read_plan  # noqa: PLC0415 - help needs none of it

    agreed = Agreement(yes, _limits(allow), force, output)
    kept = read_plan(file)
    data, name = read_valid(file) if kept is None else (kept.document.encode(), kept.name)
    with connected() as client:
        planned = client.plan(data, name)
        if kept is not None and planned.id != kept.plan:
            if output == "table":
                print_plan(planned, output)
            message = f"nothing was applied: {file} says something else than its document would change now, see above: plan again"
            raise CommandError(message, ExitCode.CONFLICT)
        agreed.check(planned, "Apply?")
        with stopped(
            f"'vnet plan {file}' shows what of the document is not applied, 'vnet status' who has not followed"
        ):
            applied = client.apply(
                data,
                name,
                revision=planned.revision,
                plan=kept.plan if kept is not None else None,
                wait_s=wait_s,
                force=force,
                try_s=try_s,
                progress=progress,
            )
        code = report_applied(applied, output)
        if applied.trial is not None:
            await_confirmation(client, applied.trial.revision)
    return code


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the caller of a command that makes the pool another one agrees to. Without `yes` a person is asked."""

    yes: bool
    limits: YesLimits
    force: bool
    output: str

    def check(self, planned: api.Plan, question: str) -> None:
        """Shows the plan and asks. Raises CommandError, UsageError or Abort where it is not to be done."""
        if self.output == "table":
            print_plan(planned, self.output)
        broken = [one.name for one in planned.expectations if one.held and not one.holds]
        if broken and not self.force:
            raise CommandError(f"nothing was applied, since it would break: {'; '.join(broken)}; --force does it all the same",
                               ExitCode.EXPECTATION_FAILED)  # fmt: skip
        if planned.changes and not self.yes:
            _ask(question)
        elif beyond := _beyond(planned, self.limits):
            raise CommandError(f"nothing was applied: {'; '.join(beyond)}", ExitCode.CONFLICT)


@click.command()
@click.argument("at", metavar="REVISION", callback=moment)
@apply_options
@output_option
def rollback(
    at: str, yes: bool, allow: tuple[str, ...], wait_s: int, force: bool, try_s: int | None, output: str
) -> int:
    """Make the pool what it was at REVISION, or at a time: all of it in one transaction, or nothing.

    VIFs and VMs stay where they are. Exits as 'vnet apply' does, and with 6 where the pool cannot be so again.
    """
    agreed = Agreement(yes, _limits(allow), force, output)
    with connected() as client:
        planned = client.plan_rollback(at)
        agreed.check(planned, "Roll back?")
        with stopped(f"'vnet rollback {at}' shows what is not rolled back, 'vnet status' who has not followed"):
            done = client.rollback(
                at, revision=planned.revision, wait_s=wait_s, force=force, try_s=try_s, progress=progress
            )
        code = report_applied(done, output)
        if done.trial is not None:
            await_confirmation(client, done.trial.revision)
    return code


@click.command()
@at_option
def export(at: str | None) -> None:
    """Write the pool as a document; applying it changes nothing. With --at as it was, to look at or to keep."""
    with connected() as client:
        echo(client.export(at=at), nl=False)


def print_plan(planned: api.Plan, output: str, *, traces: bool = False) -> None:
    """Print a plan. traces: of the expectations that would not hold, with every step."""
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
            if traces:
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


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask: say --yes to apply")
    click.confirm(question, abort=True, err=True)
