"""What a running process costs, as /proc says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """Memory in MB (10^6 bytes), processor time in seconds since its start."""

    resident_mb: float
    peak_mb: float
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> Process:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        cpu_s = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        kib = {name: int(status[name].split()[0]) for name in ("VmRSS", "VmHWM")}
        return cls(kib["VmRSS"] * 1024 / 1e6, kib["VmHWM"] * 1024 / 1e6, cpu_s)


@contextlib.contextmanager
def preferred(pids: Iterable[int | None]) -> Iterator[None]:
    """These processes, this one, and those that it makes meanwhile, run before all others of the machine: their times are then
    their own on a machine that is busy with other things. Needs root."""
    ours = [os.getpid(), *(pid for pid in pids if pid is not None)]
    try:
        for pid in ours:
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
        yield
    finally:
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
