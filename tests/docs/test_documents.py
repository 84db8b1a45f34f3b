"""docs/ovsctl.md, executed: Open vSwitch as it starts it, then every python block in order.

One rule: the document is what runs. `/run/openvswitch` becomes a directory of the test's; a ```text block that follows
a ```python block is what it prints, where `...` stands for anything.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.servers import run_dir
from vnet.lab.processes import stop

DOCS = Path(__file__).parents[2] / "docs"
SYSTEM_DIR = "/run/openvswitch"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.usefixtures("ovs")


def blocks(document: Path) -> list[tuple[int, str, str | None]]:
    """(line, code, what it prints or None) of each python block."""
    text = document.read_text()
    return [(text.count("\n", 0, found.start()) + 2, found["code"], found["output"]) for found in BLOCK.finditer(text)]


def compiled(code: str, document: Path, line: int) -> CodeType:
    """The block, with its place in the document for tracebacks; `await` is allowed at its top."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code_object: CodeType = compile("\n" * (line - 1) + code, str(document), "exec", flags=flags)
    return code_object


def agrees(want: str, got: str) -> bool:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(want, got, options)


@contextlib.contextmanager
def started(document: Path, directory: Path) -> Iterator[None]:
    """Open vSwitch as the page starts it, in a directory of its own."""
    (script,) = re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.M | re.S)
    command = ["bash", "-e", "-c", script.replace(SYSTEM_DIR, str(directory))]
    try:
        subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        yield
    finally:
        stop([int(file.read_text()) for file in directory.glob("*.pid")])


@pytest.mark.parametrize("document", [DOCS / "ovsctl.md"], ids=lambda path: path.name)
async def test_the_document_is_true(document: Path) -> None:
    found = blocks(document)
    with run_dir() as directory, started(document, directory):
        names: dict[str, Any] = {"__name__": "document"}
        for line, code, output in found:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                block = code.replace(SYSTEM_DIR, str(directory))
                result = eval(compiled(block, document, line), names)
                if inspect.isawaitable(result):
                    await result
            if output is not None:
                assert agrees(output, printed.getvalue()), f"{document}:{line} prints\n{printed.getvalue()}"
            else:
                assert printed.getvalue() == "", f"{document}:{line} prints what the document does not show"
