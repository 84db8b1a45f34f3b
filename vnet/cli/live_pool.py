"""The pool that runs, for questions: its state as the controller tells it, and its hosts' switches through the controller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, json, structs

from vnet.cli.exits import CommandError, Exit
from vnet.grammar.declare import Declared, attrs_of, json_word, unchecked
from vnet.grammar.kinds import FAILED, Failed
from vnet.grammar.nodes import List, entry_of, is_null, json_tree
from vnet.grammar.source import Source
from vnet.objects import Binding, LockingMode, PoolState
from vnet.objects.proposal import CONFIGURED
from vnet.topology import Document, desired_state, load

if TYPE_CHECKING:
    from vnet import api
    from vnet.client import Client
    from vnet.probe.live_trace import Answer, Ask, Question
    from vnet.probe.packet_injection import Outcome, Send, Shot
    from vnet.sim import SimPool

D = TypeVar("D", bound=Declared)


def running_state(client: Client) -> tuple[PoolState, Document]:
    """Every object of the running pool, the toolstack's too, and the document with the places of its own."""
    document = load(client.export().encode(), "the pool")
    known = desired_state(document, PoolState())
    objects: dict[str, Any] = {}
    for declared in CONFIGURED:
        noun = declared.NOUN
        answers = getattr(client, noun.plural.replace("-", "_"))()
        objects[noun.state] = {getattr(answer, noun.key): _object(declared, answer) for answer in answers}
    # The key of a VLAN network, for relays, is in no answer; the document's networks have been allocated alike.
    for name, network in objects["networks"].items():
        if network.key is None and name in known.networks:
            objects["networks"][name] = replace(network, key=known.networks[name].key)
    vifs = objects["vifs"]
    bindings = {
        (answer.vif, answer.host): _object(
            Binding,
            structs.replace(answer, since=None),
            unlocked=vifs[answer.vif].locking_mode is LockingMode.UNLOCKED,
        )
        for answer in client.bindings()
        if answer.vif in vifs and answer.network in objects["networks"]
    }
    return replace(known, **objects, bindings=bindings), document


def _object(declared: type[D], answer: Struct, **more: Any) -> D:
    """The object of an answer. more: fields that answers lack."""
    node, paths = json_tree(json.encode(answer))
    source, values = Source("", paths=paths), dict(more)
    for found in attrs_of(declared).values():
        for spelling in found.spellings:
            entry = entry_of(node, json_word(found, spelling).replace("_", "-"))
            empty = entry is None or is_null(entry[1]) or (isinstance(entry[1], List) and not entry[1].items)
            value = FAILED if entry is None or empty else spelling.kind.read(entry[1], source)
            if not isinstance(value, Failed):
                values[found.name] = value
    source.finish()
    return unchecked(declared, values)


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
