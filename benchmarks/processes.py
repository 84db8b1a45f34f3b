"""What a running process costs, as /proc says."""

from __future__ import annotations

import os
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
