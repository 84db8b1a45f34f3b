"""Reachability, measured: one frame from every VIF to every other, and its receivers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from vnet.lab.lab import Lab
from vnet.lab.streams import UDP_PORT, ip_ends, packet_between
from vnet.objects import AddressSet, Direction, LockingMode, Protocol, Trunk, Verdict, Vif, Way
from vnet.objects.labels import NETWORK, as_remotes
from vnet.objects.security import Begun, judge
from vnet.objects.tiers import applied, obeyed

MARK = b"vnet-matrix:"
FIRST_PORT = 20_000  # that VIFs send from, each from its own
Pair = tuple[str, str]


class Reached(Enum):
    """The fate of a frame from one VIF to another."""

    NOT = "not"
    ONCE = "once"
    DOUBLED = "doubled"


@dataclass(frozen=True, slots=True)
class Matrix:
    """VIFs as 'web1/0', in order; the fate of each pair's frame. strays: how many frames others received, by receiver."""

    vifs: tuple[str, ...]
    reached: Mapping[Pair, Reached]
    strays: Mapping[str, int]

    def reaches(self, pair: Pair) -> bool:
        return self.reached[pair] is not Reached.NOT


def measure(lab: Lab, vifs: Iterable[Vif] | None = None) -> Matrix:
    """Send a frame between every two of these VIFs (all that run, if none are given) and record its receivers."""
    chosen = list(vifs) if vifs is not None else running_vifs(lab)
    names = [lab.label(vif) for vif in chosen]
    reached: dict[Pair, Reached] = {}
    strays: Counter[str] = Counter()
    for port, source in enumerate(chosen, FIRST_PORT):
        others = [vif for vif in chosen if vif is not source]
        found = lab.send(lab.label(source), [_frame(source, to, lab, port) for to in others])
        here: Counter[str] = Counter()
        for item in found:
            _, _, text = item.frame.partition(MARK)
            meant = text.partition(b";")[0].decode(errors="replace")
            (here if item.to == meant else strays)[item.to] += 1
        for to in others:
            count = here[lab.label(to)]
            outcome = Reached.NOT if not count else Reached.ONCE if count == 1 else Reached.DOUBLED
            reached[lab.label(source), lab.label(to)] = outcome
    return Matrix(tuple(names), reached, strays)


def running_vifs(lab: Lab) -> list[Vif]:
    """The VIFs of the VMs that run, in the document's order."""
    state = lab.wires.call("status")["vifs"]
    return [vif for guest in lab.spec.guests for vif in guest.vifs if state[vif.id]["host"] is not None]


def expected(lab: Lab) -> dict[Pair, bool]:
    """The reachability that networks and security groups give: within a network, and where that is internal the same host. A
    trunk VIF is reached, with a tagged frame, from the VLANs that it carries."""
    state = lab.wires.call("status")["vifs"]
    vifs = running_vifs(lab)
    return {
        (lab.label(a), lab.label(b)): _share(lab, a, b, state[a.id]["host"] == state[b.id]["host"])
        and _may(lab, a, b, port)
        for port, a in enumerate(vifs, FIRST_PORT)
        for b in vifs
        if a is not b
    }


def _share(lab: Lab, a: Vif, b: Vif, same_host: bool) -> bool:
    if LockingMode.DISABLED in (a.locking_mode, b.locking_mode):
        return False
    here, there = lab.spec.network(a.network), lab.spec.network(b.network)
    if a.network == b.network:
        return same_host or here.carrier.way is not Way.NONE
    return (
        here.uplink is not None and here.uplink == there.uplink and there.tag == 0 and _carries(b.trunk, here.tag or 0)
    )


def _may(lab: Lab, a: Vif, b: Vif, port: int) -> bool:
    """Whether the security groups of both let through the frames of `measure`. port: that they come from."""
    ends = ip_ends(a, b)
    for vif, peer, direction in ((a, b, Direction.EGRESS), (b, a, Direction.INGRESS)):
        known = as_remotes(peer, lab.spec.network(peer.network).labels) if peer.network == vif.network else frozenset()
        known |= {found.name for found in lab.spec.address_sets if ends is not None and found.has(ends[peer is b])}
        for name, ranges in (item for group in lab.spec.groups for item in group.ranges_of_networks().items()):
            if ends is not None and AddressSet(name.removeprefix(NETWORK), ranges).has(ends[peer is b]):
                known |= {name}
        begun = Begun(Protocol.UDP, ends[peer is b], UDP_PORT, known, port) if ends is not None else None
        names = obeyed(vif, lab.spec.network(vif.network), applied(lab.spec.groups))
        groups = [group for group in lab.spec.groups if group.name in names]
        if groups and judge(groups, direction, begun) is not Verdict.ALLOW:
            return False
    return True


def _carries(trunk: Trunk | None, tag: int) -> bool:
    return trunk is not None and tag > 0 and (not trunk.tags or tag in trunk.tags)


def _frame(source: Vif, to: Vif, lab: Lab, port: int) -> bytes:
    """A frame from a port that is the source's own, so that no frame is the answer to another's."""
    return bytes(packet_between(source, to, port) / (MARK + lab.label(to).encode() + b";"))
