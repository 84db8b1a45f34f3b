"""The markers `ovs` and `netns` follow from fixtures, and a test without one that starts a daemon fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import subprocess
import pytest

def start(*argv):
    return subprocess.run(argv, check=False).returncode

@pytest.fixture(scope="module")
def server(ovs): return start("ovsdb-server", "--version")

@pytest.fixture(scope="module")
def unannounced(): return start("ovs-vswitchd", "--version")

def test_pure(): pass
def test_permitted(server): assert server == 0
def test_child(): start("ovs-vswitchd", "--version")
def test_grandchild(): start("sh", "-c", "ovsdb-server --version || true")
def test_in_a_fixture(unannounced): pass
"""


def outcomes(directory: Path, *args: str) -> dict[str, str]:
    """The outcome of each test of TESTS that ran."""
    (directory / "test_it.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-rA",
        "--tb=no",
        *args,
    ]
    done = subprocess.run(
        command, cwd=directory, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(("PASSED", "FAILED", "ERROR"))]
    return {line[1].partition("::")[2]: line[0] for line in lines}


@pytest.mark.usefixtures("ovs")
def test_only_a_test_that_requests_a_daemon_may_start_one(tmp_path: Path) -> None:
    refused = {"test_child": "FAILED", "test_grandchild": "FAILED", "test_in_a_fixture": "ERROR"}
    assert outcomes(tmp_path) == {"test_pure": "PASSED", "test_permitted": "PASSED", **refused}


def test_the_unit_set_leaves_out_a_test_whose_fixture_starts_a_daemon(tmp_path: Path) -> None:
    assert "test_permitted" not in outcomes(tmp_path, "-m", "not ovs and not netns")
