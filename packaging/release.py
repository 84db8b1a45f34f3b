"""Builds all of a release: wheel, Debian packages, notes from CHANGELOG.md, checksums. `--notes` prints the notes alone.

One rule: a version is released from a clean checkout, once its section of the changelog has a date.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from vnet import VERSION

ROOT = Path(__file__).resolve().parents[1]
SECTION = r"^## {version} \((?P<date>[^)]*)\)\n(?P<notes>.*?)(?=^## |\Z)"


def main() -> None:
    found = re.search(SECTION.format(version=re.escape(VERSION)), (ROOT / "CHANGELOG.md").read_text(), re.M | re.S)
    if found is None:
        sys.exit(f"vnet: CHANGELOG.md has no section '## {VERSION} (DATE)'")
    if sys.argv[1:] == ["--notes"]:
        print(found["notes"].strip())
        return
    if found["date"] == "unreleased":
        sys.exit(f"vnet: CHANGELOG.md says that {VERSION} is unreleased: give it a date, commit, and tag it v{VERSION}")
    if subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT):
        sys.exit("vnet: the checkout has changes that are not committed")
    to = ROOT / "dist" / VERSION
    subprocess.run([sys.executable, str(ROOT / "packaging" / "build_deb.py"), "--wheel", "--to", str(to)], check=True)
    count = finish(to, found["notes"])
    print(f"{to}: {count} files and SHA256SUMS")


def finish(to: Path, notes: str) -> int:
    """Adds the notes to what was built, and the checksums of all, as `sha256sum -c` reads them. Returns how many files it has."""
    (to / "NOTES.md").write_text(f"# vnet {VERSION}\n\n{notes.strip()}\n")
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(to.iterdir())
        if path.name != "SHA256SUMS"
    ]
    (to / "SHA256SUMS").write_text("".join(sums))
    return len(sums)


if __name__ == "__main__":
    main()
