"""Plans carried out on a real ovsdb-server and ovs-vswitchd, and read back by other means than ours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from ovsctl.appctl import Appctl
from ovsctl.ovsdb import OvsdbClient, Replica
from ovsctl.vswitch import (
    Applied,
    Attachment,
    Bridge,
    Controller,
    Interface,
    Ipfix,
    Lacp,
    Manager,
    Mirror,
    NetFlow,
    NotConfigured,
    OpenFlow,
    OwnerMark,
    Port,
    PortBondMode,
    Qos,
    Queue,
    RowPlan,
    SampleSet,
    Sflow,
    VlanMode,
    VSwitch,
    apply,
    internal_port,
    monitors,
    patch_port,
    plan,
    tunnel_port,
)
from tests.servers import Vswitchd, vswitchd


@pytest.fixture
def switch(ovs: None) -> Iterator[Vswitchd]:
    with vswitchd() as switch:
        yield switch


@pytest.fixture
async def client(switch: Vswitchd) -> AsyncIterator[OvsdbClient]:
    async with OvsdbClient(switch.server.remote, "Open_vSwitch") as client:
        yield client


@pytest.fixture
async def replica(client: OvsdbClient) -> Replica:
    return await client.monitor(monitors(client.schema))


def device(name: str, **columns: Any) -> Interface:
    return Interface(name, "dummy", **columns)


def bridge(name: str, *ports: Port, **columns: Any) -> Bridge:
    return Bridge(name, ports, datapath_type="dummy", **columns)


def dummy(name: str, **columns: Any) -> Port:
    return Port(name, (device(name),), **columns)


async def reach(client: OvsdbClient, replica: Replica, desired: VSwitch) -> list[Applied]:
    """Apply, as an agent would, and see that this was all there was to do."""
    todo = plan(desired, replica)
    assert not todo.conflicts
    done = [await apply(client, todo.additions), await apply(client, todo.removals)]
    assert not plan(desired, replica)
    assert all(not result.stale for result in done if result)
    return [result for result in done if result]


def table(switch: Vswitchd, name: str, *columns: str) -> dict[str, dict[str, Any]]:
    """Rows by their first column, as `ovs-vsctl list` has them."""
    text = switch.server.vsctl("--format=json", f"--columns={','.join(columns)}", "list", name)
    output = json.loads(text)
    rows = [dict(zip(output["headings"], map(_plain, row), strict=True)) for row in output["data"]]
    return {str(row[columns[0]]): row for row in rows}


def _plain(json_value: Any) -> Any:
    match json_value:
        case ["set", items]:
            return {_plain(item) for item in items} or None
        case ["map", items]:
            return {_plain(key): _plain(value) for key, value in items}
        case ["uuid", uuid]:
            return uuid
    return json_value


async def test_an_empty_plan_touches_nothing(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    before = switch.server.client("dump", "Open_vSwitch")
    assert await apply(client, plan(VSwitch(), replica)) is None
    assert switch.server.client("dump", "Open_vSwitch") == before


async def test_everything_is_there_and_goes_again(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    empty = {name: table(switch, name, "_uuid") for name in ("Bridge", "Port", "Interface", "QoS", "Queue", "Manager")}
    ids = {"iface-id": "vif-1"}
    access = Port("tap0", (device("tap0", mtu_request=1400, external_ids=ids),), tag=0)
    trunk = dummy("tap1", trunks=frozenset({10, 20}), vlan_mode=VlanMode.TRUNK)
    desired = VSwitch(
        (
            bridge(
                "br0",
                internal_port("br0", mtu_request=1450),
                *(access, trunk, patch_port("to-br1", "to-br0"), tunnel_port("vxlan0", "vxlan")),
                protocols=frozenset({OpenFlow.V15, OpenFlow.V13}),
                controllers=(Controller("tcp:127.0.0.1:1", inactivity_probe=0),),
                other_config={"mac-table-size": "4096"},
            ),
            bridge("br1", patch_port("to-br0", "to-br1"), fail_mode=None),
        ),
        managers=(Manager("punix:/nonexistent/manager", max_backoff=2000),),
    )
    (done,) = await reach(client, replica, desired)
    assert done.errors == {}
    assert switch.server.vsctl("list-br").split() == ["br0", "br1"]
    assert switch.server.vsctl("list-ports", "br0").split() == ["tap0", "tap1", "to-br1", "vxlan0"]
    ports = table(switch, "Port", "name", "tag", "trunks", "vlan_mode")
    assert ports["tap0"] == {"name": "tap0", "tag": 0, "trunks": None, "vlan_mode": None}
    assert ports["tap1"] == {"name": "tap1", "tag": None, "trunks": {10, 20}, "vlan_mode": "trunk"}
    interfaces = table(switch, "Interface", "name", "type", "mtu", "options", "ofport", "external_ids")
    assert interfaces["tap0"]["mtu"] == 1400
    assert interfaces["tap0"]["external_ids"].items() >= ids.items()
    assert interfaces["vxlan0"]["options"] == {"remote_ip": "flow", "key": "flow"}
    assert all(row["ofport"] > 0 for row in interfaces.values())
    bridges = table(switch, "Bridge", "name", "fail_mode", "protocols", "other_config")
    assert bridges["br0"]["fail_mode"] == "secure"
    assert bridges["br0"]["protocols"] == {"OpenFlow13", "OpenFlow15"}
    assert bridges["br0"]["other_config"] == {"mac-table-size": "4096"}
    assert bridges["br1"]["fail_mode"] is None
    assert table(switch, "Controller", "target", "inactivity_probe")["tcp:127.0.0.1:1"]["inactivity_probe"] == 0
    assert table(switch, "Manager", "target", "max_backoff")["punix:/nonexistent/manager"]["max_backoff"] == 2000
    assert "dummy@ovs-dummy" in switch.appctl("dpif/show")

    await reach(client, replica, VSwitch())
    assert {name: table(switch, name, "_uuid") for name in empty} == empty


async def test_a_bond_as_bond_show_sees_it(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    members = (device("eth1"), device("eth2"))
    bond = Port(
        "bond0",
        members,
        bond_mode=PortBondMode.BALANCE_TCP,
        bond_updelay=200,
        lacp=Lacp.ACTIVE,
        other_config={"lacp-time": "fast", "lacp-fallback-ab": "true", "bond-hash-basis": "7"},
    )
    await reach(client, replica, VSwitch((bridge("br0", bond),)))
    appctl = Appctl(switch.control)
    (shown,) = await appctl.bond_show()
    assert (shown.name, shown.mode, shown.lacp_status) == ("bond0", "balance-tcp", "negotiated")
    assert (shown.fields["updelay"], shown.fields["bond-hash-basis"]) == ("200 ms", "7")
    assert shown.fields["lacp_fallback_ab"] == "true"
    assert {member.name for member in shown.members} == {"eth1", "eth2"}
    assert "lacp_time: fast" in await appctl.call("lacp/show", "bond0")

    slb = replace(
        bond, interfaces=(*members, device("eth3")), bond_mode=PortBondMode.BALANCE_SLB, lacp=None, other_config={}
    )
    await reach(client, replica, VSwitch((bridge("br0", slb),)))
    (shown,) = await appctl.bond_show()
    assert (shown.mode, shown.lacp_status, shown.fields["lacp_fallback_ab"]) == ("balance-slb", "off", "false")
    assert {member.name for member in shown.members} == {"eth1", "eth2", "eth3"}

    # Split: its members become ports of their own, as the same rows.
    rows = table(switch, "Interface", "name", "_uuid")
    await reach(client, replica, VSwitch((bridge("br0", dummy("eth1"), dummy("eth2")),)))
    assert await appctl.bond_show() == ()
    assert table(switch, "Interface", "name", "_uuid").items() <= rows.items()


async def test_qos_and_queues(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    qos = Qos(
        type="linux-htb",
        other_config={"max-rate": "1000000000"},
        queues={0: Queue(other_config={"min-rate": "1000"}), 5: Queue(dscp=0)},
    )
    await reach(client, replica, VSwitch((bridge("br0", dummy("tap0", qos=qos)),)))
    (row,) = table(switch, "QoS", "_uuid", "type", "other_config", "queues").values()
    assert (row["type"], row["other_config"]) == ("linux-htb", {"max-rate": "1000000000"})
    queues = table(switch, "Queue", "_uuid", "dscp", "other_config")
    assert {number: queues[uuid] for number, uuid in row["queues"].items()} == {
        0: {"_uuid": row["queues"][0], "dscp": None, "other_config": {"min-rate": "1000"}},
        5: {"_uuid": row["queues"][5], "dscp": 0, "other_config": {}},
    }
    assert table(switch, "Port", "name", "qos")["tap0"]["qos"] == row["_uuid"]

    less = replace(qos, queues={5: Queue(dscp=3)}, other_config={})
    await reach(client, replica, VSwitch((bridge("br0", dummy("tap0", qos=less)),)))
    (changed,) = table(switch, "QoS", "_uuid", "other_config", "queues").values()
    assert changed == {"_uuid": row["_uuid"], "other_config": {}, "queues": {5: row["queues"][5]}}
    assert table(switch, "Queue", "dscp", "_uuid") == {"3": {"_uuid": row["queues"][5], "dscp": 3}}

    await reach(client, replica, VSwitch((bridge("br0", dummy("tap0")),)))
    assert (table(switch, "QoS", "_uuid"), table(switch, "Queue", "_uuid")) == ({}, {})


async def test_mirrors_and_collectors(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    mirror = Mirror("m0", select_src_port=frozenset({"tap0", "late"}), output_port="span", snaplen=100)
    br0 = bridge(
        "br0",
        dummy("tap0"),
        dummy("span"),
        mirrors=(mirror, Mirror("m1", select_all=True, output_vlan=99)),
        netflow=NetFlow(frozenset({"127.0.0.1:2055"}), active_timeout=30),
        sflow=Sflow(frozenset({"127.0.0.1:6343"}), sampling=64, polling=10, header=128, agent="lo"),
        ipfix=Ipfix(frozenset({"127.0.0.1:4739"}), sampling=32, obs_domain_id=1),
    )
    await reach(client, replica, VSwitch((br0,)))
    ports = {row["name"]: row["_uuid"] for row in table(switch, "Port", "name", "_uuid").values()}
    mirrors = table(switch, "Mirror", "name", "select_src_port", "output_port", "snaplen", "select_all", "output_vlan")
    assert mirrors["m0"]["select_src_port"] == ports["tap0"]
    assert (mirrors["m0"]["output_port"], mirrors["m0"]["snaplen"]) == (ports["span"], 100)
    assert (mirrors["m1"]["select_all"], mirrors["m1"]["output_vlan"]) == (True, 99)
    assert [str(gap) for gap in plan(VSwitch((br0,)), replica).unresolved] == [
        "Mirror br0/m0: select_src_port: no Port late"
    ]
    assert table(switch, "NetFlow", "targets", "active_timeout")["127.0.0.1:2055"]["active_timeout"] == 30
    assert table(switch, "sFlow", "targets", "sampling", "polling", "header", "agent") == {
        "127.0.0.1:6343": {"targets": "127.0.0.1:6343", "sampling": 64, "polling": 10, "header": 128, "agent": "lo"}
    }
    assert table(switch, "IPFIX", "targets", "sampling", "obs_domain_id")["127.0.0.1:4739"]["sampling"] == 32

    # Somebody's port appears under the name that the mirror waits for.
    switch.server.vsctl("add-port", "br0", "late", "--", "set", "interface", "late", "type=dummy")
    await client.transact()  # what was committed before it is in the replica
    await reach(client, replica, VSwitch((br0,)))
    late = table(switch, "Port", "name", "_uuid")["late"]["_uuid"]
    assert table(switch, "Mirror", "name", "select_src_port")["m0"]["select_src_port"] == {ports["tap0"], late}

    await reach(client, replica, VSwitch((replace(br0, mirrors=(), netflow=None, sflow=None, ipfix=None),)))
    for name in ("Mirror", "NetFlow", "sFlow", "IPFIX"):
        assert table(switch, name, "_uuid") == {}
    assert "late" in switch.server.vsctl("list-ports", "br0")


async def test_sets_of_collectors_of_samples(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    one, other, elsewhere = (Ipfix(frozenset({f"127.0.0.1:{port}"})) for port in (4739, 4740, 4741))
    br0 = bridge("br0", sample_sets=(SampleSet(7, one), SampleSet(8, other)))
    await reach(client, replica, VSwitch((br0,)))
    row = table(switch, "Bridge", "name", "_uuid")["br0"]["_uuid"]
    sets = table(switch, "Flow_Sample_Collector_Set", "id", "bridge", "ipfix", "_uuid")
    assert {number: it["bridge"] for number, it in sets.items()} == {"7": row, "8": row}
    targets = {it["_uuid"]: it["targets"] for it in table(switch, "IPFIX", "targets", "_uuid").values()}
    assert {number: targets[it["ipfix"]] for number, it in sets.items()} == {
        "7": "127.0.0.1:4739",
        "8": "127.0.0.1:4740",
    }

    # Somebody's own set stays, and keeps its number.
    switch.server.vsctl(
        "--id=@b", "get", "bridge", "br0", "--", "create", "Flow_Sample_Collector_Set", "id=9", "bridge=@b"
    )
    await client.transact()
    more = VSwitch((replace(br0, sample_sets=(SampleSet(7, elsewhere), SampleSet(9, one))),))
    todo = plan(more, replica)
    assert [str(it) for it in todo.conflicts] == [
        "Flow_Sample_Collector_Set br0/9: is not ours (it is in Bridge br0): remove it, or choose another name"
    ]
    await apply(client, todo.additions)
    await apply(client, todo.removals)
    after = table(switch, "Flow_Sample_Collector_Set", "id", "_uuid", "ipfix")
    assert (after.keys(), after["7"]["_uuid"]) == ({"7", "9"}, sets["7"]["_uuid"])
    assert table(switch, "IPFIX", "targets").keys() == {"127.0.0.1:4741"}
    switch.server.vsctl("--all", "destroy", "Flow_Sample_Collector_Set")
    await client.transact()

    # A bridge that somebody took off is kept by its sets, with its name.
    await reach(client, replica, VSwitch((br0,)))
    switch.server.vsctl("clear", "open_vswitch", ".", "bridges")
    await client.transact()
    await reach(client, replica, VSwitch((br0,)))
    assert table(switch, "Bridge", "name", "_uuid")["br0"]["_uuid"] != row
    await reach(client, replica, VSwitch())
    for name in ("Bridge", "IPFIX", "Flow_Sample_Collector_Set"):
        assert table(switch, name, "_uuid") == {}


async def test_a_mirror_lets_go_of_a_port_that_goes(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    """ovsdb-server 3.1 keeps a reference to nothing if one transaction deletes the port and writes the column."""
    names = frozenset({"old", "other"})
    before = (dummy("span"), dummy("other"), Port("old", (device("eth0"),)))
    mirror = Mirror("m0", select_src_port=names, output_port="span")
    await reach(client, replica, VSwitch((bridge("br0", *before, mirrors=(mirror,)),)))
    after = (dummy("span"), Port("new", (device("eth0"),)))
    await reach(client, replica, VSwitch((bridge("br0", *after, mirrors=(mirror,)),)))
    assert table(switch, "Mirror", "name", "select_src_port")["m0"]["select_src_port"] is None


async def test_what_is_others_stays(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    switch.server.vsctl(
        *("add-br", "xenbr0", "--", "set", "bridge", "xenbr0", "datapath_type=dummy"),
        *("--", "add-port", "xenbr0", "vif1", "--", "set", "interface", "vif1", "type=dummy"),
    )
    ours = VSwitch((bridge("br0", dummy("a"), dummy("b")),), (Attachment("xenbr0", (dummy("p"),)),))
    await client.transact()
    await reach(client, replica, ours)
    switch.server.vsctl(
        *("add-port", "br0", "vif2", "tag=7", "--", "set", "interface", "vif2", "type=dummy"),
        *("external_ids:iface-id=x", "--", "set", "port", "a", "external_ids:theirs=1"),
        *("--", "set", "bridge", "br0", "external_ids:theirs=2", "--", "set-controller", "xenbr0", "tcp:127.0.0.1:1"),
    )
    await client.transact()
    foreign = _foreign(replica)
    assert not plan(ours, replica)
    await reach(client, replica, VSwitch((bridge("br0", dummy("a", tag=9), dummy("c")),)))
    assert _foreign(replica) == foreign
    assert switch.server.vsctl("list-ports", "br0").split() == ["a", "c", "vif2"]
    assert switch.server.vsctl("list-ports", "xenbr0").split() == ["vif1"]
    assert table(switch, "Port", "name", "external_ids")["a"]["external_ids"]["theirs"] == "1"
    assert table(switch, "Bridge", "name", "external_ids")["br0"]["external_ids"]["theirs"] == "2"

    # The bridge cannot go while somebody's port is on it: all else of ours goes, and we are told.
    todo = plan(VSwitch(), replica)
    assert [str(conflict) for conflict in todo.conflicts] == [
        "Bridge br0: is to be removed, but holds ports that have to stay: vif2"
    ]
    await apply(client, todo)
    assert _foreign(replica) == foreign
    assert switch.server.vsctl("list-ports", "br0").split() == ["vif2"]
    assert not plan(VSwitch(), replica)
    switch.server.vsctl("del-port", "vif2")
    await client.transact()
    await reach(client, replica, VSwitch())
    assert switch.server.vsctl("list-br").split() == ["xenbr0"]


def _foreign(replica: Replica) -> dict[str, dict[str, Any]]:
    """All rows without our mark, less the sets in which members of ours hang."""
    return {
        table: {
            uuid: {name: value for name, value in row.as_dict().items() if name not in ("ports", "bridges")}
            for uuid, row in replica[table].items()
            if not OwnerMark().owns(row)
        }
        for table in replica
    }


async def test_what_is_in_the_way_is_a_conflict(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    switch.server.vsctl(
        *("add-br", "taken", "--", "set", "bridge", "taken", "datapath_type=dummy"),
        *("--", "add-port", "taken", "vif1", "--", "set", "interface", "vif1", "type=dummy"),
        *("--", "add-port", "taken", "vif2", "--", "set", "interface", "vif2", "type=dummy"),
        *("--", "--id=@m", "create", "Manager", 'target="ptcp:1:127.0.0.1"', "--", "set", "Open_vSwitch", "."),
        "manager_options=@m",
    )
    await client.transact()
    before = _foreign(replica)
    desired = VSwitch(
        (
            bridge("taken", dummy("x")),
            bridge("br0", dummy("good"), dummy("vif1"), Port("bond", (device("eth0"), device("vif2")))),
        ),
        (Attachment("missing", (dummy("y"),)),),
        (Manager("ptcp:1:127.0.0.1"),),
    )
    todo = plan(desired, replica)
    assert sorted(map(str, todo.conflicts)) == [
        "Bridge taken: is not ours: remove it, or choose another name",
        "Manager ptcp:1:127.0.0.1: is not ours: remove it, or choose another name",
        "Port bond: Interface vif2 is not ours (it is in Port vif2): remove it, or choose another name",
        "Port taken: Bridge taken is in conflict",
        "Port vif1: is not ours (it is in Bridge taken): remove it, or choose another name",
        "Port x: Bridge taken is in conflict",
        "Port y: there is no Bridge missing to put it on",
    ]
    await apply(client, todo)
    assert _foreign(replica) == before
    assert switch.server.vsctl("list-ports", "br0").split() == ["good"]
    assert not plan(desired, replica)


async def test_what_ovs_vswitchd_cannot_do_is_reported(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    desired = VSwitch((bridge("br0", dummy("good"), Port("bad", (Interface("bad", "no-such-type"),))),))
    (done,) = await reach(client, replica, desired)
    assert done.errors.keys() == {"bad"}
    assert "could not open network device bad" in done.errors["bad"]
    (done,) = await reach(client, replica, VSwitch((bridge("br0", dummy("good", tag=5), dummy("bad")),)))
    assert done.errors == {}


async def test_without_ovs_vswitchd_the_wait_ends(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    switch.stop()
    desired = VSwitch((bridge("br0"),))
    with pytest.raises(NotConfigured, match=r"within 0\.2 s \(it is at 0\): is it running"):
        await apply(client, plan(desired, replica), timeout_s=0.2)
    assert not plan(desired, replica)  # the database has it
    switch.start()
    await apply(client, plan(VSwitch((bridge("br0", dummy("a")),)), replica))
    assert "br0" in switch.appctl("dpif/show")


async def test_drift_in_what_is_ours_is_put_back(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    port = Port("tap0", (device("tap0", external_ids={"iface-id": "x", "gone": "1"}),), tag=5, other_config={"k": "v"})
    desired = VSwitch((bridge("br0", port, dummy("tap1")),))
    await reach(client, replica, desired)
    switch.server.vsctl(
        *("set", "port", "tap0", "tag=6", "other_config:k=w", "other_config:more=1"),
        *("--", "set", "interface", "tap0", "external_ids:iface-id=y", "--", "del-port", "tap1"),
        *("--", "set", "bridge", "br0", "fail_mode=standalone"),
    )
    await client.transact()
    assert sorted(str(change) for change in plan(desired, replica)) == [
        "add Interface tap1: type=dummy, external_ids={vnet-owner=agent}",
        "add Port tap1 to Bridge br0: interfaces={tap1}, external_ids={vnet-owner=agent}",
        "update Bridge br0: fail_mode standalone -> secure",
        "update Interface tap0: external_ids:iface-id=x",
        "update Port tap0: tag 6 -> 5, other_config {k=w, more=1} -> {k=v}",
    ]
    await reach(client, replica, desired)
    fewer = replace(port, interfaces=(device("tap0", external_ids={"iface-id": "x"}),))
    assert [str(change) for change in plan(VSwitch((bridge("br0", fewer, dummy("tap1")),)), replica)] == [
        'update Interface tap0: external_ids:vnet-owner-keys=["iface-id"], no external_ids:gone'
    ]


async def test_options_that_nobody_says_stay(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    desired = VSwitch((bridge("br0", Port("nic0", (device("nic0", options=None),))),))
    await reach(client, replica, desired)
    switch.server.vsctl("set", "interface", "nic0", "options:dpdk-devargs=x", "mtu_request=1400")
    await client.transact()
    assert [str(change) for change in plan(desired, replica)] == ["update Interface nic0: mtu_request 1400 -> none"]
    await reach(client, replica, desired)
    assert table(switch, "Interface", "name", "options")["nic0"]["options"] == {"dpdk-devargs": "x"}


async def test_two_owners_share_a_switch(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    one, two = OwnerMark(name="one"), OwnerMark(name="two")
    await apply(client, plan(VSwitch((bridge("br1", dummy("a")),)), replica, one))
    await apply(client, plan(VSwitch((bridge("br2"),), (Attachment("br1", (dummy("b"),)),)), replica, two))
    assert switch.server.vsctl("list-ports", "br1").split() == ["a", "b"]
    await apply(client, plan(VSwitch((bridge("br1", dummy("c")),)), replica, one))
    assert switch.server.vsctl("list-ports", "br1").split() == ["b", "c"]
    await apply(client, plan(VSwitch(), replica, two))
    assert switch.server.vsctl("list-ports", "br1").split() == ["c"]
    assert switch.server.vsctl("list-br").split() == ["br1"]


async def test_a_row_deleted_meanwhile_is_stale(switch: Vswitchd, client: OvsdbClient, replica: Replica) -> None:
    await reach(client, replica, VSwitch((bridge("br0", dummy("a"), dummy("b")),)))
    todo = plan(VSwitch((bridge("br0", dummy("a", tag=1), dummy("b", tag=1)),)), replica)
    switch.server.vsctl("del-port", "a")
    done = await apply(client, todo)
    assert done is not None
    assert [change.row.id.key for change in done.stale] == [("a",)]
    assert table(switch, "Port", "name", "tag")["b"]["tag"] == 1


@pytest.mark.usefixtures("netns")
async def test_the_userspace_datapath_with_devices_of_the_kernel() -> None:
    with vswitchd(dummy=False, own_netns=True) as switch:
        async with OvsdbClient(switch.server.remote, "Open_vSwitch") as client:
            replica = await client.monitor(monitors(client.schema))
            desired = VSwitch(
                (
                    Bridge(
                        "br-int",
                        (internal_port("vnic0", mtu_request=1400), tunnel_port("gnv0", "geneve"), Port("nosuch0")),
                    ),
                    Bridge("br-up", (patch_port("up-int", "int-up"),)),
                )
            )
            (done,) = await reach(client, replica, desired)
            assert done.errors.keys() == {"nosuch0"}
            interfaces = table(switch, "Interface", "name", "mtu", "ofport", "error")
            assert interfaces["vnic0"]["mtu"] == 1400
            assert interfaces["gnv0"]["ofport"] > 0
            assert "netdev@ovs-netdev" in switch.appctl("dpif/show")
            await reach(client, replica, VSwitch())
            assert switch.server.vsctl("list-br") == ""


def test_plans_are_true_when_there_is_something_to_do() -> None:
    assert not RowPlan()
