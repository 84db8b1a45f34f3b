"""docs/lab.md is true: its python blocks, run in order."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest

from tests.docs.test_documents import DOCS, agrees, blocks, compiled
from vnet.lab import labs

pytestmark = pytest.mark.usefixtures("ovs")
DOCUMENT = DOCS / "lab.md"


def test_the_document_is_true(lab_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)
    names: dict[str, Any] = {}
    found = blocks(DOCUMENT)
    for line, code, output in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compiled(code.replace("docs-lab", lab_name), DOCUMENT, line), names)
        if output is not None:
            assert agrees(output, printed.getvalue()), f"line {line}: {printed.getvalue()}"
    assert len(found) == 5
    assert lab_name not in labs()
