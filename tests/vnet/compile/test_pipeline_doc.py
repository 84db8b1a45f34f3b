"""docs/pipeline.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from vnet.compile import PIPELINE, Table

TEXT = (Path(__file__).parents[3] / "docs" / "pipeline.md").read_text()
SECTION = re.compile(r"^## (\d+) (\w+)\n\n(.+?)\n.*?^- Matches: (.*?)\n- Next: (.*?)\n", re.M | re.S)


def test_every_table_has_its_section_with_its_matches_and_successors() -> None:
    found = {
        Table(int(number)): (name, does, set(re.findall(r"`(\w+)`", matches)), following)
        for number, name, does, matches, following in SECTION.findall(TEXT)
    }
    assert found.keys() == PIPELINE.keys()
    for table, stage in PIPELINE.items():
        name, does, matches, following = found[table]
        assert name == table.name
        assert does == stage.does[0].upper() + stage.does[1:] + "."
        assert matches == stage.matches
        assert following == (", ".join(after.name for after in sorted(stage.next)) or "none")
