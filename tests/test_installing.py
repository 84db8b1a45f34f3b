"""What a machine that is not ready is told: one line that says what to do, before anything was begun."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLAIN_USER = ["unshare", "-U", "--map-user=65534", "--map-group=65534"]


def told(argv: Sequence[str], path: str = os.environ["PATH"]) -> tuple[int, str, list[str]]:
    """Exit code, standard output and the lines of standard error."""
    env = {**os.environ, "PATH": path}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory of programs without Open vSwitch's and without Debian's; dpkg-query knows no package."""
    for name in ("sh", "id", "grep", "ip", "nsenter"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    return tmp_path


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_as_a_plain_user(target: str) -> None:
    code, out, (line,) = told([*PLAIN_USER, "make", "--no-print-directory", target])
    assert (code, out) == (2, "")
    assert f"not root: run 'sudo make {target}'" in line


@pytest.mark.parametrize("argv", [[], PLAIN_USER], ids=["no Open vSwitch", "no root"])
def test_the_demo_begins_only_where_it_can_end(argv: list[str], tools: Path) -> None:
    demo = ["-m", "vnet.cli.main", "lab", "demo", "topologies/quickstart.vnet.yaml", "--name", f"no{os.getpid()}"]
    unshare = shutil.which("unshare") or ""
    code, out, (line,) = told([*([unshare, *argv[1:]] if argv else []), sys.executable, *demo], str(tools))
    assert (code, out) == (1, "")
    assert ("run it with sudo" if argv else "apt-get install openvswitch-switch") in line


def install(tools: Path, *before: str) -> tuple[int, str, list[str]]:
    dpkg = tools / "dpkg-query"
    dpkg.write_text("#!/bin/sh\nexit 1\n")
    dpkg.chmod(0o755)
    return told([*before, "/bin/sh", "packaging/install-system.sh", "openvswitch-switch", "iproute2"], str(tools))


def test_another_distribution(tools: Path) -> None:
    code, out, (line,) = install(tools)
    assert (code, out) == (1, "")
    assert "not Debian" in line
    assert line.endswith("openvswitch-switch iproute2")


def test_a_plain_user_where_packages_are_missing(tools: Path) -> None:
    (tools / "apt-get").symlink_to("/bin/false")
    code, out, (line,) = install(tools, shutil.which("unshare") or "", *PLAIN_USER[1:])
    assert (code, out) == (1, "")
    assert "sudo apt-get install openvswitch-switch iproute2" in line


def test_an_old_python(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "packaging", "requirements"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "Makefile").unlink()
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    code, out, lines = told(
        ["make", "-C", str(tmp_path), "--no-print-directory", "PYTHON=/bin/false", "SYSTEM_PACKAGES=", "install"]
    )
    assert (code, out) == (2, "")
    assert "is older than 3.11" in lines[0]
    assert not (tmp_path / ".venv").exists()


def test_a_command_whose_packages_are_not_installed() -> None:
    script = (
        "import sys; sys.modules['httpx'] = None; from vnet.cli.main import main; sys.argv = ['vnet', 'status']; main()"
    )
    code, out, (line,) = told([sys.executable, "-c", script])
    assert (code, out) == (1, "")
    assert "needs the Python package httpx: pip install 'vnet[all]'" in line
