"""What failed in the whole suite is run again only where the whole suite was tried, and few failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import recheck


def kept(directory: Path, ended: int | None, *names: str) -> Path:
    for name, content in ((recheck.ENDED, ended), ("cache/lastfailed", dict.fromkeys(names, True))):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(json.dumps(content))
    return directory


@pytest.mark.parametrize(
    ("ended", "count", "said"),
    [
        (None, 1, "did not come to its end"),  # killed
        (2, 1, "did not come to its end"),  # interrupted
        (3, 1, "did not come to its end"),  # an error of pytest's, as where workers collect different tests
        (1, 0, "0 tests failed"),
        (1, 5, "5 tests failed"),
    ],
)
def test_what_is_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ended: int | None, count: int, said: str
) -> None:
    cache = kept(tmp_path, ended, *(f"tests/test_x.py::test_{number}" for number in range(count)))
    assert recheck.main(4, cache) == 1
    assert said in capsys.readouterr().err


def test_nothing_is_run_again_where_nothing_ran(tmp_path: Path) -> None:
    assert recheck.main(4, tmp_path) == 1


def test_few_that_failed_are_run_again_and_may_fail_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def main(args: list[str]) -> int:
        ran.append(args)
        return len(ran) - 1

    monkeypatch.setattr(pytest, "main", main)
    cache = kept(tmp_path, 1, "b", "a[x y]")
    assert [recheck.main(4, cache), recheck.main(4, cache)] == [0, 1]
    assert ran[0][-2:] == ["a[x y]", "b"]
