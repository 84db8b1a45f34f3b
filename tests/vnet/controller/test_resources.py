"""Every noun through REST and both clients: made, changed in place, removed, asked for without doing it, and refused."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from tests.vnet.controller.daemons import Controller, controller
from tests.vnet.controller.databases import FakeAgent, opened
from tests.vnet.controller.nouns import HTTP, SAMPLES, Sample
from vnet import api
from vnet.client import AsyncClient, Client, Conflict, Invalid, NotFound, PreconditionFailed
from vnet.db.database import PoolDatabase
from vnet.objects.state import CONFIGURED

every_noun = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.noun)


@pytest.fixture(scope="module")
def running(ovs: None) -> Iterator[Controller]:
    with controller() as made:
        yield made


@pytest.fixture
async def client(running: Controller) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(running.address) as made:
        yield made


@pytest.fixture
async def raw(running: Controller) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(running.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as made:
        yield made


@pytest.fixture
async def pool(running: Controller) -> AsyncIterator[PoolDatabase]:
    async with opened(running.database.remote) as database:
        yield database


def test_there_is_a_sample_of_every_noun() -> None:
    assert {sample.noun for sample in SAMPLES} == api.RESOURCES.keys() == {each.NOUN.word for each in CONFIGURED}


async def revision(raw: httpx.AsyncClient) -> int:
    return int((await raw.get("/v1/pool")).json()["revision"])


def stated(answer: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The fields of an answer that a body states; inside a list, of the first item."""
    return {word: answer[word] for word in body}


@every_noun
async def test_a_noun_through_rest(raw: httpx.AsyncClient, sample: Sample) -> None:
    many = f"/v1/{sample.resource.plural}"
    path = f"{many}/{quote(sample.name, safe='')}"
    before = await revision(raw)

    planned = await raw.put(f"{path}?dry-run=true", json=sample.body)
    change, *uplinks = planned.json()["changes"]
    assert {each["kind"] for each in uplinks} <= {"uplink"}
    assert (change["action"], change["kind"], change["name"]) == ("create", sample.noun, sample.name)
    assert (await raw.get(path)).status_code == 404
    assert await revision(raw) == before, "a dry run writes nothing"

    made = await raw.put(path, json=sample.body)
    assert (made.status_code, made.headers["Vnet-Disruption"]) == (200, "none")
    assert made.json()[sample.resource.key] == sample.name
    msgspec.convert(made.json(), sample.resource.answer)
    after = await revision(raw)
    again = await raw.put(path, json=sample.body)
    assert again.json() == made.json()
    assert await revision(raw) == after == before + 1, "the same again changes nothing"
    assert made.json() in (await raw.get(many)).json()

    if sample.differs:
        clash = await raw.put(path, json=sample.other)
        problem = clash.json()
        assert (clash.status_code, problem["code"], problem["where"]) == (409, f"{sample.noun}-exists", sample.differs)

    asked = (await raw.patch(f"{path}?dry-run=true", json=sample.change)).json()
    assert (await raw.get(path)).json() == made.json(), "a dry run changes nothing"
    changed = (await raw.patch(path, json=sample.change)).json()
    assert (asked["changes"], changed["disruption"]) == (changed["changes"], sample.disruption)
    (change,) = changed["changes"]
    assert (change["action"], change["name"]) == ("update", sample.name)
    shown = (await raw.get(path)).json()
    for word, value in sample.change.items():
        assert shown[word] == ([] if value is None and isinstance(made.json()[word], list) else value)
    untouched = sample.body.keys() - sample.change.keys()
    assert {word: shown[word] for word in untouched} == {word: made.json()[word] for word in untouched}
    assert (await raw.patch(path, json=sample.change)).json()["changes"] == []

    gone = (await raw.delete(f"{path}?dry-run=true")).json()
    assert [each["action"] for each in gone["changes"] if each["kind"] == sample.noun] == ["delete"]
    assert (await raw.get(path)).status_code == 200
    assert (await raw.delete(path)).json()["changes"] == gone["changes"]
    assert ((await raw.get(path)).status_code, (await raw.get(path)).json()["code"]) == (404, f"unknown-{sample.noun}")
    assert (await raw.delete(path)).json()["changes"] == [], "a lost answer is asked for again"
    kinds = {event["kind"] for event in (await raw.get("/v1/events")).json()}
    assert {f"{sample.noun}-{verb}" for verb in ("created", "changed", "deleted")} <= kinds


@every_noun
@pytest.mark.parametrize("blocking", [False, True], ids=["asyncio", "blocking"])
async def test_a_noun_through_the_clients(running: Controller, sample: Sample, blocking: bool) -> None:
    client = Client(running.address) if blocking else AsyncClient(running.address)
    noun, resource = sample.method, sample.resource
    spec, change = msgspec.convert(sample.body, resource.spec), msgspec.convert(sample.change, resource.change)

    async def call(name: str, *args: Any, **more: Any) -> Any:
        found = getattr(client, name)(*args, **more)
        return await found if inspect.isawaitable(found) else found

    planned = await call(f"plan_{noun}", sample.name, spec)
    assert [each.action for each in planned.changes if each.kind == sample.noun] == ["create"]
    with pytest.raises(NotFound):
        await call(noun, sample.name)
    made = await call(f"put_{noun}", sample.name, spec)
    assert isinstance(made, resource.answer)
    assert await call(noun, sample.name) == made
    assert made in await call(resource.plural.replace("-", "_"))
    asked = await call(f"change_{noun}", sample.name, change, dry_run=True)
    with pytest.raises(PreconditionFailed):
        await call(f"change_{noun}", sample.name, change, if_match=planned.id)
    assert await call(noun, sample.name) == made
    done = await call(f"change_{noun}", sample.name, change, if_match=asked.id)
    assert (asked.changes, done.disruption) == (done.changes, sample.disruption)
    assert [each.action for each in done.changes] == ["update"]
    assert await call(noun, sample.name) != made
    asked = await call(f"delete_{noun}", sample.name, dry_run=True)
    assert (await call(f"delete_{noun}", sample.name, if_match=asked.id)).changes == asked.changes
    assert (await call(f"delete_{noun}", sample.name)).changes == []
    await call("close")


async def test_the_plan_that_was_shown_is_carried_out_or_nothing(raw: httpx.AsyncClient) -> None:
    path = "/v1/vms/shown"
    await raw.put(path, json={})
    shown = await raw.delete(f"{path}?dry-run=true")
    tag = shown.headers["ETag"]
    assert tag == f'"{shown.json()["id"]}"'
    await raw.put("/v1/vms/elsewhere", json={})
    await raw.put("/v1/vifs/shown%2F0", json={"network": "tenant", "vm": "shown"})  # it would go too
    before = await revision(raw)
    refused = await raw.delete(path, headers={"If-Match": tag})
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["where"]) == (412, "changed", "If-Match")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert await revision(raw) == before
    shown = await raw.delete(f"{path}?dry-run=true")
    await raw.delete("/v1/vms/elsewhere")  # what others change elsewhere makes no other plan
    tags = f'"of-another", {shown.headers["ETag"]}'
    gone = await raw.delete(path, headers={"If-Match": tags})
    assert [each["name"] for each in gone.json()["changes"]] == ["shown/0", "shown"]
    again = await raw.delete(path, headers={"If-Match": tags})
    assert (again.status_code, again.json()["changes"]) == (200, []), "a lost answer is asked for again"


async def test_what_is_allocated_is_what_was_shown(raw: httpx.AsyncClient) -> None:
    await raw.put("/v1/subnets/s4", json={"network": "lab", "cidr": "10.4.0.0/24"})
    body = {"network": "lab"}
    shown = (await raw.put("/v1/vifs/mine?dry-run=true", json=body)).json()
    bound = {"If-Match": f'"{shown["id"]}"'}
    await raw.put("/v1/vifs/theirs", json=body)  # it takes the address
    assert (await raw.put("/v1/vifs/mine", json=body, headers=bound)).status_code == 412
    await raw.delete("/v1/vifs/theirs")
    made = await raw.put("/v1/vifs/mine", json=body, headers=bound)
    (address,) = made.json()["addresses"]
    assert address in shown["text"]
    for name in ("vifs/mine", "subnets/s4"):
        await raw.delete(f"/v1/{name}")


async def test_an_object_is_changed_as_it_was_read(raw: httpx.AsyncClient) -> None:
    path = "/v1/vms/read"
    made = await raw.put(path, json={"title": "first"})
    tag = made.headers["ETag"]
    assert (await raw.get(path)).headers["ETag"] == tag

    async def change(title: str, tags: str) -> int:
        return (await raw.patch(path, json={"title": title}, headers={"If-Match": tags})).status_code

    answers = await asyncio.gather(*(change(f"by {number}", tag) for number in range(5)))
    assert sorted(answers) == [200, 412, 412, 412, 412], "of those who have read the same one comes first"
    assert await change("late", tag) == 412
    tag = (await raw.get(path)).headers["ETag"]
    assert await change("weak", f"W/{tag}") == 412
    assert await change("right", f"W/{tag}, {tag}") == 200
    assert await change("any", "*") == 200
    assert (await raw.put("/v1/vms/none", json={}, headers={"If-Match": "*"})).status_code == 412
    await raw.delete(path)


@pytest.mark.parametrize(
    ("method", "path", "tags"),
    [
        ("DELETE", "/v1/vms/x", "unquoted"),
        ("DELETE", "/v1/vms/x", ""),
        ("DELETE", "/v1/vms/x", ", ".join(['"a"'] * 21)),
        ("POST", "/v1/pool/rekey", '"a"'),
        ("GET", "/v1/vms", "*"),
    ],
)
async def test_a_precondition_that_is_none_or_would_not_be_heeded(
    raw: httpx.AsyncClient, method: str, path: str, tags: str
) -> None:
    refused = await raw.request(method, path, headers={"If-Match": tags})
    assert (refused.status_code, refused.json()["code"]) == (400, "if-match")


@pytest.mark.parametrize(
    ("path", "change"),
    [("hosts/xen1", {"address": "10.99.0.77"}), ("networks/tenant", {"mtu": 1400})],
)
async def test_the_objects_of_the_document_are_changed_there(
    raw: httpx.AsyncClient, path: str, change: dict[str, Any]
) -> None:
    answer = await raw.patch(f"/v1/{path}", json=change)
    assert (answer.status_code, answer.json()["code"]) == (409, "owned-by-document")


@pytest.mark.parametrize("query", ["", "?dry-run=true"])
@pytest.mark.parametrize("path", ["hosts/xen1", "networks/tenant"])
async def test_the_objects_of_the_document_are_removed_there(raw: httpx.AsyncClient, path: str, query: str) -> None:
    answer = await raw.delete(f"/v1/{path}{query}")
    assert (answer.status_code, answer.json()["code"]) == (409, "owned-by-document")
    assert answer.json()["message"].endswith("is the document's; remove it from the document")
    assert (await raw.get(f"/v1/{path}")).status_code == 200


async def test_lists_are_filtered_by_what_objects_name(client: AsyncClient) -> None:
    await client.put_security_group("named", api.SecurityGroupSpec())
    await client.put_qos_class("named", api.QosClassSpec(from_vm="1mbit"))
    spec = api.VifSpec(network="lab", vm="filtered", security_groups=["named"], qos="named", addresses=[])
    await client.put_vif("filtered/0", spec)
    await client.put_vif("filtered/1", api.VifSpec(network="lab", vm="filtered", addresses=[]))
    for filters in ({"security_group": "named"}, {"qos_class": "named"}, {"qos_class": "named", "network": "lab"}):
        assert [each.id for each in await client.vifs(**filters)] == ["filtered/0"]
    assert [each.id for each in await client.vifs(vm="filtered")] == ["filtered/0", "filtered/1"]
    assert await client.vifs(qos_class="named", network="tenant") == []
    await client.delete_vm("filtered")
    await client.delete_security_group("named")
    await client.delete_qos_class("named")


async def test_lists_are_filtered_by_labels(client: AsyncClient) -> None:
    await client.put_network("labelled", api.NetworkSpec(type="internal", labels={"site": "north", "app": "none"}))
    await client.put_vm("shop", api.VmSpec(labels={"app": "shop"}))
    await client.put_vif("shop/0", api.VifSpec(network="labelled", vm="shop", addresses=[], labels={"side": "front"}))
    await client.put_vif("shop/1", api.VifSpec(network="labelled", vm="shop", addresses=[], labels={"app": "cafe"}))
    for text, found in [
        ("site=north", ["shop/0", "shop/1"]),
        ("app=shop", ["shop/0"]),
        ("app=cafe", ["shop/1"]),
        ("app=none", []),  # the VM's and the VIF's own are nearer
        ("app=shop,side=front,site=north", ["shop/0"]),
        ("app=shop,side=back", []),
    ]:
        assert [each.id for each in await client.vifs(label=text)] == found, text
    assert await client.vifs(label="site=north", network="lab") == []
    assert [each.name for each in await client.vms(label="app=shop")] == ["shop"]
    assert [each.name for each in await client.networks(label="app=none,site=north")] == ["labelled"]
    for text in ("app", "app=", "app=shop,", "app=a b"):
        with pytest.raises(Invalid, match="label") as refused:
            await client.vifs(label=text)
        assert refused.value.where == "label"
    await client.delete_vm("shop")
    await client.delete_network("labelled")


async def test_a_vif_gets_an_address_from_the_subnets(client: AsyncClient) -> None:
    await client.put_subnet("pick", api.SubnetSpec(network="lab", cidr="10.20.0.0/24", gateway="10.20.0.1"))
    made = await client.put_vif("pick/0", api.VifSpec(network="lab", vm="pick"))
    assert made.addresses == ["10.20.0.2"]
    assert (await client.put_vif("pick/0", api.VifSpec(network="lab", vm="pick"))) == made
    assert (await client.put_vif("pick/1", api.VifSpec(network="lab", vm="pick", addresses=[]))).addresses == []
    with pytest.raises(Conflict, match=r"10\.20\.0\.2 .* is taken by VIF pick/0"):
        await client.change_vif("pick/1", api.VifChange(addresses=["10.20.0.2"]))
    with pytest.raises(Invalid, match="is in no subnet"):
        await client.change_vif("pick/1", api.VifChange(addresses=["10.21.0.2"]))
    assert [each.name for each in await client.subnets(network="lab")] == ["pick"]
    assert await client.subnets(network="tenant") == []
    await client.delete_vm("pick")
    await client.delete_subnet("pick")


async def test_the_disruption_of_what_is_plugged(
    client: AsyncClient, raw: httpx.AsyncClient, pool: PoolDatabase
) -> None:
    await client.put_network("wide", api.NetworkSpec(type="vxlan"))
    await client.put_security_group("sg", api.SecurityGroupSpec(rules=[msgspec.convert(HTTP, api.Rule)]))
    await client.put_vif("run/0", api.VifSpec(network="wide", vm="run", host="xen1", security_groups=["sg"]))
    await FakeAgent(pool, "xen1", client).claim("run/0")

    plan = await client.change_network("wide", api.NetworkChange(mtu=1400), dry_run=True)
    assert (plan.disruption, plan.changes[0].reason) == ("vif", "VMs lose larger frames until they are told")
    assert (await client.change_vif("run/0", api.VifChange(locking_mode="unlocked"))).disruption == "flows"
    assert (await client.change_vif("run/0", api.VifChange(locking_mode="disabled"))).disruption == "vif"
    put = await raw.put("/v1/security-groups/sg", json={"rules": []})
    assert put.headers["Vnet-Disruption"] == "vif"
    put = await raw.put("/v1/security-groups/sg", json={"ingress": "allow", "rules": []})
    assert put.headers["Vnet-Disruption"] == "flows"
    assert (await client.delete_vm("run", dry_run=True)).disruption == "vif"
    await client.delete_vm("run")
    await client.delete_network("wide")
    await client.delete_security_group("sg")


async def test_all_errors_of_a_body_at_once(raw: httpx.AsyncClient) -> None:
    body = {"network": "tennant", "mac": "0a-00-00-00-00-01", "addresses": ["10.1.0.300"], "colour": 1, "awaited": True}
    problems = (await raw.put("/v1/vifs/bad", json=body)).json()["problems"]
    found = [(problem["code"], problem["path"]) for problem in problems]
    assert found == [
        ("wrong-mac", "mac"),
        ("wrong-address", "addresses[0]"),
        ("unknown-key", "colour"),
        ("unknown-network", "network"),
    ] or set(found) >= {
        ("wrong-mac", "mac"),
        ("wrong-address", "addresses[0]"),
        ("unknown-key", "colour"),
        ("unknown-network", "network"),
    }


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("vifs?network=tennant", "unknown-network", "did you mean tenant?"),
        ("vifs?host=xen", "unknown-host", "there is no host xen"),
        ("vifs?vm=nobody", "unknown-vm", "there is no VM nobody"),
        ("vifs?qos-class=gold", "unknown-qos-class", "there is no QoS class gold"),
        ("subnets?network=tennant", "unknown-network", "did you mean tenant?"),
        ("bindings?host=xen", "unknown-host", "there is no host xen"),
        ("bindings?vif=nobody", "unknown-vif", "there is no VIF nobody"),
    ],
)
async def test_an_unknown_name_in_a_filter(raw: httpx.AsyncClient, path: str, code: str, text: str) -> None:
    answer = await raw.get(f"/v1/{path}")
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert text in answer.json()["message"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_a_dry_run_is_yes_or_no(raw: httpx.AsyncClient, method: str) -> None:
    answer = await raw.request(method, "/v1/vms/dry?dry-run=perhaps", content=b"" if method == "DELETE" else b"{}")
    assert (answer.status_code, answer.json()["code"]) == (400, "query")
    assert (await raw.get("/v1/vms/dry")).status_code == 404


async def test_a_name_that_no_object_may_have(raw: httpx.AsyncClient) -> None:
    for resource, name in [("networks", "a b"), ("security-groups", "any"), ("vms", "-"), ("hosts", "x" * 64)]:
        answer = await raw.put(
            f"/v1/{resource}/{quote(name)}", json={"type": "vxlan"} if resource == "networks" else {}
        )
        assert (answer.status_code, answer.json()["where"]) == (400, "name")


@every_noun
async def test_openapi_has_every_noun(raw: httpx.AsyncClient, sample: Sample) -> None:
    document = (await raw.get("/v1/openapi.json")).json()
    many, one = f"/v1/{sample.resource.plural}", f"/v1/{sample.resource.plural}/{{id}}"
    assert document["paths"][one].keys() == {"get", "put", "patch", "delete"}
    assert document["paths"][many].keys() == {"get", *(["post"] if sample.resource.new else [])}
    schemas, name = document["components"]["schemas"], sample.resource.answer.__name__
    for struct in (f"{name}Spec", f"{name}Change"):
        assert all("description" in schema for schema in schemas[struct]["properties"].values())
