"""Every python block of the documents that say so, executed in order against a private Open vSwitch.

One rule: the document is what runs. `/run/openvswitch` becomes the private directory; a ```text block that follows
a ```python block is what it prints, where `...` stands for anything.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import re
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.servers import Vswitchd, vswitchd

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


def look_installed(switch: Vswitchd) -> None:
    """Give the control socket the name that it has where Open vSwitch is installed."""
    assert switch.process is not None
    pid = switch.process.pid
    (switch.server.dir / "ovs-vswitchd.pid").write_text(f"{pid}\n")
    (switch.server.dir / f"ovs-vswitchd.{pid}.ctl").symlink_to(switch.control)


@pytest.mark.parametrize("document", [DOCS / "ovsctl.md"], ids=lambda path: path.name)
async def test_the_document_is_true(document: Path) -> None:
    found = blocks(document)
    with vswitchd() as switch:
        look_installed(switch)
        names: dict[str, Any] = {"__name__": "document"}
        for line, code, output in found:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                block = code.replace(SYSTEM_DIR, str(switch.server.dir))
                result = eval(compiled(block, document, line), names)
                if inspect.isawaitable(result):
                    await result
            if output is not None:
                assert agrees(output, printed.getvalue()), f"{document}:{line} prints\n{printed.getvalue()}"
            else:
                assert printed.getvalue() == "", f"{document}:{line} prints what the document does not show"
