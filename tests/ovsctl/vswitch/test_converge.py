"""From any state to any other in one plan, with others' rows in between, on a real ovsdb-server and ovs-vswitchd."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsctl.ovsdb import Delete, Insert, Mutate, NamedUuid, OvsdbClient, Replica, Select, Update, Wait, by_uuid
from ovsctl.vswitch import (
    Attachment,
    Bridge,
    Controller,
    Interface,
    Manager,
    Mirror,
    OwnerMark,
    Port,
    PortBondMode,
    Qos,
    Queue,
    Sflow,
    VSwitch,
    apply,
    monitors,
    plan,
)
from tests.examples import examples
from tests.polling import wait_until
from tests.servers import Vswitchd, vswitchd

BRIDGES = ("b0", "b1", "b2")
PORTS = ("p0", "p1", "p2", "p3")
DEVICES = ("d0", "d1", "d2", "d3")
INTRUDERS = ("vif0", "vif1", "p3", "d3")
"""Ports that somebody else adds; with some of these names they are in our way."""

maps = st.dictionaries(st.sampled_from(("k1", "k2")), st.sampled_from(("v1", "v2")), max_size=2)
qos = st.builds(
    Qos,
    type=st.sampled_from(("linux-htb", "linux-hfsc")),
    other_config=maps,
    queues=st.dictionaries(st.integers(0, 3), st.builds(Queue, dscp=st.none() | st.integers(0, 1)), max_size=2),
)


@st.composite
def ports(draw: st.DrawFn, names: tuple[str, ...], devices: list[str]) -> tuple[Port, ...]:
    """Ports of some of these names, each with its own device or with some of `devices`, which are used up."""
    made = []
    for name in names:
        own = draw(st.booleans())
        members = [name] if own else [devices.pop() for _ in range(draw(st.integers(1, 2))) if devices]
        if members:
            interfaces = tuple(Interface(m, "dummy", external_ids=draw(maps), options=draw(maps)) for m in members)
            made.append(
                Port(
                    name,
                    interfaces,
                    tag=draw(st.none() | st.integers(0, 2)),
                    trunks=draw(st.frozensets(st.integers(1, 3))),
                    bond_mode=draw(st.none() | st.sampled_from(PortBondMode)),
                    qos=draw(st.none() | qos),
                    external_ids=draw(maps),
                    other_config=draw(maps),
                )
            )
    return tuple(made)


@st.composite
def switches(draw: st.DrawFn) -> VSwitch:
    names = draw(st.frozensets(st.sampled_from(BRIDGES)))
    devices = list(draw(st.permutations(DEVICES)))
    holders = [*sorted(names), "theirs"]
    # A port may have the name of a bridge that was, or will be.
    free = [name for name in (*PORTS, *BRIDGES) if name not in names]
    where = {name: draw(st.none() | st.sampled_from(holders)) for name in free}
    made = {h: draw(ports(tuple(name for name in free if where[name] == h), devices)) for h in holders}
    bridges = tuple(draw(bridge(name, made[name])) for name in sorted(names))
    managers = tuple(map(Manager, sorted(draw(st.frozensets(st.sampled_from(("punix:/m/0", "punix:/m/1")))))))
    return VSwitch(bridges, (Attachment("theirs", made["theirs"]),), managers)


@st.composite
def bridge(draw: st.DrawFn, name: str, its_ports: tuple[Port, ...]) -> Bridge:
    targets = draw(st.frozensets(st.sampled_from(("tcp:127.0.0.1:1", "tcp:127.0.0.1:2"))))
    sources = st.frozensets(st.sampled_from((*PORTS, *INTRUDERS, "never")))
    mirrors = st.builds(Mirror, st.sampled_from(("m0", "m1")), select_src_port=sources, output_port=st.just("p0"))
    sflow = st.builds(Sflow, st.just(frozenset({"127.0.0.1:6343"})), sampling=st.integers(1, 2))
    return Bridge(
        name,
        its_ports,
        datapath_type="dummy",
        controllers=tuple(map(Controller, sorted(targets))),
        mirrors=tuple(draw(st.lists(mirrors, max_size=2, unique_by=lambda mirror: mirror.name))),
        sflow=draw(st.none() | sflow),
        other_config=draw(maps),
        external_ids=draw(maps),
    )


@dataclass(frozen=True)
class Intrusion:
    """What somebody else does next: a port on a bridge, if there is one, and a key on each of our ports."""

    port: str
    bridge: str
    note: str


intrusions = st.none() | st.builds(
    Intrusion, st.sampled_from(INTRUDERS), st.sampled_from(BRIDGES), st.sampled_from(("", "one", "two"))
)


@dataclass
class World:
    switch: Vswitchd
    runner: asyncio.Runner
    client: OvsdbClient
    replica: Replica


@pytest.fixture(scope="module")
def world(ovs: None) -> Iterator[World]:
    with vswitchd() as switch, asyncio.Runner() as runner:
        client = OvsdbClient(switch.server.remote, "Open_vSwitch")
        runner.run(client.open())
        try:
            yield World(switch, runner, client, runner.run(_monitor(client)))
        finally:
            runner.run(client.close())


async def _monitor(client: OvsdbClient) -> Replica:
    return await client.monitor(monitors(client.schema))


@examples(60)
@given(steps=st.lists(st.tuples(switches(), intrusions, st.booleans()), min_size=2, max_size=4))
def test_one_plan_leads_from_any_state_to_any_other(
    world: World, steps: list[tuple[VSwitch, Intrusion | None, bool]]
) -> None:
    world.runner.run(_reset(world))
    for desired, intrusion, at_once in steps:
        world.runner.run(_step(world, desired, at_once))
        if intrusion:
            world.runner.run(_intrude(world, intrusion))


async def _reset(world: World) -> None:
    """Nothing there but somebody else's bridge with a port."""
    *_, rows = await world.client.transact(
        *(Delete(table, ()) for table in ("Bridge", "Port", "Interface", "QoS", "Queue")),
        *_insert_port("theirs", "internal"),
        *_insert_port("their0", "dummy"),
        Insert(
            "Bridge",
            {
                "name": "theirs",
                "datapath_type": "dummy",
                "ports": [NamedUuid("port_theirs"), NamedUuid("port_their0")],
            },
            "bridge",
        ),
        Update("Open_vSwitch", (), {"bridges": [NamedUuid("bridge")], "manager_options": []}),
        Mutate("Open_vSwitch", (), [("next_cfg", "+=", 1)]),
        Select("Open_vSwitch", (), ["next_cfg"]),
    )
    behind = [("cur_cfg", "<", rows[0]["next_cfg"])]
    await world.client.transact(Wait("Open_vSwitch", behind, ["cur_cfg"], [], timeout_ms=None))


def _insert_port(name: str, type: str) -> tuple[Insert, Insert]:
    return (
        Insert("Interface", {"name": name, "type": type}, f"interface_{name}"),
        Insert("Port", {"name": name, "interfaces": NamedUuid(f"interface_{name}")}, f"port_{name}"),
    )


async def _intrude(world: World, intrusion: Intrusion) -> None:
    replica = world.replica
    names = {row["name"] for table in ("Port", "Interface") for row in replica[table].values()}
    for uuid, row in replica["Bridge"].items():
        if row["name"] == intrusion.bridge and intrusion.port not in names:
            member = [("ports", "insert", NamedUuid(f"port_{intrusion.port}"))]
            await world.client.transact(*_insert_port(intrusion.port, "dummy"), Mutate("Bridge", by_uuid(uuid), member))
    if intrusion.note:
        note = [("external_ids", "delete", ["note"]), ("external_ids", "insert", {"note": intrusion.note})]
        await world.client.transact(Mutate("Port", (), note))


async def _step(world: World, desired: VSwitch, at_once: bool) -> None:
    replica = world.replica
    foreign, notes = _foreign(replica), _notes(replica)
    todo = plan(desired, replica)
    if at_once:
        done = [await apply(world.client, todo)]
    else:
        done = [await apply(world.client, todo.additions)]
        if not todo.conflicts:
            _check(desired, replica, removed=False)
        done.append(await apply(world.client, todo.removals))
    assert all(result is None or not result.stale for result in done)
    again = plan(desired, replica)
    assert (again.additions, again.removals) == ((), ())
    assert set(again.conflicts) == set(todo.conflicts)
    assert _foreign(replica) == foreign
    assert _notes(replica).items() <= notes.items()
    if not todo.conflicts:
        _check(desired, replica, removed=True)
        bridges = {bridge.name for bridge in desired.bridges} | {"theirs"}
        # A bridge that went is listed until ovs-vswitchd's other threads have let go of it.
        wait_until(lambda: set(world.switch.appctl("ofproto/list").split()) == bridges, f"bridges {bridges}")


def _foreign(replica: Replica) -> dict[str, dict[str, Any]]:
    """All that is not ours, less the sets in which rows of ours may hang."""
    owner = OwnerMark()
    local = {name for row in replica["Bridge"].values() if owner.owns(row) for name in [row["name"]]}
    return {
        table: {
            uuid: {name: value for name, value in row.as_dict().items() if name not in ("ports", "bridges")}
            for uuid, row in replica[table].items()
            if table != "Open_vSwitch" and not owner.owns(row) and row.as_dict().get("name") not in local
        }
        for table in replica
    }


def _notes(replica: Replica) -> dict[str, str]:
    return {uuid: row["external_ids"]["note"] for uuid, row in replica["Port"].items() if "note" in row["external_ids"]}


def _check(desired: VSwitch, replica: Replica, *, removed: bool) -> None:
    """Compare what is there with what is desired, without the planner's own view of it."""
    interfaces = {uuid: row["name"] for uuid, row in replica["Interface"].items()}
    there = {}
    for bridge in replica["Bridge"].values():
        for port in (replica["Port"][uuid] for uuid in bridge["ports"]):
            if OwnerMark().owns(port):
                members = frozenset(interfaces[uuid] for uuid in port["interfaces"])
                there[bridge["name"], port["name"]] = (members, port["tag"], port["trunks"], _qos(replica, port))
    want = {
        (holder, port.name): (
            frozenset(interface.name for interface in port.interfaces),
            port.tag,
            port.trunks,
            port.qos and (port.qos.type, port.qos.other_config, {n: q.dscp for n, q in port.qos.queues.items()}),
        )
        for holder, ports in [
            *((bridge.name, bridge.ports) for bridge in desired.bridges),
            *((attachment.bridge, attachment.ports) for attachment in desired.attachments),
        ]
        for port in ports
    }
    assert {key: there.get(key) for key in want} == want
    if removed:
        assert there.keys() == want.keys()
        assert len(replica["QoS"]) == sum(qos is not None for *_, qos in want.values())
        assert len(replica["Queue"]) == sum(len(qos[2]) for *_, qos in want.values() if qos)
        assert {row["target"] for row in replica["Manager"].values()} == {m.target for m in desired.managers}


def _qos(replica: Replica, port: Any) -> Any:
    if port["qos"] is None:
        return None
    row = replica["QoS"][port["qos"]]
    queues = {number: replica["Queue"][uuid]["dscp"] for number, uuid in row["queues"].items()}
    return row["type"], row["other_config"], queues
