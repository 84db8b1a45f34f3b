"""Runs the tests again that the last run failed, one after another, with nothing beside them: `python -m tests.recheck MOST`.

Open vSwitch's and OVN's own suites do the same (`make check RECHECK=yes`). Exits with 1 if a test fails again, if more than MOST failed, or if the last
run did not come to its end, as some tests were not tried then.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

CACHE = Path(__file__).parent.parent / ".pytest_cache/v"  # pytest's own, of the last run
ENDED = "vnet/ended"  # what conftest.py keeps there: how the last run ended, null while it runs


def failed(cache: Path) -> list[str]:
    """The names of the tests that failed last. Raises OSError if no run has left any, ValueError if they cannot be read, or are not all."""
    if json.loads((cache / ENDED).read_text()) != int(pytest.ExitCode.TESTS_FAILED):
        raise ValueError("the last run did not come to its end")
    return sorted(json.loads((cache / "cache/lastfailed").read_text()))


def main(most: int, cache: Path = CACHE) -> int:
    try:
        names = failed(cache)
    except (OSError, ValueError) as error:
        print(f"no tests to run again: {error}", file=sys.stderr)
        return 1
    if not 0 < len(names) <= most:
        print(f"{len(names)} tests failed: only 1 to {most} are run again", file=sys.stderr)
        return 1
    print(f"{len(names)} tests failed in the whole suite, and are run again, alone:", *names, sep="\n  ", flush=True)
    return int(pytest.main(["-p", "no:cacheprovider", *names]))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
