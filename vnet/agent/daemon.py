"""The agent as a daemon: options in, agents that run until they are told to stop. One on its own host; or several of other hosts.

One rule: an agent that fails takes none of the others with it. Alone, it ends, and the service manager starts it anew.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ovsctl.openflow.listener import OpenFlowListener
from ovsctl.ovsdb import Remote, Tls, certified_names, check_passive
from vnet import VERSION
from vnet.agent.accounting import WRITE_S
from vnet.agent.agent import Agent, AgentOptions, PoolLost
from vnet.agent.host_claim import DisplacedAgent
from vnet.agent.http_door import MetricsPort
from vnet.agent.local_api import LocalSocket
from vnet.agent.obstacles import obstacle
from vnet.agent.switch_access import Doorway
from vnet.compile import Switch
from vnet.util import logs
from vnet.util.repeated_lines import RepeatedLines
from vnet.util.service_status import LOOK_S, Obstacle, ServiceStatus
from vnet.util.transport import HOST, SERVER, TransportError, check_cleartext, tls_for

if TYPE_CHECKING:
    from vnet.agent.certificate_renewal import CertificateRenewal

log = logging.getLogger(__name__)
refusals = logging.getLogger("vnet.agent.refusals")

YOUNG_OBJECTS = 10_000  # that the collector waits for; Python's 700 come with every other change
FAILED_AGENT_S = 1.0


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """How the daemon is run, as `vnet agent --help` says. hosts: each with its switch's database. openflow: where their bridges connect to; "" for the
    agent of this machine."""

    hosts: Sequence[tuple[str, str]]
    pool: tuple[str, ...]
    ovs_rundir: str
    bridge: str
    datapath_type: str
    socket: str
    pki_dir: Path
    switch_pki_dir: Path
    state_dir: Path | None
    cleartext: bool
    openflow: str = ""
    renew_from: str | None = None
    wireguard: Path | None = None
    metrics: str | None = None
    metrics_token_file: Path | None = None
    hello_s: float = 1.0
    account_s: float = WRITE_S

    def pki_of(self, host: str) -> Path:
        return self.pki_dir / host if self.openflow else self.pki_dir

    def socket_of(self, host: str) -> str:
        """Beside that of an agent of this machine."""
        stem, suffix = os.path.splitext(self.socket)
        return f"{stem}-{host}{suffix}" if self.openflow else self.socket


class HostRunner:
    """Runs the agent of one host, anew where it has to begin anew."""

    def __init__(
        self,
        options: AgentOptions,
        socket: str,
        pki_dir: Path,
        renewal: CertificateRenewal | None = None,
        metrics: MetricsPort | None = None,
    ) -> None:
        self.options: Final = options
        self._socket: Final = socket
        self._pki_dir: Final = pki_dir
        self._renewal: Final = renewal
        self._metrics: Final = metrics
        self.agent = Agent(options, now_ms)

    async def run(self) -> None:
        """Until cancelled. Raises OSError if it cannot listen on its socket."""
        logs.within(host=self.options.host)
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(LocalSocket(self.agent, self._socket, self._pki_dir).run())
                    if self._metrics is not None:
                        tasks.create_task(self._metrics.run(self.agent, self._pki_dir))
                    tasks.create_task(_keep(self.agent))
                    if self._renewal is not None:
                        tasks.create_task(self._renewal.run())
                    await self.agent.run()
            except* DisplacedAgent as displaced:
                log.error("begins anew and stands by: %s", displaced.exceptions[0])
                self.agent.copies.discard()
            except* PoolLost:
                log.warning("begins anew: the pool database was lost before all that this host needs had come")
            except* OSError as failed:
                raise failed.exceptions[0] from None
            self.agent = Agent(self.options, now_ms)

    async def run_always(self) -> None:
        """Like `run`, and begins anew after whatever else goes wrong, for other hosts' agents run beside it."""
        while True:
            try:
                await self.run()
            except Exception:
                log.exception("the agent of host %s failed: it begins anew in %g s", self.options.host, FAILED_AGENT_S)
                await asyncio.sleep(FAILED_AGENT_S)
                self.agent = Agent(self.options, now_ms)


def main(options: DaemonOptions) -> None:
    """Runs the agents until SIGTERM or SIGINT. Flows and rows stay as they are: packets do not notice.

    Raises TransportError where a database, a switch or metrics would be reached in cleartext, or there is no certificate; BadRemote;
    OSError if it cannot listen.
    """
    remotes = [ovs_db for _, ovs_db in options.hosts]
    check_cleartext([*options.pool, *remotes, options.openflow], options.cleartext)
    logs.configure()
    refusals.addFilter(RepeatedLines())
    if directory := os.path.dirname(options.socket):
        os.makedirs(directory, mode=0o750, exist_ok=True)
    gc.set_threshold(YOUNG_OBJECTS)
    identity = tls_for([*remotes, options.openflow], options.switch_pki_dir, SERVER)
    agents = [_agent_options(options, host, remote, identity) for host, remote in options.hosts]
    if options.metrics is not None and len(agents) > 1:
        raise TransportError("--metrics is for one host: those of several are read at their sockets (docs/remote.md)")
    metrics = (
        MetricsPort(options.metrics, options.pki_dir, options.metrics_token_file)
        if options.metrics is not None
        else None
    )
    asyncio.run(_run(agents, options, identity, metrics))


def _agent_options(options: DaemonOptions, host: str, ovs_db: str, identity: Tls | None) -> AgentOptions:
    """The options of one host's agent; without a doorway, which is opened later."""
    return AgentOptions(
        host,
        options.pool,
        ovs_db,
        options.ovs_rundir,
        Switch(options.bridge, options.datapath_type),
        VERSION,
        tls_for(options.pool, options.pki_of(host), HOST),
        # A copy may be older than what an agent elsewhere has done since, and the host keeps its flows anyway.
        None if options.openflow else options.state_dir,
        None if options.openflow else options.wireguard,
        hello_s=options.hello_s,
        account_s=options.account_s,
        ovs_tls=replace(identity, peer=host if options.openflow else "") if identity is not None else None,
    )


def _listener(passive: str, identity: Tls | None) -> OpenFlowListener:
    """Listens at ptcp:PORT[:IP] or pssl:PORT[:IP]. Raises BadRemote, TransportError."""
    check_passive(passive)
    method, port, address = (*passive.split(":", 2), "")[:3]
    if method == "punix":
        raise TransportError(f"--openflow {passive}: switches of other machines connect by pssl: or ptcp:")

    def refused(peer: str, reason: str) -> None:
        refusals.warning("a switch at %s is refused: %s", peer, reason)

    tls = identity.server_context if identity is not None and method == "pssl" else None
    return OpenFlowListener(int(port), address.strip("[]"), tls=tls, names=certified_names, on_refused=refused)


def _target(listener: OpenFlowListener, passive: str, ovs_db: str) -> str:
    """Where a host's bridges reach this machine: at the address that is given, or the one by which it reaches the host's database. Raises OSError."""
    method, _, address = (*passive.split(":", 2), "")[:3]
    if not address:
        to = Remote.parse(ovs_db)
        family, _, _, _, there = socket.getaddrinfo(to.host or "localhost", to.port or 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(there)  # of UDP: nothing is sent
            address = probe.getsockname()[0]
    shown = f"[{address}]" if ":" in address and not address.startswith("[") else address
    return f"{method.removeprefix('p')}:{shown}:{listener.port}"


async def _run(
    agents: Sequence[AgentOptions], options: DaemonOptions, identity: Tls | None, metrics: MetricsPort | None
) -> None:
    me = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, me.cancel if me else loop.stop)
    try:
        async with AsyncExitStack() as stack:
            if options.openflow:
                listener = await stack.enter_async_context(_listener(options.openflow, identity))
                agents = [
                    replace(each, doorway=Doorway(listener, _target(listener, options.openflow, each.ovs_db)))
                    for each in agents
                ]
            runners = [
                HostRunner(
                    each, options.socket_of(each.host), options.pki_of(each.host), _renewal(options, each), metrics
                )
                for each in agents
            ]
            log.info("agent started")
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_tell(runners, ServiceStatus()))
                    for runner in runners:
                        tasks.create_task(runner.run() if len(runners) == 1 else runner.run_always())
            except* OSError as failed:
                raise failed.exceptions[0] from None
    except asyncio.CancelledError:
        log.info("agent stopped")


def _renewal(options: DaemonOptions, agent: AgentOptions) -> CertificateRenewal | None:
    if options.renew_from is None or agent.tls is None:
        return None
    from vnet.agent.certificate_renewal import CertificateRenewal  # noqa: PLC0415 - loads an HTTP library

    return CertificateRenewal(agent.host, options.renew_from, options.pki_of(agent.host))


async def _tell(runners: Sequence[HostRunner], status: ServiceStatus) -> None:
    """Has the service manager and the log know for ever whether the agents work, and what they wait for. It runs in their loop: while it does, so do they."""
    while True:
        status.show(*_state([runner.agent for runner in runners]))
        status.alive()
        await asyncio.sleep(LOOK_S)


def _state(agents: Sequence[Agent]) -> tuple[Obstacle | None, str]:
    """The first obstacle, and in words what works. Of several hosts one that waits does not keep the others from their work."""
    found = [(agent, obstacle(agent.facts)) for agent in agents]
    vifs = sum(len(agent.bindings.ports.vifs) for agent in agents)
    if len(agents) == 1:
        agent, first = found[0]
        return first, f"programs host {agent.me}, with {vifs} VIFs here"
    waiting = [(agent.me, each) for agent, each in found if each is not None]
    if not waiting:
        return None, f"programs {len(agents)} hosts, with {vifs} VIFs there"
    host, first = waiting[0]
    more = f" (and {len(waiting) - 1} more hosts wait)" if len(waiting) > 1 else ""
    return replace(first, text=f"host {host}: {first.text}{more}", works=len(waiting) < len(agents)), ""


async def _keep(agent: Agent) -> None:
    """Has the collector pass over what the agent keeps for as long as it runs: it is most of what there is, and a plug would
    wait for it to be gone through."""
    await agent.revisions.reached(1)
    gc.collect()
    gc.freeze()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
