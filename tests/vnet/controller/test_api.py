"""The REST API of a real controller on its own database: objects, where they are, what is refused, and events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from tests.vnet.controller.daemons import Controller
from tests.vnet.controller.databases import FakeAgent
from vnet import api
from vnet.client import (
    AsyncClient,
    Conflict,
    Invalid,
    NetworkChange,
    NetworkSpec,
    NewVif,
    NotFound,
    Refused,
    Rule,
    SecurityGroupSpec,
    VifSpec,
    VmSpec,
)
from vnet.db.database import PoolDatabase


@pytest.fixture
async def raw(running: Controller) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(running.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as made:
        yield made


async def test_a_vif_from_its_making_to_its_end(client: AsyncClient, pool: PoolDatabase) -> None:
    spec = VifSpec(network="tenant", vm="life", addresses=["10.1.0.10"], host="xen1")
    made = await client.put_vif("life/0", spec)
    assert (made.vm, made.owner, made.locking_mode, made.place.state) == ("life", "toolstack", "locked", "defined")
    assert made.place.since is not None
    assert [reason.code for reason in made.place.why] == ["no-agent"]

    agent = FakeAgent(pool, "xen1", client)
    await agent.beat()
    assert [reason.code for reason in (await client.vif("life/0")).place.why] == ["no-port"]
    await agent.claim("life/0", ready=False)
    claimed = (await client.vif("life/0")).place
    assert (claimed.state, claimed.host, [r.code for r in claimed.why]) == ("claimed", "xen1", ["programming"])
    await agent.release("life/0")
    await agent.claim("life/0")
    ready = (await client.vif("life/0")).place
    assert (ready.state, ready.host, ready.why) == ("ready", "xen1", [])
    assert ready.since is not None
    assert ready.since > made.place.since

    await client.delete_vif("life/0")
    assert not [binding for binding in await client.bindings() if binding.vif == "life/0"]
    with pytest.raises(NotFound):
        await client.vif("life/0")
    await client.delete_vif("life/0")  # again: a lost answer is repeated
    await client.delete_vm("life")


async def test_the_same_call_again_changes_nothing_and_another_names_the_field(client: AsyncClient) -> None:
    spec = VifSpec(network="tenant", vm="again", addresses=["10.1.0.20"])
    first = await client.put_vif("again/0", spec)
    revision = (await client.pool()).revision
    assert await client.put_vif("again/0", spec) == first
    assert await client.create_vif(NewVif(network="tenant", vm="again", index=0)) == first
    assert (await client.pool()).revision == revision
    for field, value in [("network", "prod"), ("mac", "0a:00:00:00:00:99"), ("addresses", ["10.1.0.21"]), ("vm", "x")]:
        with pytest.raises(Conflict) as caught:
            await client.put_vif("again/0", msgspec.structs.replace(spec, **{field: value}))
        assert (caught.value.code, caught.value.where) == ("vif-exists", field)
    await client.delete_vm("again")


async def test_an_allocated_mac_is_kept_and_is_nobodys_elses(client: AsyncClient) -> None:
    made = [await client.put_vif(f"macs/{n}", VifSpec(network="tenant", vm="macs")) for n in range(5)]
    assert len({vif.mac for vif in made}) == 5
    assert [vif.index for vif in made] == [0, 1, 2, 3, 4]
    await client.delete_vif("macs/2")
    assert (await client.put_vif("macs/2", VifSpec(network="tenant", vm="macs"))).mac == made[2].mac
    await client.delete_vm("macs")
    with pytest.raises(Invalid, match="there is no VM macs"):
        await client.vifs(vm="macs")
    assert not [vif for vif in await client.vifs() if vif.vm == "macs"]


REFUSED: list[tuple[str, dict[str, Any], int, str, str, str]] = [
    ("r/0", {"network": "tennant"}, 400, "unknown-network", "network", "did you mean 'tenant'"),
    ("r/0", {"network": "tenant", "host": "xen9"}, 400, "unknown-host", "host", "host xen9 is not in the pool"),
    ("r/0", {"network": "tenant", "mac": "01:00:00:00:00:01"}, 400, "wrong-mac", "mac", "multicast"),
    ("r/0", {"network": "tenant", "mac": "nonsense"}, 400, "wrong-mac", "mac", "is no MAC address"),
    (
        "r/0",
        {"network": "tenant", "addresses": ["10.1.0.300"]},
        400,
        "wrong-address",
        "addresses[0]",
        "no IPv4 or IPv6",
    ),
    ("r/0", {"network": "tenant", "trunk": [10]}, 400, "trunk", "trunk", "'tag: untagged'; tenant is not"),
    ("r/0", {"network": "bare", "trunk": []}, 400, "empty-list", "trunk", "list tags"),
    ("r/0", {"network": "bare", "trunk": [5000]}, 400, "out-of-range", "trunk[0]", "1..4094"),
    ("a b", {"network": "tenant"}, 400, "wrong-name", "id", "is no VIF id"),
    ("r/0", {}, 400, "missing-key", "", "a VIF needs 'network'"),
    ("r/0", {"network": "tenant", "colour": "red"}, 400, "unknown-key", "colour", "unknown key 'colour'"),
    ("r/0", {"network": ["tenant"]}, 400, "wrong-type", "network", "found a list"),
    ("r/0", {"network": "tenant", "awaited": True}, 400, "awaited", "host", "'host' is missing"),
]


@pytest.mark.parametrize(("id", "body", "status", "code", "path", "text"), REFUSED)
async def test_a_bad_vif_is_refused_whole(
    raw: httpx.AsyncClient, id: str, body: dict[str, Any], status: int, code: str, path: str, text: str
) -> None:
    before = (await raw.get("/v1/pool")).json()
    answer = await raw.put(f"/v1/vifs/{id.replace('/', '%2F')}", json=body)
    problem = msgspec.json.decode(answer.content, type=api.Problem)
    assert (answer.status_code, problem.code, problem.where) == (status, code, path)
    assert text in problem.message
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await raw.get("/v1/pool")).json() == before


async def test_macs_and_addresses_are_taken_once_on_a_network(client: AsyncClient) -> None:
    mac, address = "0a:00:00:00:aa:01", "10.1.0.30"
    await client.put_vif("taken/0", VifSpec(network="tenant", vm="taken", mac=mac, addresses=[address]))
    with pytest.raises(Conflict, match=f"{mac} is that of VIF taken/0"):
        await client.put_vif("taken/1", VifSpec(network="tenant", mac=mac))
    with pytest.raises(Conflict, match=f"{address} .* is taken by VIF taken/0"):
        await client.put_vif("taken/1", VifSpec(network="tenant", addresses=[address]))
    await client.put_vif("taken/1", VifSpec(network="prod", vm="taken", mac=mac, addresses=[address]))
    with pytest.raises(Invalid, match="needs an id, or a VM and an index"):
        await client.create_vif(NewVif(network="tenant", vm="taken"))
    await client.delete_vm("taken")


async def test_lists_and_their_filters(client: AsyncClient, pool: PoolDatabase) -> None:
    await client.put_vif("f/0", VifSpec(network="tenant", vm="f", host="xen2"))
    await client.put_vif("f/1", VifSpec(network="prod", vm="f", host="xen3"))
    await FakeAgent(pool, "xen2", client).claim("f/0")

    async def ids(**filters: str) -> list[str]:
        return [vif.id for vif in await client.vifs(**filters)]

    assert await ids(vm="f") == ["f/0", "f/1"]
    assert await ids(vm="f", network="prod") == ["f/1"]
    assert await ids(vm="f", host="xen2") == ["f/0"]
    assert await ids(vm="f", host="xen3") == ["f/1"]
    assert await ids(vm="f", state="ready") == ["f/0"]
    assert await ids(vm="f", state="defined") == ["f/1"]
    assert [b.host for b in await client.bindings(vif="f/0")] == ["xen2"]
    assert {h.name: h.vifs for h in await client.hosts()}["xen2"] == 1
    assert [v.id for v in (await client.vm("f")).vifs] == ["f/0", "f/1"]
    await client.delete_vm("f")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/vifs?state=gone", 400, "query"),
        ("/v1/vifs?colour=red", 400, "query"),
        ("/v1/vifs?vm=a&vm=b", 400, "query"),
        ("/v1/events?limit=-1", 400, "query"),
        ("/v1/events?limit=99999999999999999999", 400, "query"),
        ("/v1/events?colour=red", 400, "query"),
        ("/v1/nothing", 404, "no-such-path"),
        ("/v1/vifs/a/b", 404, "no-such-path"),
        ("/v1/hosts/xen", 404, "unknown-host"),
        ("/v1/networks/%2e%2e", 404, "unknown-network"),
    ],
)
async def test_bad_reads_are_problems(raw: httpx.AsyncClient, path: str, status: int, code: str) -> None:
    answer = await raw.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "json"),
        (b"\xff\xfe", "json"),
        (b"[" * 100_000, "json"),
        (b"[]", "wrong-type"),
        (b"null", "missing-key"),
        (b'{"network": "a", "network": 1}', "duplicate-key"),
    ],
)
async def test_what_is_no_json_is_refused(raw: httpx.AsyncClient, body: bytes, code: str) -> None:
    answer = await raw.put("/v1/vifs/x", content=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == code


async def test_an_oversized_body_is_refused_however_it_comes(raw: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(api.MAX_BODY_BYTES // 65536 + 2):
            yield b" " * 65536

    answer = await raw.post("/v1/apply", content=b" " * (api.MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    answer = await raw.post("/v1/apply", content=chunks())
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
    assert (await raw.get("/v1/status")).status_code == 200


async def test_networks_by_the_toolstack(client: AsyncClient) -> None:
    made = await client.put_network("blue", NetworkSpec(type="geneve"))
    assert (made.type, made.mtu, made.owner) == ("geneve", 1550, "toolstack")
    assert await client.put_network("blue", NetworkSpec(type="geneve")) == made
    vlan = await client.put_network("v", NetworkSpec(type="vlan", tag=7, uplink="trunk0", mtu=1400))
    assert (vlan.key, vlan.tag, vlan.mtu) == (None, 7, 1400)
    await client.put_vif("n/0", VifSpec(network="blue", vm="n"))
    with pytest.raises(Conflict, match="network blue cannot go: it still has VIF n/0"):
        await client.delete_network("blue")
    assert {n.name: n.vifs for n in await client.networks()}["blue"] == 1
    await client.delete_vm("n")
    for name in ("blue", "v", "v"):
        await client.delete_network(name)
    refusals: list[tuple[NetworkSpec, str, type[Refused]]] = [
        (NetworkSpec(type="vlan", tag=120, uplink="trunk0"), "duplicate-tag", Conflict),
        (NetworkSpec(type="vlan", tag=121, uplink="trunk9"), "unknown-uplink", Invalid),
        (NetworkSpec(type="vlan", tag=121), "missing-key", Invalid),
        (NetworkSpec(type="vxlan", mtu=1551), "mtu", Invalid),
        (NetworkSpec(type="vxlan", vni=5001), "duplicate-key-or-vni", Conflict),
        (NetworkSpec(type="internal", key=1), "wrong-variant", Invalid),
        (NetworkSpec(type="vxlan", key=1), "wrong-variant", Invalid),
        (NetworkSpec(type="vxlan", hosts=["xen7"]), "unknown-host", Invalid),
    ]
    for spec, code, refused in refusals:
        with pytest.raises(refused) as caught:
            await client.put_network("bad", spec)
        assert caught.value.code == code


HTTP = Rule(name="http", direction="ingress", protocol="tcp", ports=[443, "80-82", 83])


async def test_a_network_is_encrypted_and_keys_are_made_anew(client: AsyncClient) -> None:
    with pytest.raises(Conflict, match="no network is encrypted"):
        await client.rekey()
    await client.put_network("dark", NetworkSpec(type="geneve"))
    plan = await client.change_network("dark", NetworkChange(encryption="required"))
    mtu = plan.changes[0].fields["mtu"]
    assert (mtu.old, mtu.new) == (1550, 1600 - 70 - 60)
    assert (await client.rekey()).key_epoch == (await client.pool()).key_epoch == 1
    plan = await client.change_network("dark", NetworkChange(encryption=None))
    assert (plan.changes[0].fields["mtu"].new, (await client.network("dark")).encryption) == (1550, None)
    await client.delete_network("dark")


async def test_security_groups_by_the_toolstack(client: AsyncClient, pool: PoolDatabase) -> None:
    made = await client.put_security_group("sg-web", SecurityGroupSpec(rules=[HTTP]))
    assert (made.ingress, made.egress, made.owner, made.vifs) == ("drop", "allow", "toolstack", 0)
    assert made.rules == [msgspec.structs.replace(HTTP, ports=["80-83", 443])]
    revision = (await client.pool()).revision
    assert await client.put_security_group("sg-web", SecurityGroupSpec(rules=[HTTP])) == made
    assert (await client.pool()).revision == revision, "the same call again changes nothing"
    peers = Rule(name="peers", direction="ingress", remote="sg-web")
    db = await client.put_security_group("sg-db", SecurityGroupSpec(egress="drop", rules=[peers]))
    assert db.number != made.number

    spec = VifSpec(network="tenant", vm="sg", security_groups=["sg-web"], host="xen1")
    vif = await client.put_vif("sg/0", spec)
    assert vif.security_groups == ["sg-web"]
    assert await client.put_vif("sg/0", spec) == vif
    with pytest.raises(Conflict, match="exists with security-groups sg-web, not none"):
        await client.put_vif("sg/0", msgspec.structs.replace(spec, security_groups=[]))
    with pytest.raises(Invalid, match="unknown security group 'sg-wbe'; did you mean 'sg-web'"):
        await client.put_vif("sg/1", VifSpec(network="tenant", vm="sg", security_groups=["sg-wbe"]))
    agent = FakeAgent(pool, "xen1", client)
    await agent.claim("sg/0")
    (bound,) = await client.bindings(vif="sg/0")
    assert (bound.security_groups, bound.moved) == (["sg-web"], False)

    # Its rules change under the VIFs in it, and so does who is in it.
    wider = await client.put_security_group("sg-web", SecurityGroupSpec(ingress="allow", rules=[]))
    assert (wider.number, wider.ingress, wider.rules, wider.vifs) == (made.number, "allow", [], 1)
    moved = await client.set_security_groups("sg/0", ["sg-web", "sg-db"])
    assert (moved.security_groups, moved.place.host) == (["sg-db", "sg-web"], "xen1")
    assert await client.set_security_groups("sg/0", ["sg-db", "sg-web"]) == moved
    kinds = [event.kind for event in await client.events(50)]
    assert {"security-group-created", "security-group-changed", "vif-security-groups"} <= set(kinds)

    with pytest.raises(Conflict, match="security group sg-db cannot go: it still has VIF sg/0"):
        await client.delete_security_group("sg-db")
    assert (await client.set_security_groups("sg/0", [])).security_groups == []
    with pytest.raises(Conflict, match="security group sg-web cannot go: it still has a rule of security group sg-db"):
        await client.delete_security_group("sg-web")
    assert {group.name for group in await client.security_groups()} >= {"sg-db", "sg-web"}
    await client.delete_vm("sg")
    for name in ("sg-db", "sg-web", "sg-web"):
        await client.delete_security_group(name)
    with pytest.raises(NotFound, match="there is no security group sg-web"):
        await client.security_group("sg-web")


BAD_RULES: list[tuple[dict[str, Any], str]] = [
    (
        {"remote": "10.1.0.5"},
        "rules[0].remote: '10.1.0.5' has no prefix length; for this address alone write 10.1.0.5/32",
    ),
    ({"remote": "10.1.0.5/24"}, "has bits set beyond its prefix; the subnet is 10.1.0.0/24"),
    ({"remote": "nobody"}, "rules[0].remote: unknown security group 'nobody'"),
    ({"ports": [80]}, "rules[0].ports: 'ports' without 'protocol: tcp', 'udp' or 'sctp'"),
    ({"protocol": "tcp", "ports": ["9-1"]}, "rules[0].ports[0]: the range 9-1 ends before it begins"),
    ({"protocol": "tcp", "ports": ["80:90"]}, "rules[0].ports[0]: wanted a port, 0..65535, or a range as 443-445"),
    ({"protocol": "tcp", "ports": [65536]}, "rules[0].ports[0]: 65536 is out of range"),
    ({"protocol": 6}, "protocol 6 is written by its name; did you mean 'tcp'?"),
    ({"protocol": "sctq"}, "vrrp, sctp, or its number, 0..255, found the string \"sctq\"; did you mean 'sctp'?"),
    ({"action": "accept"}, "allow, drop, reject, found the string \"accept\"; did you mean 'allow'?"),
    ({"direction": "in"}, "ingress, egress, found the string \"in\"; did you mean 'ingress'?"),
    ({"name": "a b"}, "is no name"),
    ({"cidr": "10.0.0.0/8"}, "unknown key 'cidr' in a rule; did you mean 'remote'?"),
]


@pytest.mark.parametrize(("rule", "text"), BAD_RULES)
async def test_a_bad_rule_is_refused_whole(raw: httpx.AsyncClient, rule: dict[str, Any], text: str) -> None:
    body = {"rules": [{"name": "bad", "direction": "ingress", **rule}]}
    answer = await raw.put("/v1/security-groups/sg-bad", json=body)
    assert (answer.status_code, text in answer.json()["message"]) == (400, True), answer.text
    assert (await raw.get("/v1/security-groups/sg-bad")).status_code == 404


async def test_groups_that_are_none(client: AsyncClient) -> None:
    with pytest.raises(Invalid, match="http stands twice"):
        await client.put_security_group("sg", SecurityGroupSpec(rules=[HTTP, HTTP]))
    for name in ("any", "10.0.0.1", "a b"):
        with pytest.raises(Invalid, match=r"cannot be named|is no name"):
            await client.put_security_group(name, SecurityGroupSpec())
    await client.put_security_group("sg", SecurityGroupSpec())
    trunk = VifSpec(network="bare", vm="sg", trunk="all", security_groups=["sg"])
    with pytest.raises(Invalid, match="security_groups: a trunk VIF cannot be in security groups"):
        await client.put_vif("sg/0", trunk)
    with pytest.raises(NotFound):
        await client.set_security_groups("sg/0", ["sg"])
    await client.delete_security_group("sg")


async def test_hosts_by_the_toolstack(client: AsyncClient) -> None:
    uplink = api.Uplink(name="trunk0", members=["eth2", "eth1"], mode="lacp", lacp_time="fast")
    spec = api.HostSpec(address="10.99.0.9", uplinks=[uplink])
    made = await client.put_host("xen9", spec)
    assert (made.uplinks[0].members, made.agent.alive) == (["eth1", "eth2"], False)
    assert await client.put_host("xen9", spec) == made
    with pytest.raises(Conflict, match="has the address of host xen1"):
        await client.put_host("xen8", api.HostSpec(address="10.99.0.1"))
    await client.put_vif("h/0", VifSpec(network="lab", vm="h", host="xen9"))
    with pytest.raises(Conflict, match="host xen9 cannot go: it still has VIF h/0"):
        await client.delete_host("xen9")
    await client.delete_vm("h")
    await client.delete_host("xen9")
    assert "xen9" not in {host.name for host in await client.hosts()}


async def test_many_at_once_all_hold(client: AsyncClient) -> None:
    specs = [VifSpec(network="tenant", vm="many") for _ in range(20)]
    made = await asyncio.gather(*(client.put_vif(f"many/{n}", spec) for n, spec in enumerate(specs)))
    assert len({vif.mac for vif in made}) == len({vif.index for vif in made}) == 20
    await client.delete_vm("many")


async def test_plugging_by_the_controller(client: AsyncClient, pool: PoolDatabase) -> None:
    await client.put_vif("plug/0", VifSpec(network="tenant", vm="plug"))
    agent = FakeAgent(pool, "xen2", client)
    await agent.beat()
    waiting = asyncio.create_task(client.plug_vif("plug/0", "xen2", wait_s=20))
    wanted = await pool.wait_for(lambda view: view.state.vifs["plug/0"].host == "xen2", 10)
    assert wanted
    assert not waiting.done()
    await agent.claim("plug/0")
    assert (await waiting).place.state == "ready"
    with pytest.raises(Conflict, match="host xen2 has the port of VIF plug/0"):
        await client.unplug_vif("plug/0")
    with pytest.raises(Conflict, match="host xen9 is not in the pool"):
        await client.plug_vif("plug/0", "xen9")
    await agent.release("plug/0")
    unplugged = await client.unplug_vif("plug/0")
    assert (unplugged.host, unplugged.place.state) == (None, "defined")
    assert unplugged.place.since is not None
    await client.delete_vm("plug")


async def test_status_tells_what_is_not_as_desired(client: AsyncClient, pool: PoolDatabase) -> None:
    await client.put_vm("s", VmSpec())
    await client.put_vif("s/0", VifSpec(network="tenant", vm="s", host="xen1"))
    await FakeAgent(pool, "xen1", client).beat(
        0, **{"vif s/0": "port tap1 has no ofport", "uplink trunk0": "no NIC eth1"}
    )
    status = await client.status()
    texts = [problem.text for problem in status.problems]
    assert "VIF s/0: host xen1: port tap1 has no ofport" in texts
    assert "host xen1: uplink trunk0: no NIC eth1" in texts
    assert pool.mirror.state.pool is not None
    assert f"host xen1 has programmed generation 0 of {pool.mirror.state.pool.generation}" in texts
    assert "no agent of host xen3 has ever reported" in texts
    assert status.vifs["defined"] == 1
    await client.delete_vm("s")


async def test_events_are_streamed_and_resumed_where_they_broke_off(client: AsyncClient, running: Controller) -> None:
    await client.put_vm("e1", VmSpec())
    # Of hosts, which other tests' agents make live or silent, the leader tells in its own time.
    *_, last = (event for event in await client.events(9) if not event.host)
    assert (last.kind, last.text) == ("vm-created", "VM e1")

    async def follow(count: int, **options: str) -> list[api.Event]:
        async with AsyncClient(running.address) as own:
            seen: list[api.Event] = []
            async for event in own.follow(**options):
                seen += [event] if not event.host else []
                if len(seen) == count:
                    break
            return seen

    following = asyncio.create_task(follow(2, after=last.id))
    await client.put_vm("e2", VmSpec())
    await client.put_vm("e3", VmSpec())
    seen = await asyncio.wait_for(following, 10)
    assert [event.text for event in seen] == ["VM e2", "VM e3"]
    assert [event.text for event in await asyncio.wait_for(follow(1, after=seen[0].id), 10)] == ["VM e3"]
    await client.put_vif("e1/0", VifSpec(network="tenant", vm="e1"))
    assert [event.kind for event in await asyncio.wait_for(follow(1, limit="9", vif="e1/0"), 10)] == ["vif-created"]
    for name in ("e1", "e2", "e3"):
        await client.delete_vm(name)
    newest = await asyncio.wait_for(follow(1, limit="1", vif="e1/0"), 10)
    assert [event.kind for event in newest] == ["vif-deleted"]


async def test_the_api_describes_itself(raw: httpx.AsyncClient) -> None:
    document = (await raw.get("/v1/openapi.json")).json()
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= schemas.keys()
    assert {"Vif", "VifSpec", "Problem", "Migration", "Applied", "Event"} <= references
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations) > 40
    assert all(op["summary"] and op["responses"] for op in operations)
    page = (await raw.get("/v1/")).text
    assert all(path in page for path in document["paths"])
    assert "http:" not in page
    assert "https:" not in page
