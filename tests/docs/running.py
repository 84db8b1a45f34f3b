"""Lines of a page as a person types them. One rule: a command of vnet is run by this process, which has loaded the code; what only a shell can do, a shell does."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path

from vnet.cli import main

# A command of vnet that becomes no other program; where its output goes.
VNET = re.compile(
    r"(?P<command>vnet (?!lab (?:exec|host) )[^|<>&;]*?)(?P<quiet> 2>/dev/null)?(?: \| (?P<filter>[^|<>&;]+)| > ?(?P<file>\S+))?"
)
ONE_SHELL = re.compile(
    r"&$|^(?:export|cd) |^\w+=", re.M
)  # a later line needs what an earlier one has left in the shell
TIMEOUT_S = 120


def ran(text: str, directory: Path) -> tuple[int, str]:
    """The first exit code that is not 0 of a block's lines, and what all of them print."""
    if ONE_SHELL.search(text):
        return _in_a_shell(text, directory)
    done = [_line(line, directory) for line in text.replace("\\\n", " ").splitlines()]
    return next((code for code, _ in done if code), 0), "".join(printed for _, printed in done)


def _line(line: str, directory: Path) -> tuple[int, str]:
    found = VNET.fullmatch(line)
    if found is None:
        return _in_a_shell(line, directory)
    printed, complaints = io.StringIO(), io.StringIO()
    separate = found["quiet"] or found["filter"] or found["file"]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints if separate else printed):
        code = main.run(shlex.split(found["command"])[1:])
    shown = "" if found["quiet"] else complaints.getvalue()
    if found["file"]:
        Path(found["file"]).write_text(printed.getvalue())
        return code, shown
    if found["filter"]:
        command = ["bash", "-c", found["filter"]]
        done = subprocess.run(command, input=printed.getvalue(), capture_output=True, text=True, check=False, timeout=TIMEOUT_S)  # fmt: skip
        return done.returncode, shown + done.stdout + done.stderr
    return code, shown + printed.getvalue()


def _in_a_shell(text: str, directory: Path) -> tuple[int, str]:
    # A file takes what is printed: a pipe would stay open as long as servers in the background have it.
    with (directory / "printed").open("w") as file:
        command = ["bash", "-e", "-c", text]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False, timeout=TIMEOUT_S)  # fmt: skip
    return done.returncode, (directory / "printed").read_text()
