"""Faults and changes at random, by a seed: what must hold in each round, and what after the last.

In a round one or two faults happen, a change is made in their midst, and what broke is mended. VIFs that none of it concerns
have streams between them, which lose nothing; those whose host's ovs-vswitchd or underlay was away go on as soon as it is back.
At the end every host holds what a fresh compile of the database says, and every VM is reached where it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ovsctl.ovsdb import OvsdbClient
from tests.chaos.toolstack import Toolstack
from tests.vnet.converged import wait_converged
from tests.vnet.faults import Cut, Fault, How, Part, ProcessFault
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.db.rows import SCHEMA_NAME
from vnet.lab import Driver, Lab
from vnet.lab.streams import RunningStream
from vnet.objects import Pool, PoolState, Vif, Vm

KINDS = ("vx", "vlan")
A, B, C = HOSTS
PATHS = [("vx", A, B), ("vx", C, A), ("vlan", B, C), ("vlan", A, B)]
MOVERS = {"mover1": A, "mover2": B, "mover3": None}
HOLD_S = (0.0, 0.1, 0.5)
LONG_HOLD_S = (*HOLD_S, 2.0, 7.0)  # longer than the 5 s after which connections are probed
# As a host's network devices come and go, ovs-vswitchd reads the kernel's routes anew, and till it has them its userspace
# tunnels neither send nor receive for some milliseconds. It does so with no agent running; VLAN networks do not notice.
GLITCH_FRAMES = 50
CONVERGE_IN = 4  # one round in so many waits till all is as it should be; the others go on at once


FAULTS: tuple[Fault, ...] = (
    *(ProcessFault(Part.AGENT, how, host) for how in How for host in HOSTS),
    *(ProcessFault(Part.VSWITCHD, how, host) for how in How for host in HOSTS),
    *(ProcessFault(part, how) for how in How for part in (Part.CONTROLLER, Part.DATABASE) for _ in HOSTS),
    *(Cut(host, what) for host in HOSTS for what in ("underlay", "database")),
)


def concerns(fault: Fault, kind: str, ends: tuple[str, str]) -> bool:
    """Whether a fault may cost packets between these hosts on a network of this kind."""
    if isinstance(fault, Cut):
        return fault.what == "underlay" and kind == "vx" and fault.host in ends
    return fault.part is Part.VSWITCHD and fault.host in ends


def pick_faults(rng: random.Random) -> list[Fault]:
    """One fault or two, of different processes; mended in this order: the controller starts a dead database, and starts itself
    only once one that stands still goes on."""
    found = {str(fault).rpartition(" ")[0]: fault for fault in rng.sample(FAULTS, rng.choice((1, 1, 2)))}
    order = {(Part.DATABASE, How.STOPPED): -1, (Part.DATABASE, How.KILLED): 1}
    return sorted(found.values(), key=lambda f: order.get((f.part, f.how), 0) if isinstance(f, ProcessFault) else 0)


def pool() -> PoolState:
    """On each network a VIF on each host that stays, and three VMs with a VIF on each that do not."""
    vms = {f"{kind}-{host}": Vm(f"{kind}-{host}", host) for kind in KINDS for host in HOSTS}
    vms |= {name: Vm(name, host) for name, host in MOVERS.items()}
    vifs = [
        Vif(f"{kind}-{host}/0", kind, f"0a:00:00:0{k}:00:0{h}", vm=f"{kind}-{host}", host=host, addresses=(f"10.{k}.0.{h}",))
        for k, kind in enumerate(KINDS, 1) for h, host in enumerate(HOSTS, 1)
    ] + [
        Vif(f"{name}/{k - 1}", kind, f"0a:00:00:0{k}:00:1{m}", vm=name, index=k - 1, host=host, addresses=(f"10.{k}.0.1{m}",))
        for k, kind in enumerate(KINDS, 1) for m, (name, host) in enumerate(MOVERS.items(), 1)
    ]  # fmt: skip
    networks = {kind: NETWORKS[kind] for kind in KINDS}
    return PoolState(Pool("chaos", underlay_mtu=1600), HOSTS, networks, {}, vms, {vif.id: vif for vif in vifs})


def run(name: str, rounds: int, seed: int, *, long: bool = False, say: Callable[[str], None] = print) -> None:
    """A lab of its own, that many rounds. Raises AssertionError with the round and what was done in it."""
    with Lab.up(pool(), name=name, driver=Driver.NETNS, daemons=True) as lab:
        lab.start_all()
        asyncio.run(_rounds(lab, rounds, random.Random(seed), LONG_HOLD_S if long else HOLD_S, say))


async def _rounds(
    lab: Lab, rounds: int, rng: random.Random, holds: tuple[float, ...], say: Callable[[str], None]
) -> None:
    remote = f"unix:{lab.daemons.pool_socket}"
    async with OvsdbClient([remote], SCHEMA_NAME, connect_timeout_s=None) as client:
        vifs = {name: [vif for vif in pool().vifs.values() if vif.vm == name] for name in MOVERS}
        toolstack = Toolstack(lab, client, rng, vifs, dict(MOVERS))
        for number in range(1, rounds + 1):
            faults, hold_s = pick_faults(rng), rng.choice(holds)
            told, change = toolstack.pick()
            text = f"round {number}: {', '.join(map(str, faults))} for {hold_s} s; {told}"
            say(text)
            try:
                toolstack.touched.clear()
                later = asyncio.ensure_future(_later(change, rng.choice((0.0, 0.05, 0.2))))
                await _round(lab, faults, hold_s, later, toolstack.touched)
                if number == rounds or rng.randrange(CONVERGE_IN) == 0:
                    await asyncio.to_thread(wait_converged, lab)
            except BaseException as error:
                error.add_note(text)
                raise
    await asyncio.to_thread(check_reach, lab, toolstack)


async def _later(change: Callable[[], asyncio.Future[None]], after_s: float) -> None:
    await asyncio.sleep(after_s)
    await change()


async def _round(lab: Lab, faults: list[Fault], hold_s: float, change: asyncio.Future[None], touched: set[str]) -> None:
    with contextlib.ExitStack() as stack:
        running: dict[tuple[str, str, str], RunningStream] = {
            (kind, source, to): stack.enter_context(lab.stream(f"{kind}-{source}/0", f"{kind}-{to}/0"))
            for kind, source, to in PATHS
        }
        try:
            for fault in faults:
                await asyncio.to_thread(fault.break_, lab)
            await asyncio.sleep(hold_s)
        finally:
            for fault in faults:
                await asyncio.to_thread(fault.mend, lab)
        by_receiver = {key: (stream, f"{key[0]}-{key[2]}/0") for key, stream in running.items()}
        whole = await asyncio.to_thread(go_on, by_receiver)
        await change
        await asyncio.to_thread(wait_sent, by_receiver, whole)
    for (kind, source, to), stream in running.items():
        got = stream.report.at(f"{kind}-{to}/0")
        excused = any(concerns(fault, kind, (source, to)) for fault in faults)
        lost = [n for n in got.lost_numbers if not excused or n >= whole[kind, source, to]]
        allowed = GLITCH_FRAMES if kind == "vx" and touched & {source, to} else 0
        late = f"the latest took {got.worst_latency_ms:.0f} ms"
        text = f"{kind} from {source} to {to}: lost {len(lost)} of {len(stream.report.sent)}, {lost[:1]} to {lost[-1:]}, {late}"
        assert len(lost) <= allowed, text
        assert got.duplicated == 0, f"{kind} from {source} to {to}: {got.duplicated} doubled"


def check_reach(lab: Lab, toolstack: Toolstack) -> None:
    """Each VM is reached by those that stay, once, if it runs, and not where it is not.

    Who was plugged elsewhere before and has sent nothing since is where the physical switches remember it: those speak first.
    """
    lab.introduce(*sorted(toolstack.silent))
    for vm, host in sorted(toolstack.where.items()):
        for vif in toolstack.vifs[vm]:
            for source in HOSTS:
                sender = lab.vif(f"{vif.network}-{source}/0")
                addresses = IP(src=sender.addresses[0], dst=vif.addresses[0])
                packet = Ether(src=sender.mac, dst=vif.mac) / addresses / UDP(sport=9, dport=9) / Raw(b"chaos")
                got = lab.send(f"{vif.network}-{source}/0", packet, settle_s=0.3).to
                want = [lab.label(vif)] if host is not None else []
                assert [who for who in got if who == lab.label(vif)] == want, f"{source} to {vif.id} on {host}: {got}"
