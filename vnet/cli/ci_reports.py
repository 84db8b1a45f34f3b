"""What `vnet validate` and `vnet check` found, for CI systems: JUnit XML, and annotations of lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import click

from vnet.cli.exits import CommandError
from vnet.cli.output import echo
from vnet.util.printable import printable


class CaseResult(NamedTuple):
    """One thing that was tried. position: file:line:column, "" if nothing says where. failure: in words, "" for a success."""

    name: str
    position: str = ""
    failure: str = ""


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--junit FILE` and `--annotate github`."""
    for option in (
        click.option("--annotate", type=click.Choice(["github"]), help="Also print what is wrong so that GitHub shows it at its line."),
        click.option("--junit", type=click.Path(dir_okay=False, writable=True), metavar="FILE", help="Also write a report that CI systems read."),
    ):  # fmt: skip
        command = option(command)
    return command


def report(suite: str, cases: Iterable[CaseResult], junit: str | None, annotate: str | None) -> None:
    """Write what the options ask for. Raises CommandError for a file that cannot be written."""
    found = list(cases)
    if annotate is not None:
        for case in found:
            if case.failure:
                echo(annotation(case))
    if junit is not None:
        try:
            Path(junit).write_bytes(junit_xml(suite, found))
        except OSError as error:
            raise CommandError(f"{junit}: {error.strerror}") from None


def junit_xml(suite: str, cases: list[CaseResult]) -> bytes:
    """The cases as a test suite of JUnit's XML, as Jenkins and GitLab read it."""
    root = ElementTree.Element(
        "testsuite",
        name=suite,
        tests=str(len(cases)),
        failures=str(sum(bool(case.failure) for case in cases)),
        errors="0",
    )
    for case in cases:
        file, line, _ = _split(case.position)
        node = ElementTree.SubElement(root, "testcase", classname=suite, name=printable(case.name))
        if line:
            node.set("file", file)
            node.set("line", line)
        if case.failure:
            first = printable(case.failure.partition("\n")[0])
            ElementTree.SubElement(node, "failure", message=first).text = printable(case.failure)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def annotation(case: CaseResult) -> str:
    """A workflow command of GitHub's: https://docs.github.com/actions, "Workflow commands"."""
    file, line, column = _split(case.position)
    at = f" file={_escaped(file, ':,')},line={line},col={column}" if line else ""
    return f"::error{at}::{_escaped(case.failure)}"


def _escaped(text: str, more: str = "") -> str:
    for char in "%\r\n" + more:
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def _split(position: str) -> tuple[str, str, str]:
    """File, line and column; a position without them is none."""
    file, line, column = (*position.rsplit(":", 2), "", "")[:3]
    return file, line, column
