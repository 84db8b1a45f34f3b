"""A packet's way through a pool: each table's decision, the origin of its flow, and the end.

One rule: a trace changes nothing. Bridges forget at its end all that they learned; within it, the packets of a conversation
meet what the packets before them taught.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from ovsctl.datapath import Emitted, Passed
from ovsctl.datapath.flow_key import key_field
from ovsctl.openflow.fields import field
from ovsctl.openflow.text import format_match
from vnet.compile import PIPELINE, FlowSource, Table
from vnet.compile.isolation import isolation_number
from vnet.compile.pipeline import REG_GROUP, REG_PORT, REG_ROLE, REG_VERDICT, STEP_ENDS
from vnet.compile.rejection_frames import answer_in_words
from vnet.compile.security import DEFAULT, PRIORITIES
from vnet.objects import Verdict
from vnet.objects.isolation import ISOLATED, isolation_of
from vnet.sim.deliveries import Deliveries, Delivery, Loss, Station
from vnet.sim.fabric import Arrival, Fabric
from vnet.sim.flow_origin import describe, position_of
from vnet.sim.guard_drop import GUARDS, is_watch, wrong_fields
from vnet.sim.host import SimHost

HOPS_MAX = 1000
NO_COMMON_VERSION = "they have no IP version in common"
REJECTS = frozenset({Table.EGRESS_REJECT, Table.INGRESS_REJECT})
LOGS = frozenset({Table.EGRESS_LOG, Table.INGRESS_LOG})
MONITORS = frozenset({Table.EGRESS_MONITOR, Table.INGRESS_MONITOR})
MIRROR = "mirror "  # before the name of a mirror: the origin of its flows
COPIES = frozenset(
    {Table.MIRROR_TO, Table.MIRROR_OPEN, Table.MIRROR_FROM, Table.MIRROR_FILTER, Table.MIRROR_OUT, Table.MIRROR_HERE}
)
RULES = frozenset({Table.EGRESS_RULES, Table.INGRESS_RULES})
# Of a look-up in MONITOR by its priority: what a rule would do, and the priority of that rule.
WOULD = {
    300: ("drop", PRIORITIES[Verdict.DROP]),
    290: ("reject", PRIORITIES[Verdict.REJECT]),
    200: ("drop", DEFAULT),
    190: ("reject", DEFAULT),
}


@dataclass(frozen=True, slots=True)
class TableStep:
    """A look-up in a table, and what its flow did. match: "" and priority -1 where no flow matched.

    source: the flow's origin, as "vif web1/0"; place: its position in the document, as file:line:column; wrong: the fields
    for which a port's guard dropped the frame; origin: the source itself, None where the switch learned the flow.
    """

    table: int
    name: str
    does: str
    match: str
    priority: int
    source: str
    place: str
    actions: tuple[str, ...]
    wrong: str = ""
    origin: FlowSource | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """A packet in one bridge. came_in: the port; frame: as it came in; sent: the frames that left, in words."""

    switch: str
    came_in: str
    frame: bytes
    steps: tuple[TableStep, ...]
    sent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leg:
    """One packet's way, there or back. verdict: its end in one line. aside: the packet only helps another one, as ARP does.

    answers: what the agent of a host answers to it where a rule rejects it.
    """

    title: str
    hops: tuple[Hop, ...]
    deliveries: tuple[Delivery, ...]
    lost: tuple[Loss, ...]
    verdict: str
    aside: bool = False
    answers: tuple[Delivery, ...] = ()

    @property
    def to(self) -> list[str]:
        """The receivers, sorted."""
        return sorted(item.to for item in self.deliveries)


@dataclass(frozen=True, slots=True, repr=False)
class Trace:
    """The packets of a conversation in order; `reached` is true if all of them arrived. Without a common IP version there are none."""

    title: str
    legs: tuple[Leg, ...]
    reached: bool

    @property
    def reason(self) -> str:
        """Why it does not reach: the verdict of the packet that did not arrive. Empty if all arrived."""
        if self.reached:
            return ""
        return self.legs[-1].verdict if self.legs else NO_COMMON_VERSION

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
                    "answers": [{"to": item.to, "frame": item.frame.hex()} for item in leg.answers],
                    "lost": [{"where": loss.place, "reason": loss.reason} for loss in leg.lost],
                    "hops": [_hop_dict(hop) for hop in leg.hops],
                }
                for leg in self.legs
            ],
        }

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        """Short, for a failed assertion: the title, and the verdict of the packet that did not arrive."""
        end = f": {self.legs[-1].title}: {self.reason}" if self.reason and self.legs else ""
        return f"<{self.title}, {'reached' if self.reached else 'NOT reached'}{end}>"

    def render(self, full: bool = False) -> str:
        """For people. A packet that only helps, and arrived, takes one line; with `full` every step is shown."""
        return "\n".join(_render(self, full))


def _hop_dict(hop: Hop) -> dict[str, Any]:
    names = ("table", "name", "does", "match", "priority", "source", "place", "wrong")
    steps = [{name: getattr(step, name) for name in names} | {"actions": list(step.actions)} for step in hop.steps]
    return {"switch": hop.switch, "in": hop.came_in, "frame": hop.frame.hex(), "steps": steps, "sent": list(hop.sent)}


def trace_packet(pool: Fabric, source: str | Station, frame: bytes, title: str = "") -> Leg:
    """A frame's way from a VIF or a station. Raises as `SimPool.send`."""
    with pool.undone():
        return follow(pool, source, frame, title)


def follow(pool: Fabric, source: str | Station, frame: bytes, title: str = "", aside: bool = False) -> Leg:
    """As `trace_packet`, but bridges keep what they learn."""
    waiting = deque((pool.entrance(source, frame),))
    hops: list[Hop] = []
    items: list[Delivery] = []
    lost: list[Loss] = []
    answers: list[Delivery] = []
    while waiting and len(hops) < HOPS_MAX:
        arrival = waiting.popleft()
        notes: list[Passed] = []
        sent = []
        for emitted in pool.forward(arrival, notes):
            following, received = pool.follow(arrival, emitted)
            items += received.items
            lost += received.lost
            sent.append(_sent(arrival, emitted, following, received))
            if following is not None:
                waiting.append(following)
        answers += pool.answered(arrival).items
        steps = tuple(_steps(pool, arrival, notes))
        if (again := pool.after_choice(arrival)) is not None:
            waiting.append(again)
            sent.append("the agent: the address is the VIF's now, and the frame goes again")
        name = arrival.switch.port_name(arrival.port)
        hops.append(Hop(arrival.switch.name, name, arrival.frame, steps, tuple(sent)))
    mirrored = [*_mirrored(pool, hops)]
    for _, target in mirrored:  # a copy reaches nobody
        copy = next((item for item in items if item.to == target), None)
        items = [item for item in items if item is not copy]
    logged = "; logged" if any(_logs(step) for hop in hops for step in hop.steps) else ""
    verdict = (
        _verdict(hops, items, lost)
        + logged
        + "".join(f"; mirrored to {target} by {mirror}" for mirror, target in mirrored)
        + "".join(f"; {text}" for hop in hops for text in _monitored(hop.steps))
        + "".join(f"; {item.to} is answered: {answer_in_words(item.frame)}" for item in answers)
    )
    return Leg(title, tuple(hops), tuple(items), tuple(lost), verdict, aside, tuple(answers))


def _sent(arrival: Arrival, emitted: Emitted, following: Arrival | None, received: Deliveries) -> str:
    name, tunnel = arrival.switch.port_name(emitted.port), emitted.tunnel
    if tunnel is not None:
        target = ip_address(tunnel.dst.to_bytes(16 if tunnel.ipv6 else 4, "big"))
        name += f", encapsulated with key {tunnel.key} to {target}"
    if received.lost:
        return f"{name}: lost, {received.lost[0].reason}"
    if received.items:
        return f"{name}: delivered to {received.items[0].to}"
    if following is not None:
        return f"{name}: on to {following.switch.name}"
    return f"{name}: nobody receives there"


def _steps(pool: Fabric, arrival: Arrival, notes: list[Passed]) -> Iterator[TableStep]:
    """A step per look-up, with the notes up to the next look-up as its actions."""
    host = pool.host_of(arrival.switch)
    at = 0
    while at < len(notes):
        note = notes[at]
        actions = []
        at += 1
        while at < len(notes) and notes[at].table is None:
            actions.append(notes[at].text)
            at += 1
        if note.table is None:
            yield TableStep(-1, "", "", "", -1, "", "", (note.text, *actions))
        elif host is None:
            yield TableStep(note.table, "NORMAL", "forwards as a learning switch", "", -1, "", "", tuple(actions))
        else:
            yield _step(pool, host, arrival, note, note.table, actions)


def _step(pool: Fabric, host: SimHost, arrival: Arrival, note: Passed, number: int, actions: list[str]) -> TableStep:
    known = Table(number) if number in Table._value2member_map_ else None
    name, does = (known.name, PIPELINE[known].does) if known is not None else (f"table {number}", "")
    flow, wrong = note.flow, ""
    if number in GUARDS and arrival.port in host.vif_at and (flow is None or not flow.actions or is_watch(flow)):
        wrong = wrong_fields(host.bridge.tables, number, flow, note.key)
    if number in (Table.FROM_ISOLATION, Table.TO_ISOLATION) and (flow is None or not flow.actions):
        wrong = _kept_apart(pool, host, note.key, sends=number == Table.FROM_ISOLATION, in_port=arrival.port)
    if flow is None:
        return TableStep(number, name, does, "", -1, "", "", tuple(actions), wrong)
    source = host.source_of(flow)
    text, position = describe(pool, source, flow.cookie), position_of(pool, source, flow.cookie)
    match = format_match(flow.match) or "everything"
    return TableStep(number, name, does, match, flow.priority, text, position, tuple(actions), wrong, source)


def _kept_apart(pool: Fabric, host: SimHost, key: int, *, sends: bool, in_port: int) -> str:
    """As "web1/0 is isolated, and the receiver community:red"."""
    port = in_port if sends else key_field(field(REG_PORT)).get(key)
    vif = pool.state.vifs.get(host.vif_at.get(port, ""))
    if vif is None:
        return ""
    number = isolation_number(key_field(field(REG_ROLE)).get(key))
    network = host.view.network(vif.network)
    own = isolation_of(vif.isolation, network.isolation if network is not None else None)
    # A community that no VIF of this host is in has no number here.
    other = next((name for name, role in host.view.roles(vif.network).items() if role == number), "")
    other = "isolated or of another community" if other == ISOLATED else other
    return f"{pool.label(vif)} is {own}, and the {'receiver' if sends else 'sender'} {other}"


def _verdict(hops: list[Hop], items: list[Delivery], lost: list[Loss]) -> str:
    if len(hops) >= HOPS_MAX:
        return f"still on its way after {HOPS_MAX} switches: there is a loop"
    ends = []
    if items:
        ends.append("delivered to " + ", ".join(sorted(item.to for item in items)))
    ends += [f"lost at {loss.place}: {loss.reason}" for loss in lost]
    if ends:
        return "; ".join(ends)
    if (end := dropping_step(hops)) is not None:
        hop, last = end
        rejected = hop.steps[-1].table in REJECTS
        cause = _cause(last, hop.steps, "rejects" if rejected else "drops")
        return f"{'rejected' if rejected else 'dropped'} by {hop.switch} in {cause}{_limited(hop)}"
    return "delivered to nobody"


def dropping_step(hops: Sequence[Hop]) -> tuple[Hop, TableStep] | None:
    """The look-up that ended a packet, and the bridge that made it; None where none did."""
    for hop in reversed(hops):
        carries = hop.steps and hop.steps[0].source.startswith(MIRROR)
        if len(hop.sent) == sum(map(_sends_copy, hop.steps)) and hop.steps and not carries:
            return hop, next(
                step for step in reversed(hop.steps) if step.table not in REJECTS | LOGS | MONITORS | COPIES
            )
    return None


def _mirrored(pool: Fabric, hops: Sequence[Hop]) -> Iterator[tuple[str, str]]:
    """The mirrors whose target got a copy, as "mirror ids", each with the target."""
    for step in (step for hop in hops for step in hop.steps):
        mirror = pool.state.mirrors.get(step.source.removeprefix(MIRROR)) if _sends_copy(step) else None
        if mirror is None or (mirror.target is None) is (step.table == Table.MIRROR_HERE):
            continue
        vif = pool.state.vifs.get(mirror.target or "")
        yield step.source, pool.label(vif) if vif is not None else str(mirror.to)


def _sends_copy(step: TableStep) -> bool:
    out = (text for text in step.actions if text.startswith("output to "))
    return step.table in COPIES and any("suppressed" not in text and "dropped" not in text for text in out)


def _monitored(steps: Sequence[TableStep]) -> Iterator[str]:
    """The rules of groups in monitor mode that would forbid a packet which goes on: each was asked before its look-up in MONITOR. No other
    group's rule forbids it: then it would not go on."""
    for at, step in enumerate(steps):
        if step.table in MONITORS and step.priority in WOULD:
            verb, priority = WOULD[step.priority]
            asked = (before for before in reversed(steps[:at]) if before.table in RULES and not _ends_step(before))
            if (rule := next((before for before in asked if before.priority == priority), None)) is not None:
                yield f"{_origin(rule)} would {verb} it{' by default' if rule.priority == DEFAULT else ''}"


def _ends_step(step: TableStep) -> bool:
    group = next((part for part in step.match.split(",") if part.startswith(f"{REG_GROUP}=")), "=0")
    return bool(int(group.partition("=")[2], 0) & STEP_ENDS)


def _logs(step: TableStep) -> bool:
    return (
        step.table in LOGS
        and f"{REG_VERDICT}=" not in step.match
        and "to the controller" in step.actions
        and not _over_the_rate(step)
    )


def _over_the_rate(step: TableStep) -> bool:
    return any("dropped by meter" in action for action in step.actions)


def _limited(hop: Hop) -> str:
    """Says of a rejected packet that it is over the VIF's rate of answers."""
    last = hop.steps[-1]
    return ", unanswered: too many" if last.table in REJECTS and _over_the_rate(last) else ""


def _cause(step: TableStep, steps: Sequence[TableStep], verb: str) -> str:
    if dropped := next((text for text in step.actions if text.startswith("dropped by meter")), ""):
        return f"{step.name}: {dropped} of {_origin(step)}"
    if step.wrong:
        return f"{step.name}: {step.wrong}"
    if step.priority < 0:
        return f"{step.name}: no flow for it ({step.does})"
    if rules := [
        f"{_origin(rule)} {verb}{' by default' if rule.priority == DEFAULT else ''}"
        for rule in forbidding_steps(step, steps)
    ]:
        return f"{step.name}: {' and '.join(rules)} ({step.does})"
    return f"{step.name} by priority {step.priority} {step.match} of {_origin(step)} ({step.does})"


def forbidding_steps(verdict: TableStep, steps: Sequence[TableStep]) -> Iterator[TableStep]:
    """The look-ups of the rules behind a verdict of security groups: those that set the bit which the verdict's flow matches."""
    bit = next((part for part in verdict.match.split(",") if part.startswith(f"{REG_VERDICT}=")), None)
    if bit is None:
        return
    for step in steps:
        if step.table in RULES and bit.replace("=", " = ") in step.actions:
            yield step


def _origin(step: TableStep) -> str:
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


def _render_step(step: TableStep) -> Iterator[str]:
    if step.table >= 0:
        if step.priority >= 0:
            position = f"  [{step.place}]" if step.place else ""
            yield f"    {step.table:>3} {step.name:<15} priority {step.priority}, {step.match}: {step.source}{position}"
        elif step.name == "NORMAL":
            yield f"        {'NORMAL':<15} {step.does}"
        else:
            yield f"    {step.table:>3} {step.name:<15} no flow matches"
    if step.wrong:
        yield f"                  {step.wrong}"
    for action in step.actions:
        yield f"                  {action}"
