"""No form of output lets a control character from outside reach the terminal."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import click
import pytest
import yaml

import vnet.cli
from vnet.cli.exits import CommandError
from vnet.cli.output import dump, echo, emit, say

Capture = pytest.CaptureFixture[str]
# Escape, the one-byte CSI of 8-bit terminals, delete, carriage return, right-to-left override.
HOSTILE = "a\x1b[2Jb\x9b2Jc\x7fd\re\u202ef"
MAY_PRINT = {"output.py", "exits.py"}


def shown(capsys: Capture) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_text_and_tables_have_no_control_characters(capsys: Capture) -> None:
    echo(f"one\n{HOSTILE}", fg="red")
    say(HOSTILE)
    CommandError(f"unknown network '{HOSTILE}'").show()
    emit([{"name": HOSTILE, "list": [HOSTILE, "g"]}], "table", [("N", lambda r: r["name"]), ("L", lambda r: r["list"])])
    text = shown(capsys)
    assert {char for char in text if not char.isprintable()} == {"\n"}
    assert text.count("\N{REPLACEMENT CHARACTER}") == 5 * 5


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_json_and_yaml_escape_them(capsys: Capture, output: str, parse: object) -> None:
    dump({"name": HOSTILE}, output)
    text = shown(capsys)
    assert {char for char in text if not char.isprintable()} == {"\n"}
    assert callable(parse)
    assert parse(text) == {"name": HOSTILE}


def test_own_styles_reach_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    echo(HOSTILE, fg="red")
    assert shown(capsys).startswith(click.style("a", fg="red", reset=False))


def test_only_output_prints() -> None:
    """Constant texts apart, everything printed passes the functions tested above."""
    (directory,) = vnet.cli.__path__
    found = [
        f"{path.name}:{call.lineno}"
        for path in sorted(Path(directory).glob("*.py"))
        if path.name not in MAY_PRINT
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("click.echo", "click.secho", "print")
        if not all(isinstance(arg, ast.Constant) for arg in call.args) and path.name != "completion.py"
    ]
    assert found == []
