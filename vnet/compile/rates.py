"""Flows and meters of rate limits: the frames that a VIF may send and be sent, by its own QoS class and by its network's.

One rule: a meter that drops ends all that is left to do with a packet (dpif-netdev.c), so a frame on its way to a VIF is metered
in a copy: broadcast to others goes on (docs/adr/0011-a-copy-for-each-meter.md). A meter's number follows from the VIF's ofport, or the network's number, so that a rate
changes in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from ovsctl.openflow import Action, Band, Flow, Match, Meter
from ovsctl.openflow import actions as act
from vnet.compile.flows import ETH_IPV4, ETH_IPV6, IN_THE_DATAPATH, Actions, Entries, Fields, goto
from vnet.compile.inputs import LocalNetwork
from vnet.compile.l2 import BROADCAST, MULTICAST
from vnet.compile.pipeline import Category, Table, cookie, following
from vnet.compile.view import HostView, VifRole
from vnet.objects import QosClass, Vif
from vnet.objects.qos import DEFAULT_BURST_S, KBIT

# Meters have no cookie: those of ours are told by their numbers. An ofport has 16 bits, a network's number 24; two bits tell Limits apart.
OF_VIF, OF_NETWORK = 0x7600_0000, 0x7800_0000
OF_FLOODED = 0x7710_0000
OURS = range(OF_VIF, 0x7C00_0000)


class Limit(IntEnum):
    """A meter of a VIF or a network: the low bits of its number."""

    FROM_VM = 0
    TO_VM = 1
    PACKETS_FROM_VM = 2
    PACKETS_TO_VM = 3


class Flooded(IntEnum):
    """What of a VIF's frames is flooded, each with a meter: the low bits of its number."""

    BROADCAST = 0
    MULTICAST = 1
    UNKNOWN = 2


class Meters(NamedTuple):
    """The meters that frames from a VM pass, and those that frames to it pass."""

    from_vm: tuple[Meter, ...] = ()
    to_vm: tuple[Meter, ...] = ()


def rate_flows(view: HostView, vif_id: str, network_name: str) -> Entries:
    """The meters of a VIF's own QoS class, and its flows through them and through its network's."""
    vif = view.vif(vif_id, network_name)
    qos = view.qos_of(vif) if vif is not None else None
    if vif is None or qos is None:
        return ()
    network, ofport = view.network(network_name), view.ofport(vif)
    if network is None or network.segment is None or ofport is None:
        return ()
    if view.role(vif) not in (VifRole.ACTIVE, VifRole.INCOMING):
        return ()
    mark, own = cookie(Category.RATE, vif_id), _meters(qos, OF_VIF | ofport << 2)
    flows: list[Flow] = []
    for segment, shared in _shares(view, vif, network):
        priority = 100 if segment is None else 110
        match: Fields = {} if segment is None else {"metadata": segment}
        sent = (*_metered(own.from_vm), *_metered(shared.from_vm))
        received = (*_metered(own.to_vm), *_metered(shared.to_vm))
        flows += _from_vm(mark, priority, {"in_port": ofport} | match, sent, qos.dscp)
        flows += _to_vm(mark, priority, {"reg2": ofport} | match, received)
    storm = storm_meters(qos, ofport)
    return (*own.from_vm, *own.to_vm, *storm.values(), *flows, *_storm_flows(mark, ofport, storm))


def storm_meters(qos: QosClass, ofport: int) -> dict[Flooded, Meter]:
    """The meters of what a VIF may have flooded."""
    limits = {Flooded.BROADCAST: qos.broadcast, Flooded.MULTICAST: qos.multicast, Flooded.UNKNOWN: qos.unknown}
    return {
        flooded: Meter(OF_FLOODED | ofport << 2 | flooded, (_packet_band(rate),), packets=True)
        for flooded, rate in limits.items()
        if rate is not None
    }


def _packet_band(rate: float) -> Band:
    return Band(max(1, round(rate)), max(1, round(rate * DEFAULT_BURST_S)))


def _storm_flows(mark: int, ofport: int, storm: Mapping[Flooded, Meter]) -> Iterator[Flow]:
    own: Fields = {"in_port": ofport}
    if storm.keys() - {Flooded.UNKNOWN}:
        # Broadcast is multicast as well: it has a flow of its own where only that is limited.
        for priority, address, flooded in ((110, BROADCAST, Flooded.BROADCAST), (100, MULTICAST, Flooded.MULTICAST)):
            metered = _metered([storm[flooded]] if flooded in storm else [])
            yield _flow(mark, Table.STORM, priority, own | {"eth_dst": address}, *metered, goto(following(Table.STORM)))
    if Flooded.UNKNOWN in storm:
        yield _flow(mark, Table.UNKNOWN_RATE, 100, own, *_metered([storm[Flooded.UNKNOWN]]), goto(Table.UNKNOWN))


def network_rate_flows(view: HostView, name: str, _: str) -> Entries:
    """The meters of a network's QoS class, and the flows through them of VIFs without a class of their own."""
    network = view.network(name)
    if network is None or network.segment is None:
        return ()
    mark, shared = cookie(Category.NETWORK_RATE, name), _network_meters(view, network)
    if not (shared.from_vm or shared.to_vm):
        return ()
    match: Fields = {"metadata": network.segment}
    flows = [
        *_from_vm(mark, 50, match, _metered(shared.from_vm), None),
        *_to_vm(mark, 50, match, _metered(shared.to_vm)),
    ]
    return (*shared.from_vm, *shared.to_vm, *flows)


def _shares(view: HostView, vif: Vif, network: LocalNetwork) -> Iterator[tuple[int | None, Meters]]:
    """The segments that a VIF's frames are on, each with the meters of its network; None for any other segment."""
    yield None, Meters()
    found = [network.name]
    if vif.trunk is not None and network.uplink is not None:
        found += [net.name for net in view.uplink_networks(network.uplink) if net.tag and net.qos is not None]
    for name in found:
        carried = view.network(name)
        if carried is not None and carried.segment is not None and carried.qos is not None:
            yield carried.segment, _network_meters(view, carried)


def _network_meters(view: HostView, network: LocalNetwork) -> Meters:
    """This host's share of a network's limits: evenly by the hosts with VIFs of it."""
    qos = view.qos(network.qos) if network.qos is not None else None
    if qos is None:
        return Meters()
    return _meters(qos, OF_NETWORK | network.number << 2, len({view.me, *view.members(network.name)}))


def _meters(qos: QosClass, base: int, hosts: int = 1) -> Meters:
    def limited(bits: Limit, packets: Limit, rate_bps: int | None) -> Iterator[Meter]:
        if rate_bps is not None:
            band = Band(max(1, round(rate_bps / hosts / KBIT)), max(1, round(qos.burst_of(rate_bps) / hosts / KBIT)))
            yield Meter(base | bits, (band,))
        if qos.packets is not None:
            yield Meter(base | packets, (_packet_band(qos.packets / hosts),), packets=True)

    return Meters(
        tuple(limited(Limit.FROM_VM, Limit.PACKETS_FROM_VM, qos.from_vm)),
        tuple(limited(Limit.TO_VM, Limit.PACKETS_TO_VM, qos.to_vm)),
    )


def _metered(meters: Sequence[Meter]) -> Actions:
    return tuple(act.MeterAction(meter.meter_id) for meter in meters)


def _from_vm(mark: int, priority: int, match: Fields, metered: Actions, dscp: int | None) -> Iterator[Flow]:
    onward = goto(following(Table.FROM_RATE))
    yield _flow(mark, Table.FROM_RATE, priority, match, *metered, onward)
    for eth_type in (ETH_IPV4, ETH_IPV6) if dscp is not None else ():
        marked = act.SetField("ip_dscp", dscp or 0)
        yield _flow(mark, Table.FROM_RATE, priority + 5, match | {"eth_type": eth_type}, *metered, marked, onward)


def _to_vm(mark: int, priority: int, match: Fields, metered: Actions) -> Iterator[Flow]:
    onward = goto(following(Table.TO_RATE))
    if not metered:
        yield _flow(mark, Table.TO_RATE, priority, match, onward)
        return
    yield _flow(mark, Table.TO_RATE, priority, match, act.Clone(IN_THE_DATAPATH, goto(Table.TO_METER)))
    yield _flow(mark, Table.TO_METER, priority, match, *metered, onward)


def _flow(mark: int, table: Table, priority: int, match: Fields, *actions: Action) -> Flow:
    return Flow(table=table, priority=priority, cookie=mark, match=Match(**match), actions=actions)
