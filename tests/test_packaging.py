"""What is packaged, checked without building it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"


def release(*args: str) -> tuple[int, str]:
    command = [sys.executable, str(PACKAGING / "release.py"), *args]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    code, notes = release("--notes")
    assert code == 0
    assert notes.startswith("The first version.")
    assert notes.strip() in (ROOT / "CHANGELOG.md").read_text()


def test_what_is_unreleased_is_not_released() -> None:
    code, text = release()
    assert code == 1
    assert "is unreleased" in text


def test_the_container_names_files_and_options_that_there_are() -> None:
    text = (PACKAGING / "Containerfile").read_text()
    builder = (PACKAGING / "build_deb.py").read_text()
    for package in re.findall(r"dist/([a-z-]+)_", text):
        assert f'name="{package}"' in builder
    (entrypoint,) = re.findall(r"^ENTRYPOINT \[(.*)\]$", text, re.M)
    program, *options = (part.strip('", ') for part in shlex.split(entrypoint.replace(",", " ")))
    assert f'"{Path(program).name}":' in builder
    known = (ROOT / "vnet/cli/controller.py").read_text()
    assert all(f'"{option}"' in known for option in options if option.startswith("--"))
    instructions = {line.split()[0] for line in text.splitlines() if re.match(r"[A-Z]+ ", line)}
    assert instructions == {"FROM", "COPY", "RUN", "VOLUME", "STOPSIGNAL", "ENTRYPOINT"}


@pytest.mark.parametrize("unit", sorted(PACKAGING.glob("*.service")), ids=lambda path: path.name)
def test_units_keep_no_more_capabilities_than_they_need_and_name_programs_that_are_packaged(unit: Path) -> None:
    text = unit.read_text()
    needed = {"vnet-wireguard": "CAP_NET_ADMIN CAP_SYS_ADMIN", "vnet-agent": "CAP_NET_ADMIN"}.get(unit.stem, "")
    assert f"\nCapabilityBoundingSet={needed}\n" in text
    assert re.search(r"^LimitNOFILE=\d+$", text, re.M)
    (program,) = re.findall(r"^ExecStart=/usr/bin/(\S+)", text, re.M)
    assert f'"{program}":' in (PACKAGING / "build_deb.py").read_text()
