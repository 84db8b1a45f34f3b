"""The pool that runs, for questions: its state as the controller tells it, and its hosts' switches through the controller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vnet.cli.exits import CommandError, Exit
from vnet.objects import (
    Binding,
    BindingState,
    BondHash,
    BondMode,
    Host,
    LacpTime,
    LockingMode,
    Network,
    NetworkType,
    Owner,
    PoolState,
    SecurityGroup,
    Trunk,
    Uplink,
    Verdict,
    Vif,
    Vm,
)
from vnet.topology import Document, load

if TYPE_CHECKING:
    from vnet import api
    from vnet.client import Client
    from vnet.probe.live_trace import Answer, Ask, Question
    from vnet.probe.packet_injection import Outcome, Send, Shot
    from vnet.sim import SimPool


def running_state(client: Client) -> tuple[PoolState, Document]:
    """All that runs, the toolstack's as well as the document's, and the document for the places of what it made."""
    from vnet.plan import desired_state  # noqa: PLC0415 - help need not pay for it

    document = load(client.export().encode(), "the pool")
    state = desired_state(document, PoolState())
    # A VLAN network's key, subnets and expectations are not told by name; the document's own have been allocated alike.
    networks = {one.name: _network(one, state.networks.get(one.name)) for one in client.networks()}
    vifs = {one.id: _vif(one) for one in client.vifs()}
    bindings = {
        (one.vif, one.host): _binding(one, vifs[one.vif])
        for one in client.bindings()
        if one.vif in vifs and one.network in networks
    }
    running = replace(
        state,
        hosts={one.name: _host(one) for one in client.hosts()},
        networks=networks,
        vms={one.name: Vm(one.name, one.host, Owner(one.owner)) for one in client.vms()},
        vifs=vifs,
        bindings=bindings,
        groups={one.name: _group(one) for one in client.security_groups()},
    )
    return running, document


def twin_of_running(client: Client) -> SimPool:
    """The twin of the pool that runs, with every VIF where it is now."""
    from vnet.sim import SimPool  # noqa: PLC0415

    state, document = running_state(client)
    running = SimPool.of(state, claim=False)
    running.document = document
    return running


def asker(client: Client, wait_s: float) -> Ask:
    """Asks hosts what their switch would do, through the controller."""
    from vnet.api import ProbesCall  # noqa: PLC0415
    from vnet.client import NotFound  # noqa: PLC0415
    from vnet.probe.live_trace import Answer  # noqa: PLC0415

    def ask(questions: Sequence[Question]) -> list[Answer]:
        try:
            found = client.probe(ProbesCall(probes=[_probe(question) for question in questions], wait_s=wait_s))
        except NotFound as error:
            raise CommandError(f"the controller cannot ask hosts: {error}", Exit.FAILED) from None
        return [Answer(said.text, _numbered(said.vifs), _numbered(said.devices), said.problem) for said in found]

    return ask


def _probe(question: Question) -> api.ProbeCall:
    from vnet.api import ProbeCall, TunnelCall  # noqa: PLC0415

    tunnel = None
    if question.source:
        tunnel = TunnelCall(key=question.key, source=question.source, target=question.target)
    vif, device = question.vif or None, question.device or None
    tracked = list(question.tracked)
    return ProbeCall(
        host=question.host, frame=question.frame.hex(), vif=vif, device=device, tunnel=tunnel, tracked=tracked
    )


def sender(client: Client, wait_s: float) -> Send:
    """Sends marked packets through the controller."""
    from vnet.api import PacketCall, PacketsCall  # noqa: PLC0415
    from vnet.client import Invalid, NotFound  # noqa: PLC0415
    from vnet.probe.packet_injection import Outcome  # noqa: PLC0415

    def send(shots: Sequence[Shot]) -> tuple[list[Outcome], list[str]]:
        calls = [
            PacketCall(
                frame=shot.frame.hex(),
                vif=shot.vif,
                to=shot.to,
                round=shot.round,
                after=shot.after,
                expect=list(shot.expect),
            )
            for shot in shots
        ]
        try:
            said = client.packets(PacketsCall(packets=calls, wait_s=wait_s))
        except (Invalid, NotFound) as error:  # the pool has changed since it was read
            return [Outcome(False, str(error), (), (), False) for _ in shots], []
        if said.left_off:  # what is not told cannot be told from what was lost
            why = f"hosts saw it {said.left_off} times more often than they tell"
            return [Outcome(False, why, (), (), False) for _ in shots], []
        return [_outcome(packet) for packet in said.packets], said.problems

    return send


def _outcome(packet: api.Packet) -> Outcome:
    from vnet.probe.live_trace import Came  # noqa: PLC0415
    from vnet.probe.packet_injection import Outcome  # noqa: PLC0415

    came, caught = (tuple(Came(one.host, one.where) for one in found) for found in (packet.came, packet.caught))
    changed = any(one.changed for one in (*packet.came, *packet.caught))
    return Outcome(packet.sent, packet.why, came, caught, changed)


def _numbered(ports: dict[str, str]) -> dict[int, str]:
    return {int(number): name for number, name in ports.items() if number.isdecimal()}


def _host(one: api.Host) -> Host:
    uplinks = tuple(
        Uplink(
            uplink.name,
            tuple(uplink.members),
            BondMode(uplink.mode) if uplink.mode is not None else None,
            LacpTime(uplink.lacp_time),
            BondHash(uplink.hash),
            uplink.mtu,
        )
        for uplink in one.uplinks
    )
    return Host(one.name, one.address, uplinks, Owner(one.owner))


def _network(one: api.Network, known: Network | None) -> Network:
    key = one.key if one.key is not None or known is None else known.key
    tag = 0 if one.tag == "untagged" else one.tag
    kind = NetworkType(one.type)
    return Network(one.name, kind, one.number, one.mtu, key, tag, one.uplink, frozenset(one.hosts), Owner(one.owner))


def _group(one: api.SecurityGroup) -> SecurityGroup:
    from vnet.controller.security_groups import rule_of  # noqa: PLC0415

    rules = tuple(map(rule_of, one.rules))
    return SecurityGroup(one.name, one.number, Verdict(one.ingress), Verdict(one.egress), rules, Owner(one.owner))


def _vif(one: api.Vif) -> Vif:
    trunk = None if one.trunk is None else Trunk() if one.trunk == "all" else Trunk(tuple(one.trunk))
    return Vif(
        id=one.id,
        network=one.network,
        mac=one.mac,
        vm=one.vm,
        index=one.index,
        addresses=tuple(one.addresses),
        locking_mode=LockingMode(one.locking_mode),
        trunk=trunk,
        host=one.host,
        incoming=one.incoming,
        owner=Owner(one.owner),
        groups=tuple(one.security_groups),
        awaited=one.awaited,
    )


def _binding(one: api.Binding, vif: Vif) -> Binding:
    unlocked = vif.locking_mode is LockingMode.UNLOCKED
    state, addresses = BindingState(one.state), tuple(one.addresses)
    return Binding(
        vif=one.vif,
        host=one.host,
        network=one.network,
        mac=one.mac,
        epoch=one.epoch,
        state=state,
        addresses=addresses,
        unlocked=unlocked,
        ready=one.ready,
        groups=tuple(one.security_groups),
        moved=one.moved,
        ofport=one.ofport or 0,
    )
