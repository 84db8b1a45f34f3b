"""A topology of 1,000 hosts, 1,000 networks and 20,000 VIFs through a real controller: validate, plan, apply, change one line.

`vnet controller` is a process of its own with its own pool database, and is asked by vnet.client over its unix socket; no agent is
alive. validate: reading the document, as `vnet validate` does. plan: the call, which reads the document again, from
bytes to the plan as the client has it. change: planning and applying one changed line, as two calls. Processor time is the
controller's and the database's together, over all calls of a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from benchmarks.common import Figure, Result, arguments, report
from benchmarks.processes import Process
from benchmarks.topology import HOSTS, NAME, NETWORKS, VMS, document
from tests.vnet.controller.daemons import Controller, controller
from vnet.topology import load

T = TypeVar("T")
FIGURES = (
    Figure("validate_s", "s"),
    Figure("plan_s", "s"),
    Figure("validate_and_plan_s", "s", below=5.0),
    Figure("apply_s", "s"),
    Figure("change_plan_s", "s"),
    Figure("change_apply_s", "s"),
    Figure("change_s", "s", below=3.0),
    Figure("validate_cpu_s", "s"),
    Figure("plan_cpu_s", "s"),
    Figure("apply_cpu_s", "s"),
    Figure("change_cpu_s", "s"),
    Figure("controller_MB", "MB"),
    Figure("database_MB", "MB"),
)
LINE, CHANGED = "net7: {type: vlan, tag: 8,", "net7: {type: vlan, tag: 4000,"


def _cpu_s(server: Controller) -> float:
    return sum(process.cpu_s for process in _processes(server))


def _processes(server: Controller) -> tuple[Process, Process]:
    """The controller and its database."""
    pid = server.database.pid()
    if server.process is None or pid is None:
        raise RuntimeError("the controller is not running")
    return Process.of(server.process.pid), Process.of(pid)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.monotonic()
    result = work()
    return time.monotonic() - start, result


def measure() -> dict[str, float]:
    """One pool, from nothing to a changed line."""
    text = document()
    data, changed = text.encode(), text.replace(LINE, CHANGED).encode()
    figures: dict[str, float] = {}
    with controller(document=None) as server, server.client() as client:
        before = time.process_time()
        figures["validate_s"], _ = _timed(lambda: load(data, NAME))
        figures["validate_cpu_s"] = time.process_time() - before
        cpu = [_cpu_s(server)]
        figures["plan_s"], plan = _timed(lambda: client.plan(data, NAME))
        cpu.append(_cpu_s(server))
        figures["apply_s"], applied = _timed(lambda: client.apply(data, NAME))
        cpu.append(_cpu_s(server))
        if len(plan.changes) != len(applied.plan.changes):
            raise RuntimeError("what was applied is not what was planned")
        figures["change_plan_s"], plan = _timed(lambda: client.plan(changed, NAME))
        figures["change_apply_s"], applied = _timed(lambda: client.apply(changed, NAME))
        cpu.append(_cpu_s(server))
        if len(plan.changes) != 1 or applied.revision != 2:
            raise RuntimeError(f"one line changed, and the plan has {len(plan.changes)} changes")
        figures["controller_MB"], figures["database_MB"] = (it.resident_mb for it in _processes(server))
    spent = [after - before for before, after in pairwise(cpu)]
    figures["plan_cpu_s"], figures["apply_cpu_s"], figures["change_cpu_s"] = spent
    figures["validate_and_plan_s"] = figures["validate_s"] + figures["plan_s"]
    figures["change_s"] = figures["change_plan_s"] + figures["change_apply_s"]
    return figures


def main() -> None:
    options = arguments(__doc__).parse_args()
    samples = [measure() for _ in range(options.runs)]
    work = f"apply: {HOSTS:,} hosts, {NETWORKS:,} networks, {VMS:,} VIFs"
    report([Result.of(work, FIGURES, samples)], options.json)


if __name__ == "__main__":
    main()
