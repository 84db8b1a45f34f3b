"""`python -m tests.kernel TESTS...`: runs tests on Open vSwitch's kernel datapath. Output and exit code are pytest's."""

from __future__ import annotations

import shlex
import sys

from tests.kernel.machine import ROOT, KernelMissing, run
from vnet.lab.streams import LEAST_PERIOD

# Each network type, and all that a host does with its kernel's datapath.
TESTS = ("tests/kernel", "tests/vnet/packets", "tests/vnet/lab", "tests/vnet/probe", "tests/vnet/agent")


def main(args: list[str]) -> int:
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "--datapath-type",
        "system",
        "-rs",
        "--color=no",
        "-p",
        "no:cacheprovider",
    ]
    # One processor at half speed carries no frame each millisecond on six paths.
    command = f"cd {shlex.quote(str(ROOT))} && {LEAST_PERIOD}=20 exec {shlex.join([*pytest, *(args or TESTS)])}"
    try:
        return run(command)
    except KernelMissing as error:
        print(f"vnet: {error}", file=sys.stderr)
        return 1


sys.exit(main(sys.argv[1:]))
