"""The pool's own daemons in a lab: one controller with its database, one agent per host. The same that production runs.

Agents reach the database over a management network of its own (TCP), so that a host can be cut off from it; on the dummy
driver, which has no networks, over its unix socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from ovsctl.ovsdb import Mutate
from vnet.db.changes import state_changes
from vnet.db.database import PoolDatabase
from vnet.db.view import PoolView
from vnet.db.writes import configuration_write
from vnet.lab import links
from vnet.lab.errors import LabError, LabUnsupported
from vnet.lab.names import CONTROLLER_ADDRESS, MARK, NETNS_DIR, POOL_PORT, host_netns, underlay_netns, wireguard_netns
from vnet.lab.packet_bridge_client import ROOT
from vnet.lab.preload import Preloaded
from vnet.lab.processes import alive, command_of, inside, prefer, run, start, start_time, stop, wait_until
from vnet.lab.spec import Driver, Spec
from vnet.lab.switchd import REAL_TIME, Switchd, tool_path
from vnet.objects import PoolState

FORK = "VNET_LAB_FORK"  # environment variable: daemons that a process starts again in its lab are forked, as its first ones
READY_TIMEOUT_S = 60.0  # only names a failure
CONTROLLER = "controller"


def wireguard_of(host: str) -> str:
    """The name of a host's WireGuard service among the daemons."""
    return f"{host} wireguard"


R = TypeVar("R")
_PRELOADED = Preloaded()


def call_async(work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """The result of a coroutine, on a loop of its own, also where the caller's thread has one that runs."""
    results: list[R] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Daemons:
    """The controller and the agents of a lab."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._preloaded: Preloaded | None = None

    @property
    def dir(self) -> Path:
        return self.spec.dir / "pool"

    @property
    def pool_socket(self) -> Path:
        return self.dir / "pool.sock"

    @property
    def controller_socket(self) -> Path:
        return self.dir / "controller.sock"

    @property
    def env(self) -> dict[str, str]:
        """The environment by which `vnet` commands reach this lab's controller, with the lab's mark."""
        return {
            "VNET_CONTROLLER": f"unix:{self.controller_socket}",
            "PYTHONPATH": str(ROOT),
            "PATH": tool_path(),
            MARK: str(self.spec.dir),
        }

    def agent_socket(self, host: str) -> Path:
        return self.spec.host_dir(host) / "agent.sock"

    def wireguard_dir(self, host: str) -> Path:
        return self.spec.host_dir(host) / "wireguard"

    def start_wireguard(self, host: str, ovs: Switchd) -> None:
        """Start a host's WireGuard service, where there are network namespaces."""
        directory, name = self.wireguard_dir(host), wireguard_netns(self.spec.name, host)
        names = ["--netns", name, "--prefix", f"wg{sha256(name.encode()).hexdigest()[:10]}"]
        args = ["wireguard", "--dir", str(directory), "--keys", str(directory / "keys"), *names]
        directory.mkdir(exist_ok=True)
        netns = host_netns(self.spec.name, host)
        pid = self._start(wireguard_of(host), netns, [*args, "--ovs-rundir", str(ovs.dir)])
        # What it starts carries frames, as ovs-vswitchd does, where the kernel has no WireGuard.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(REAL_TIME["ovs-vswitchd"]))

    def crash_wireguard(self, host: str) -> None:
        """End a host's WireGuard service and all that it has made, but for its keys: the rest is in memory."""
        self.kill(wireguard_of(host))
        devices = wireguard_netns(self.spec.name, host)
        for process in inside([host_netns(self.spec.name, host)]):
            if command_of(process).startswith("wireguard"):
                stop([process])
        links.remove(devices)
        for path in self.wireguard_dir(host).glob("*.json"):
            path.unlink()

    # -- processes; `name` is 'controller' or a host's

    def _record(self, name: str) -> Path:
        if name == CONTROLLER:
            return self.dir / "daemon.json"
        return self.spec.host_dir(name.partition(" ")[0]) / ("wireguard.json" if " " in name else "daemon.json")

    def log(self, name: str) -> Path:
        log = "controller.log" if name == CONTROLLER else "wireguard.log" if " " in name else "agent.log"
        return self._record(name).with_name(log)

    def pid(self, name: str) -> int:
        """The daemon's process id; 0 when it does not run."""
        try:
            pid, started = json.loads(self._record(name).read_text())
        except (FileNotFoundError, ValueError):
            return 0
        return pid if alive(pid) and start_time(pid) == started else 0

    @contextmanager
    def preloaded(self) -> Iterator[None]:
        """Inside, daemons are forked by one process that has loaded their code; outside, each loads its own, as hosts' do,
        unless FORK is in the environment."""
        self._preloaded = _PRELOADED
        try:
            yield
        finally:
            self._preloaded = _PRELOADED if FORK in os.environ else None

    def _start(self, name: str, netns: str | None, args: list[str]) -> int:
        if self._preloaded is not None:
            pid = self._preloaded.start(
                args, env=self.env, log=self.log(name), netns=NETNS_DIR / netns if netns else None
            )
            prefer(pid)
        else:
            command = [sys.executable, "-m", "vnet.cli.main", *args]
            pid = start(command, log=self.log(name), env=self.env, netns=netns)
        self._record(name).write_text(json.dumps([pid, start_time(pid)]))
        return pid

    def start_controller(self) -> None:
        """Start the controller, and with it the pool database, and wait until both answer."""
        netns = underlay_netns(self.spec.name) if self.spec.driver is Driver.NETNS else None
        self.dir.mkdir(exist_ok=True)
        listen = ["--listen", f"unix:{self.controller_socket}"]
        dirs = ["--run-dir", str(self.dir), "--state-dir", str(self.dir / "state")]
        # Nobody but the lab's hosts is on its management network, so that it does without TLS.
        tcp = ["--cleartext", "--pool-listen", f"ptcp:{POOL_PORT}:{CONTROLLER_ADDRESS}"] if netns else []
        pid = self._start(CONTROLLER, netns, ["controller", *dirs, *listen, *tcp])
        wait_until(self._controller_listens, "the controller", pid=pid, log=self.log(CONTROLLER))

    def _controller_listens(self) -> bool:
        """A controller that was killed has left its socket's file."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.controller_socket)) == 0

    def start_agent(self, host: str, ovs: Switchd, named: str | None = None, options: Sequence[str] = ()) -> None:
        """Start a host's agent, or on its machine one that is named as another host. It need not reach anything yet. options: further ones."""
        netns = host_netns(self.spec.name, host) if self.spec.driver is Driver.NETNS else None
        pool = (
            ["--cleartext", f"--pool=tcp:{CONTROLLER_ADDRESS}:{POOL_PORT}"]
            if netns
            else [f"--pool=unix:{self.pool_socket}"]
        )
        switch = ["--ovs-rundir", str(ovs.dir), "--ovs-db", ovs.db, "--datapath-type", ovs.datapath_type]
        own = ["--host", named or host, *pool, "--bridge", "br-int", "--socket", str(self.agent_socket(host))]
        own += ["--state-dir", str(self.spec.host_dir(host) / "state")]
        own += ["--wireguard-dir", str(self.wireguard_dir(host))]
        self._start(host, netns, ["agent", *own, *switch, *options])

    def kill(self, name: str, sig: int = signal.SIGKILL) -> None:
        """End the controller or a host's agent, as a crash by default."""
        if pid := self.pid(name):
            stop([pid], sig)

    def signal(self, name: str, sig: int) -> None:
        """Send a signal that a process outlives, as SIGSTOP and SIGCONT."""
        if not (pid := self.pid(name)):
            raise LabError(f"the daemon of {name} does not run")
        run(["kill", f"-{int(sig)}", str(pid)])

    # -- the pool database

    def write(self, pool: PoolState) -> None:
        """Fill the empty pool database with a pool, as applying its document does."""
        if pool.pool is None:
            raise LabUnsupported("a lab with daemons needs a pool with a name: set PoolState.pool")
        changes = state_changes(PoolState(), pool)

        async def work() -> None:
            database = PoolDatabase([f"unix:{self.pool_socket}"])
            await database.open()
            try:
                await database.write(configuration_write(changes, None))
            finally:
                await database.close()

        call_async(work)

    def settle(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every live agent has programmed the present contents of the database.

        It raises the pool's generation, as an apply without changes does: an agent acknowledges that only after all before it.
        """

        async def work() -> list[str]:
            database = PoolDatabase([f"unix:{self.pool_socket}"])
            await database.open()
            try:
                before = _generation(database.view())
                await database.transact(Mutate("Pool", (), [("generation", "+=", 1)]))
                await database.wait_for(lambda view: not _behind(view, before + 1), timeout_s)
                return _behind(database.view(), before + 1)
            finally:
                await database.close()

        if late := call_async(work):
            raise LabError(f"not within {timeout_s:.0f} s: agents of {', '.join(late)} have not programmed everything")

    def wait(self, condition: Callable[[PoolView], bool], expected: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once the pool database shows the condition. Raises LabError after `timeout_s`. expected: the condition in words."""

        async def work() -> bool:
            database = PoolDatabase([f"unix:{self.pool_socket}"])
            await database.open()
            try:
                return await database.wait_for(condition, timeout_s)
            finally:
                await database.close()

        if not call_async(work):
            raise LabError(f"not within {timeout_s:.0f} s: {expected}")


def _generation(view: PoolView) -> int:
    return view.state.pool.generation if view.state.pool else 0


def _behind(view: PoolView, generation: int) -> list[str]:
    """The live hosts that have not acknowledged a generation."""
    agents = view.state.agents
    return sorted(host for host in view.live if host in agents and agents[host].generation < generation)
