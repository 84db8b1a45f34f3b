"""The agent as a daemon: options in, an agent that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from importlib.metadata import version
from pathlib import Path

from vnet.agent.agent import Agent, Options
from vnet.agent.certificate_renewal import CertificateRenewal
from vnet.agent.host_claim import DisplacedAgent
from vnet.agent.local_api import LocalSocket
from vnet.agent.obstacles import obstacle
from vnet.compile import Switch
from vnet.util import logs
from vnet.util.service_status import LOOK_S, ServiceStatus
from vnet.util.transport import HOST, check_cleartext, tls_for

log = logging.getLogger(__name__)

YOUNG_OBJECTS = 10_000  # that the collector waits for; Python's 700 come with every other change


def main(
    *,
    host: str,
    pool: tuple[str, ...],
    ovs_db: str,
    ovs_rundir: str,
    bridge: str,
    datapath_type: str,
    socket: str,
    pki_dir: Path,
    state_dir: Path | None,
    cleartext: bool,
    renew_from: str | None = None,
) -> None:
    """Runs the agent until SIGTERM or SIGINT. Flows and rows stay as they are: packets do not notice.

    Raises TransportError where the pool database would be reached in cleartext, or the host has no certificate; BadRemote;
    OSError if it cannot listen on its socket.
    """
    check_cleartext(pool, cleartext)
    tls = tls_for(pool, pki_dir, HOST)
    logs.configure(host=host)
    if directory := os.path.dirname(socket):
        os.makedirs(directory, mode=0o750, exist_ok=True)
    gc.set_threshold(YOUNG_OBJECTS)
    switch = Switch(bridge, datapath_type)
    options = Options(host, pool, ovs_db, ovs_rundir, switch, version("vnet"), tls, state_dir)
    renewal = CertificateRenewal(host, renew_from, pki_dir) if renew_from is not None and tls is not None else None
    asyncio.run(_run(options, socket, renewal))


async def _run(options: Options, socket: str, renewal: CertificateRenewal | None) -> None:
    me = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, me.cancel if me else loop.stop)
    status = ServiceStatus()
    agent = Agent(options, now_ms, status.alive)
    log.info("agent started")
    try:
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(LocalSocket(agent, socket).run())
                    tasks.create_task(_keep(agent))
                    if renewal is not None:
                        tasks.create_task(renewal.run())
                    tasks.create_task(_tell(agent, status))
                    await agent.run()
            except* DisplacedAgent as displaced:
                log.error("begins anew and stands by: %s", displaced.exceptions[0])
                agent.copies.discard()
                agent = Agent(options, now_ms, status.alive)
            except* OSError as failed:
                raise failed.exceptions[0] from None
    except asyncio.CancelledError:
        log.info("agent stopped")


async def _tell(agent: Agent, status: ServiceStatus) -> None:
    """Has the service manager and the log know for ever whether the agent works, and what it waits for."""
    while True:
        status.show(obstacle(agent.facts), f"programs host {agent.me}, with {len(agent.bindings.ports.vifs)} VIFs here")
        if not agent.complete:  # there are no turns yet, and so nothing else that is alive
            status.alive()
        await asyncio.sleep(LOOK_S)


async def _keep(agent: Agent) -> None:
    """Has the collector pass over what the agent keeps for as long as it runs: it is most of what there is, and a plug would
    wait for it to be gone through."""
    await agent.revisions.reached(1)
    gc.collect()
    gc.freeze()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
