"""A document's expectations, tried with conversations between the VIFs of a lab, and judged as the twin judges them."""

from __future__ import annotations

from dataclasses import replace

from vnet.lab.conversations import LabConversation, play
from vnet.lab.lab import Lab
from vnet.objects import Expectation, PoolState, Protocol, Vm
from vnet.sim.errors import UnknownName
from vnet.sim.fabric import Fabric
from vnet.topology.document import Document
from vnet.verify.expectations import NO_UPLINK, Evidence, Result, Side, ends_of, judge, pairs_of, service_of

_Pair = tuple[str | None, str | None, Protocol, int]  # ids of VIFs, None for outside


def check(lab: Lab, document: Document) -> list[Result]:
    """Every expectation of a document, in its order. 'outside' is a station on the network of the other side."""
    twin = _names(lab)
    pairs: dict[_Pair, tuple[Side, Side]] = {}
    for spec in document.expectations:
        try:
            for sources, targets in pairs_of(twin, spec):
                pairs |= {_pair(a, b, spec): (a, b) for a in sources for b in targets}
        except UnknownName:
            continue  # `judge` reports it
    talks: dict[_Pair, LabConversation | None] = {}
    for pair, (source, target) in pairs.items():
        ends = ends_of(twin, source, target)
        runs = all(twin.runs_on(side) is not None for side in (source, target) if side is not None)
        talks[pair] = LabConversation(*ends, *pair[2:]) if ends is not None and runs else None
    for station in twin.stations:
        lab.station(station.uplink, station.tag)
    play(lab, [talk for talk in talks.values() if talk is not None])
    witness = LabWitness(talks)
    return [judge(twin, document, spec, witness) for spec in document.expectations]


def _pair(source: Side, target: Side, spec: Expectation) -> _Pair:
    ids = [side.id if side is not None else None for side in (source, target)]
    return ids[0], ids[1], *service_of(spec)


def _names(lab: Lab) -> Fabric:
    """The twin of the lab as it runs, for names and places only: no packet passes it."""
    spec, status = lab.spec, lab.wires.call("status")["vifs"]
    hosts = {guest.name: next((status[vif.id]["host"] for vif in guest.vifs), None) for guest in spec.guests}
    vifs = {vif.id: replace(vif, host=None) for guest in spec.guests for vif in guest.vifs}
    return Fabric(
        PoolState(
            hosts={host.name: host for host in spec.hosts},
            networks={network.name: network for network in spec.networks},
            vms={guest.name: Vm(guest.name, hosts[guest.name]) for guest in spec.guests},
            vifs=vifs,
            groups={group.name: group for group in spec.groups},
            address_sets={found.name: found for found in spec.address_sets},
        )
    )


class LabWitness:
    """Answers from the conversations that a lab played."""

    def __init__(self, talks: dict[_Pair, LabConversation | None]) -> None:
        self._talks = talks

    def reaches(self, source: Side, target: Side, spec: Expectation) -> bool:
        talk = self._talks[_pair(source, target, spec)]
        return talk is not None and talk.trace.reached

    def explain(self, source: Side, target: Side, spec: Expectation) -> tuple[str, Evidence | None]:
        talk = self._talks[_pair(source, target, spec)]
        if talk is not None:
            return "", talk.trace
        return NO_UPLINK if None in (source, target) else "one of them does not run", None
