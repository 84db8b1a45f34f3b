"""Every refusal, as a person reads it: one file per case under refused/, the document above the line, the message below.

`UPDATE_GOLDEN=1 pytest tests/vnet/topology/test_refused.py` writes the messages anew: read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vnet.topology import TopologyErrors, load

CASES = sorted(Path(__file__).with_name("refused").glob("*.txt"))
LINE = "======== is refused with ========\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_message(case: Path) -> None:
    document, _, expected = case.read_text().partition(LINE)
    with pytest.raises(TopologyErrors) as caught:
        load(document.encode(), "pool.vnet.yaml")
    said = f"{caught.value}\n"
    if os.environ.get("UPDATE_GOLDEN"):
        case.write_text(document + LINE + said)
    else:
        assert said == expected
    for problem in caught.value.as_dicts():
        assert problem["code"]
        assert problem["message"]
        assert problem["file"] == "pool.vnet.yaml"
        assert isinstance(problem["line"], int) or problem["code"] == "empty", "every problem has its place"


def test_each_case_is_about_what_its_name_says() -> None:
    assert len(CASES) > 60
