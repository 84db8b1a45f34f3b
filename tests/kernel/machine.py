"""A virtual machine with Open vSwitch in its kernel: User Mode Linux, from Debian's packages, over this machine's own files.

One rule: the virtual machine reads this machine's files and writes to its own memory, but for one directory that both share.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
KERNEL = "linux.uml"
PACKAGED = Path("/usr/lib/uml/modules")
MEMORY = "4G"


class KernelMissing(Exception):
    """There is no kernel to boot. Says what to install."""


def modules() -> Path:
    """The modules to load: those that build_modules.sh made, which have conntrack zones, else the package's."""
    found = sorted(PACKAGED.glob("*"))
    if shutil.which(KERNEL) is None or not found:
        raise KernelMissing(f"{KERNEL} is not installed: apt-get install user-mode-linux")
    built = cache() / found[-1].name
    return built if built.is_dir() else found[-1]


def cache() -> Path:
    """Where build_modules.sh puts its modules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vnet" / "uml"


def run(command: str) -> int:
    """The exit code of a shell command that ran in the virtual machine; its output goes to ours. Raises KernelMissing."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it takes down the machine, as Ctrl-C does
    # The machine's memory is a file there, which it maps executable.
    with tempfile.TemporaryDirectory(prefix="vnet-kernel-", dir="/dev/shm") as directory:
        share = Path(directory)
        (share / "command").write_text(command)
        boot = [
            KERNEL, f"mem={MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "loglevel=1",
            f"init={Path(__file__).with_name('init.sh')}", "con=null", "con0=null,fd:1", "panic=-1",
            f"vm_modules={modules()}", f"vm_share={share}",
        ]  # fmt: skip
        machine = subprocess.Popen(
            boot, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": directory}, start_new_session=True
        )
        try:
            machine.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGKILL)
        status = share / "status"
        return int(status.read_text()) if status.exists() else 1
