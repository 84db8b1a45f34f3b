"""A packet's way through a pool, step by step: what each table decided, which object that came from, and how it ended.

One rule: a trace changes nothing. What switches would learn from the packet is forgotten at its end; what the packet itself
teaches on the way there counts for the way back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ovsctl.datapath import Passed, Tunnel
from ovsctl.openflow.text import format_match
from vnet.compile import PIPELINE, Category, Source, Table
from vnet.compile.pipeline import REG_VERDICT
from vnet.compile.security import DEFAULT, rule_cookie
from vnet.objects import Rule
from vnet.sim.deliveries import Deliveries, Delivery, Loss, Station
from vnet.sim.fabric import Arrival, Fabric
from vnet.sim.host import SimHost

if TYPE_CHECKING:
    from vnet.topology import Document, Place

HOPS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One look-up in a table, and what its flow did. match: "" and priority -1 where no flow matched.

    source: what the flow comes from, as "vif web1/0"; place: where that stands in the document, as file:line:column.
    """

    table: int
    name: str
    does: str
    match: str
    priority: int
    source: str
    place: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hop:
    """A packet in one switch. came_in: the port; frame: as it came in; sent: what left, as text."""

    switch: str
    came_in: str
    frame: bytes
    steps: tuple[Step, ...]
    sent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leg:
    """One packet's way: there or back. verdict: one line that says what became of it. aside: whether it only helps the
    packet that was asked about, as ARP does."""

    title: str
    hops: tuple[Hop, ...]
    deliveries: tuple[Delivery, ...]
    lost: tuple[Loss, ...]
    verdict: str
    aside: bool = False

    @property
    def to(self) -> list[str]:
        """Who got it."""
        return sorted(item.to for item in self.deliveries)


@dataclass(frozen=True, slots=True)
class Trace:
    """A question's packets, in order, and whether the whole of it worked."""

    title: str
    legs: tuple[Leg, ...]
    reached: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "reached": self.reached,
            "legs": [
                {
                    "title": leg.title,
                    "verdict": leg.verdict,
                    "delivered": leg.to,
                    "lost": [{"where": loss.where, "reason": loss.reason} for loss in leg.lost],
                    "hops": [_hop_dict(hop) for hop in leg.hops],
                }
                for leg in self.legs
            ],
        }

    def __str__(self) -> str:
        return self.render()

    def render(self, full: bool = False) -> str:
        """For people. Of packets that only help, and did, one line; with `full` every step."""
        return "\n".join(_render(self, full))


def _hop_dict(hop: Hop) -> dict[str, Any]:
    names = ("table", "name", "does", "match", "priority", "source", "place")
    steps = [{name: getattr(step, name) for name in names} | {"actions": list(step.actions)} for step in hop.steps]
    return {"switch": hop.switch, "in": hop.came_in, "frame": hop.frame.hex(), "steps": steps, "sent": list(hop.sent)}


def trace_packet(pool: Fabric, source: str | Station, frame: bytes, title: str = "") -> Leg:
    """A frame's way from a VIF or a station. Raises what `SimPool.send` raises."""
    with pool.undone():
        return follow(pool, source, frame, title)


def follow(pool: Fabric, source: str | Station, frame: bytes, title: str = "", aside: bool = False) -> Leg:
    """The same, and switches keep what they learn."""
    waiting = deque((pool.entrance(source, frame),))
    hops: list[Hop] = []
    items: list[Delivery] = []
    lost: list[Loss] = []
    while waiting and len(hops) < HOPS_MAX:
        arrival = waiting.popleft()
        notes: list[Passed] = []
        emitted = pool.forward(arrival, notes)
        sent = []
        for one in emitted:
            following, got = pool.follow(arrival, one)
            items += got.items
            lost += got.lost
            sent.append(_sent(pool, arrival, one.port, one.tunnel, following, got))
            if following is not None:
                waiting.append(following)
        steps = tuple(_steps(pool, arrival, notes))
        name = arrival.switch.port_name(arrival.port)
        hops.append(Hop(arrival.switch.name, name, arrival.frame, steps, tuple(sent)))
    return Leg(title, tuple(hops), tuple(items), tuple(lost), _verdict(hops, items, lost), aside)


def _sent(
    pool: Fabric, arrival: Arrival, port: int, tunnel: Tunnel | None, following: Arrival | None, got: Deliveries
) -> str:
    name = arrival.switch.port_name(port)
    if tunnel is not None:
        target = ip_address(tunnel.dst.to_bytes(16 if tunnel.ipv6 else 4, "big"))
        name += f", encapsulated with key {tunnel.key} to {target}"
    if got.lost:
        return f"{name}: lost, {got.lost[0].reason}"
    if got.items:
        return f"{name}: delivered to {got.items[0].to}"
    if following is not None:
        return f"{name}: on to {following.switch.name}"
    return f"{name}: nobody receives there"


def _steps(pool: Fabric, arrival: Arrival, notes: list[Passed]) -> Iterator[Step]:
    host = pool.host_of(arrival.switch)
    at = 0
    while at < len(notes):
        note = notes[at]
        said = []
        at += 1
        while at < len(notes) and notes[at].table is None:
            said.append(notes[at].text)
            at += 1
        if note.table is None:
            yield Step(-1, "", "", "", -1, "", "", (note.text, *said))
        elif host is None:
            yield Step(note.table, "NORMAL", "forwards as a learning switch", "", -1, "", "", tuple(said))
        else:
            yield _step(pool, host, note, said)


def _step(pool: Fabric, host: SimHost, note: Passed, said: list[str]) -> Step:
    number = note.table or 0
    known = Table(number) if number in Table._value2member_map_ else None
    name, does = (known.name, PIPELINE[known].does) if known is not None else (f"table {number}", "")
    flow = note.flow
    if flow is None:
        return Step(number, name, does, "", -1, "", "", tuple(said))
    source = host.source_of(flow)
    return Step(
        number, name, does, format_match(flow.match) or "everything", flow.priority,
        describe(pool, source, flow.cookie), place_of(pool.document, pool, source, flow.cookie), tuple(said),
    )  # fmt: skip


_WHAT = {
    Category.BASE: "every network",
    Category.NETWORK: "network {}",
    Category.FLOOD: "members of network {}",
    Category.VIF: "VIF {}",
    Category.LOOKUP: "location of VIF {}",
    Category.TRUNK: "trunks on uplink {}",
    Category.GROUP: "security group {}",
    Category.PEER: "security groups of VIF {}",
    Category.PROBE: "probe {}",
}


def describe(pool: Fabric, source: Source | None, mark: int = 0) -> str:
    """What flows of a source come from, for people. None is what the switch learned itself. mark: the flow's cookie."""
    if source is None:
        return "learned by the switch from an announcement"
    name = source.name
    vif = pool.state.vifs.get(name)
    if vif is not None and source.category in (Category.VIF, Category.LOOKUP, Category.PEER):
        name = pool.label(vif)
    rule = rule_of(pool, source, mark)
    return _WHAT[source.category].format(name) + (f", rule {rule.name}" if rule is not None else "")


def rule_of(pool: Fabric, source: Source, mark: int) -> Rule | None:
    """The rule that a flow of a security group comes from, by the flow's cookie; None for what the group says by default."""
    group = pool.state.groups.get(source.name) if source.category is Category.GROUP else None
    if group is None:
        return None
    return next((rule for rule in group.rules if rule_cookie(group, rule) == mark), None)


def place_of(document: Document | None, pool: Fabric, source: Source | None, mark: int = 0) -> str:
    """Where what a flow is about stands in the document, as file:line:column; "" where it does not."""
    if document is None or source is None or document.source is None:
        return ""
    found: Place | None = None
    if source.category in (Category.NETWORK, Category.FLOOD):
        network = document.networks.get(source.name)
        found = network.at() if network is not None else None
    elif source.category in (Category.VIF, Category.LOOKUP, Category.PEER):
        vif = pool.state.vifs.get(source.name)
        vm = document.vms.get(vif.vm) if vif is not None and vif.vm is not None else None
        if vif is not None and vm is not None and vif.index < len(vm.vifs):
            found = vm.vifs[vif.index].at()
    elif source.category is Category.GROUP:
        group, rule = document.security_groups.get(source.name), rule_of(pool, source, mark)
        spec = (
            next((one for one in group.rules if rule is not None and one.name == rule.name), group) if group else None
        )
        found = spec.at() if spec is not None else None
    elif source.category is Category.TRUNK:
        uplinks = [host.uplinks[source.name] for host in document.hosts.values() if source.name in host.uplinks]
        found = uplinks[0].at() if uplinks else None
    return f"{document.source.filename}:{found.line}:{found.column}" if found is not None else ""


def _verdict(hops: list[Hop], items: list[Delivery], lost: list[Loss]) -> str:
    if len(hops) >= HOPS_MAX:
        return f"still on its way after {HOPS_MAX} switches: there is a loop"
    said = []
    if items:
        said.append("delivered to " + ", ".join(sorted(item.to for item in items)))
    said += [f"lost at {loss.where}: {loss.reason}" for loss in lost]
    if said:
        return "; ".join(said)
    for hop in reversed(hops):
        if not hop.sent and hop.steps:
            return f"dropped by {hop.switch} in {_why(hop.steps[-1], hop.steps)}"
    return "delivered to nobody"


def _why(step: Step, steps: Sequence[Step]) -> str:
    if step.priority < 0:
        return f"{step.name}: no flow for it ({step.does})"
    if said := list(_against(step, steps)):
        return f"{step.name}: {' and '.join(said)} ({step.does})"
    return f"{step.name} by priority {step.priority} {step.match} of {_at(step)} ({step.does})"


def _against(verdict: Step, steps: Sequence[Step]) -> Iterator[str]:
    """The rules that a verdict of security groups follows from: those that set the bit it was reached by."""
    bit = next((part for part in verdict.match.split(",") if part.startswith(f"{REG_VERDICT}=")), None)
    if bit is None:
        return
    for step in steps:
        if step.table in (Table.EGRESS_RULES, Table.INGRESS_RULES) and bit.replace("=", " = ") in step.actions:
            how = "drops by default" if step.priority == DEFAULT else "drops"
            yield f"{_at(step)} {how}"


def _at(step: Step) -> str:
    return f"{step.source} at {step.place}" if step.place else step.source


def _render(trace: Trace, full: bool) -> Iterator[str]:
    yield f"{trace.title}: {'reached' if trace.reached else 'NOT reached'}"
    for leg in trace.legs:
        yield ""
        yield f"{leg.title}: {leg.verdict}"
        if leg.aside and not full and (trace.reached or leg is not trace.legs[-1]):
            continue
        for hop in leg.hops:
            yield f"  {hop.switch}, in by {hop.came_in}"
            for step in hop.steps:
                yield from _render_step(step)
            yield from (f"      => {sent}" for sent in hop.sent)
            if not hop.sent:
                yield "      => dropped"


def _render_step(step: Step) -> Iterator[str]:
    if step.table >= 0:
        if step.priority >= 0:
            where = f"  [{step.place}]" if step.place else ""
            yield f"    {step.table:>3} {step.name:<15} priority {step.priority}, {step.match}: {step.source}{where}"
        elif step.name == "NORMAL":
            yield f"        {'NORMAL':<15} {step.does}"
        else:
            yield f"    {step.table:>3} {step.name:<15} no flow matches"
    for action in step.actions:
        yield f"                  {action}"
