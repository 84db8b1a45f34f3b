"""A topology of 1,000 hosts, 1,000 networks and 20,000 VIFs through a real controller: validate, plan, apply, change one line.

`vnet controller` is a process of its own with its own pool database, and is asked by vnet.client over its unix socket; no agent is
alive. validate: reading the document, as `vnet validate` does. plan: the call, which reads the document again, from
bytes to the plan as the client has it. change: planning and applying one changed line, as two calls. Processor time is the
controller's and the database's together, over all calls of a run.

OVN has no document and no plan. Its twin begins with what the document comes to, as values, and puts it into the northbound database in one
transaction, through the same client; apply_s is until northd has compiled it into the southbound database (`ovn-nbctl
--wait=sb sync`), written_s until the northbound database has it. The changed line is one update of a port, again until it is
compiled. Its hosts are in the southbound database before. Its subnets are left out, which spares it work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TypeVar

from benchmarks.common import Figure, arguments, compare, report
from benchmarks.ovn_scale import SOUTHBOUND, Central, alone, chassis, port, switches, write
from benchmarks.processes import Process
from benchmarks.topology import HOSTS, NAME, NETWORKS, VMS, document
from ovsctl.ovsdb import OvsdbClient, Update
from tests.servers import run_dir
from tests.vnet.controller.daemons import Controller, controller
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

T = TypeVar("T")
FIGURES = (
    Figure("apply_s", "s"),
    Figure("change_s", "s", below=3.0),
    Figure("change_apply_s", "s"),
    Figure("apply_cpu_s", "s"),
    Figure("change_cpu_s", "s"),
    Figure("controller_MB", "MB"),
    Figure("database_MB", "MB"),
)
OURS = (
    Figure("validate_s", "s"),
    Figure("plan_s", "s"),
    Figure("validate_and_plan_s", "s", below=5.0),
    Figure("change_plan_s", "s"),
    Figure("validate_cpu_s", "s"),
    Figure("plan_cpu_s", "s"),
)
THEIRS = (Figure("written_s", "s"), Figure("northd_cpu_s", "s"))
LINE, CHANGED = "addresses: [10.0.7.10]", "addresses: [10.0.7.210]"
TIMEOUT_S = 600.0


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


async def measure_ovn(state: PoolState) -> dict[str, float]:
    """The same pool in OVN, from nothing to a changed line. state: what the document comes to."""
    operations = [one for group in switches(state.networks.values(), state.vifs.values()) for one in group]
    (changed,) = (vif for vif in state.vifs.values() if vif.network == "net7" and vif.addresses == ("10.0.7.10",))
    new = port(replace(changed, addresses=("10.0.7.210",)), "").row
    change = Update(
        "Logical_Switch_Port", (("name", "==", changed.id),), {k: new[k] for k in ("addresses", "port_security")}
    )
    with run_dir() as directory, Central(directory) as central:
        async with OvsdbClient(central.sb.remote, SOUTHBOUND) as sb:
            await write(sb, chassis(state.hosts.values()))
        central.start_northd()
        async with central.northbound() as nb:
            await nb.settled()
            cpu, northd = [central.cpu_s()], [central.spent()["northd"].cpu_s]
            start = time.monotonic()
            await nb.client.transact(*operations, timeout_s=TIMEOUT_S)
            written_s = time.monotonic() - start
            await nb.settled(timeout_s=TIMEOUT_S)
            apply_s = time.monotonic() - start
            cpu.append(central.cpu_s())
            northd.append(central.spent()["northd"].cpu_s)
            start = time.monotonic()
            await nb.settled(change, timeout_s=TIMEOUT_S)
            change_s = time.monotonic() - start
            cpu.append(central.cpu_s())
            spent = central.spent()
    return {
        "apply_s": apply_s,
        "written_s": written_s,
        "change_s": change_s,
        "change_apply_s": change_s,
        "apply_cpu_s": cpu[1] - cpu[0],
        "change_cpu_s": cpu[2] - cpu[1],
        "northd_cpu_s": northd[1] - northd[0],
        "controller_MB": spent["northd"].resident_mb,
        "database_MB": spent["nb"].resident_mb + spent["sb"].resident_mb,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--systems", nargs="+", choices=["vnet", "OVN"], default=["vnet", "OVN"])
    options = parser.parse_args()
    state = desired_state(load(document().encode(), NAME), PoolState())
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in options.systems}

    def measured(name: str) -> dict[str, float]:
        samples[name].append(measure() if name == "vnet" else asyncio.run(measure_ovn(state)))
        return samples[name][-1]

    work = f"{HOSTS:,} hosts, {NETWORKS:,} networks, {VMS:,} VIFs"
    results = [compare(f"apply: {work}", {name: partial(measured, name) for name in samples}, FIGURES, options.runs)]
    results += [
        alone(name, figures, samples[name]) for name, figures in (("vnet", OURS), ("OVN", THEIRS)) if name in samples
    ]
    report(results, options.json)


if __name__ == "__main__":
    main()
