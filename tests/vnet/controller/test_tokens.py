"""Tokens of a real controller: roles, scopes, quotas, the unix socket's peer, a reverse proxy, browsers; and the record of each change."""

from __future__ import annotations

import os
import pwd
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.polling import wait_until
from tests.servers import free_port, run_dir
from tests.vnet.controller.daemons import DOCUMENT, Controller
from tests.vnet.controller.databases import stop_embedded
from vnet import api
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.client import Client, Conflict, Forbidden, Invalid, NotFound, Unauthorized
from vnet.controller.access import ADMINS, HOSTS, OPERATORS
from vnet.controller.endpoint import is_for_strangers
from vnet.controller.routes import routes

POOL = (
    DOCUMENT
    + b"""\
  shop: {type: vxlan}
qos: {gold: {from-vm: 10mbit}}
security-groups: {shop-web: {rules: [{name: all, direction: ingress}]}, other: {}}
vms:
  web1: {vifs: [{network: tenant, mac: "0a:00:00:00:00:01"}]}
  shop-db: {vifs: [{network: shop}]}
"""
)
SHOP = {"networks": ["shop*"], "vms": ["shop-*"], "security_groups": ["shop-*"]}


@dataclass
class Api:
    """A controller at a TCP port, and at its unix socket as `local`."""

    running: Controller
    port: int
    local: Client
    http: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, name: str, role: str, **scope: Any) -> str:
        return self.local.make_token(name, api.TokenCall(role=role, replace=True, **scope)).secret

    @contextmanager
    def client(self, name: str, role: str, **scope: Any) -> Iterator[Client]:
        with Client(self.url, token=self.token(name, role, **scope)) as made:
            yield made

    def raw(self, method: str, path: str, token: str = "", **headers: str) -> httpx.Response:
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.request(method, f"{self.url}{path}", headers={**shown, **headers})


@pytest.fixture(scope="module")
def pool(ovs: None) -> Iterator[Api]:
    port = free_port()
    with run_dir() as path:
        listens = ("--listen", f"unix:{path}/run/controller.sock", "--listen", f"tcp:127.0.0.1:{port}")
        made = Controller(path, (*listens, "--identity-header", "Remote-User"))
        try:
            made.start()
            with made.client() as local, httpx.Client(verify=False) as http:
                local.apply(POOL, "test.vnet.yaml", wait_s=0)
                yield Api(made, port, local, http)
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)


def vif(network: str = "shop", vm: str | None = None, **fields: Any) -> api.VifSpec:
    return api.VifSpec(network=network, vm=vm, addresses=[], **fields)


def test_a_token_is_shown_once_and_ends_when_it_is_revoked(pool: Api) -> None:
    made = pool.local.make_token("once", api.TokenCall(role="viewer"))
    assert re.fullmatch("vnet_once_[0-9a-f]{64}", made.secret)
    with Client(pool.url, token=made.secret) as client:
        assert client.status().hosts == 3
        assert client.caller().name == "token once"
        with pytest.raises(Conflict, match="there is a token once"):
            pool.local.make_token("once", api.TokenCall(role="viewer"))
        assert made.token in pool.local.tokens()
        assert pool.local.revoke_token("once").done
        with pytest.raises(Unauthorized):
            client.status()
    assert not pool.local.revoke_token("once").done
    secret = made.secret.rpartition("_")[2].encode()
    kept = [path.read_bytes() for path in Path(pool.running.dir).rglob("*") if path.is_file()]
    assert not any(secret in content for content in kept), "neither the database, nor its copies, nor the log has it"


@pytest.mark.parametrize(
    "wrong", ["vnet", "vnet_right_", "vnet_right_" + "0" * 64, "vnet_nobody_" + "0" * 64, "0" * 64, "vnet_alice_"]
)
def test_what_is_no_token(pool: Api, wrong: str) -> None:
    pool.token("right", "viewer")
    pool.token("alice", "viewer", user=True)
    answer = pool.raw("GET", "/v1/status", Authorization=f"Bearer {wrong}")
    assert (answer.status_code, answer.json()["code"], answer.headers["www-authenticate"]) == (
        401,
        "unauthorized",
        "Bearer",
    )


def test_a_token_that_has_ended(pool: Api) -> None:
    secret = pool.token("short", "viewer", days=1e-7)
    wait_until(lambda: pool.raw("GET", "/v1/status", secret).status_code == 401, "it has ended")
    assert pool.raw("GET", "/v1/status", secret).json()["code"] == "token-ended"


def test_a_token_that_would_have_ended_is_not_made_for_ever(pool: Api) -> None:
    with pytest.raises(Invalid, match="days are 0"):
        pool.local.make_token("past", api.TokenCall(role="viewer", days=-1.0))


def test_every_call_takes_its_role(pool: Api) -> None:
    roles = ("viewer", "operator", "host")
    tokens = {role: pool.token(role, role, host="xen1" if role == "host" else "") for role in roles}
    for route in routes():
        if is_for_strangers(route.method, route.path):
            continue
        path = route.path.replace("{id}", "nothing")
        for role, token in tokens.items():
            answer = pool.raw(route.method, path, token)
            refused = answer.status_code == 403
            allowed = {each.value for each in route.allowed}
            assert refused == (role not in allowed), (route.method, path, role, answer.text)
            if refused:
                assert answer.json()["code"] == "role"
                assert answer.json()["where"] in allowed
    writes = {(route.method, route.path): route.allowed for route in routes() if route.changes}
    assert (
        writes["POST", "/v1/apply"]
        == writes["PUT", "/v1/tokens/{id}"]
        == writes["POST", "/v1/hosts/{id}/invite"]
        == ADMINS
    )
    assert writes["PUT", "/v1/vifs/{id}"] == writes["POST", "/v1/hosts/{id}/evacuate"] == OPERATORS
    assert writes["POST", "/v1/vifs/{id}/plug"] == writes["POST", "/v1/vms/{id}/activate"] == HOSTS


def test_a_tenant_sees_its_own(pool: Api) -> None:
    with pool.client("shop", "operator", **SHOP) as shop:
        assert [network.name for network in shop.networks()] == ["shop"]
        assert [each.id for each in shop.vifs()] == ["shop-db/0"]
        assert [each.name for each in shop.vms()] == ["shop-db"]
        assert [each.name for each in shop.security_groups()] == ["shop-web"]
        assert shop.qos() == []
        for ask in (
            lambda: shop.network("tenant"), lambda: shop.vif("web1/0"), lambda: shop.vm("web1"),
            lambda: shop.security_group("other"), lambda: shop.delete_vif("web1/0"), lambda: shop.delete_vm("web1"),
            lambda: shop.set_security_groups("web1/0", []), lambda: shop.plug_vif("web1/0", "xen1"), lambda: shop.unplug_vif("web1/0"),
        ):  # fmt: skip
            with pytest.raises(NotFound) as missing:
                ask()
            assert "did you mean" not in str(missing.value)
        for ask in (shop.status, shop.hosts, shop.export, shop.tokens, shop.history, shop.expectations):
            with pytest.raises(Forbidden):
                ask()
        for network in ("shop", "tenant"):
            pool.local.put_vif(f"shop-{network}/0", vif(network, f"shop-{network}"))
        pool.local.delete_vm("shop-tenant")
        pool.local.put_vif("seen/0", vif("shop", "seen"))
        pool.local.delete_vm("seen")
        assert {event.vif for event in shop.events(1000)} == {"shop-shop/0"}
        pool.local.delete_vm("shop-shop")
        assert [event.kind for event in shop.events(1000)] == ["vif-created", "vif-deleted"]


def test_a_tenant_changes_its_own(pool: Api) -> None:
    with pool.client("shop", "operator", **SHOP) as shop:
        assert shop.put_vif("shop-web/0", vif(vm="shop-web", security_groups=["shop-web"])).vm == "shop-web"
        shop.plug_vif("shop-web/0", "xen1")
        shop.set_security_groups("shop-web/0", [])
        denied: list[tuple[str, api.VifSpec]] = [
            ("shop-web/1", vif("tenant", "shop-web")),
            ("shop-x/0", vif(vm="other")),
            ("shop-x/0", vif(vm="shop-x", security_groups=["other"])),
            ("shop-x/0", vif(vm="shop-x", qos="gold")),
            ("shop-x/0", vif(vm="shop-x", locking_mode="unlocked")),
            ("shop-x/0", vif(vm="shop-x", router=True)),
            ("web1/0", vif(vm="shop-x", mac="0a:00:00:00:00:09")),
        ]
        for id, spec in denied:
            with pytest.raises(Forbidden) as refused:
                shop.put_vif(id, spec)
            assert refused.value.code == "scope"
            assert "0a:00:00:00:00:01" not in str(refused.value)
            with pytest.raises(Forbidden):
                shop.plan_vif(id, spec)
        for id, spec, own in [
            ("shop-x/0", vif("tenand", vm="shop-x"), "shop"),
            ("shop-x/0", vif(vm="shop-x", security_groups=["othe"]), "shop-web"),
            ("shop-x/0", vif(vm="shop-x", qos="golt"), ""),
        ]:  # a typo tells no names of others
            with pytest.raises(Invalid, match=f"there is: {own}" if own else "there is none") as wrong:
                shop.put_vif(id, spec)
            assert not re.search("tenant|other|gold", f"{wrong.value} {wrong.value.problems}")
        with pytest.raises(Forbidden):
            shop.change_vif("shop-web/0", api.VifChange(locking_mode="unlocked"))
        with pytest.raises(Forbidden):
            shop.put_network("shop-2", api.NetworkSpec(type="vxlan"))
        shop.delete_vm("shop-web")
    pool.local.put_vif("shop-both/0", vif("tenant", "shop-both"))
    pool.local.put_vif("shop-both/1", vif("shop", "shop-both", security_groups=["other"]))
    with pool.client("shop", "operator", **SHOP) as shop:
        assert [each.id for each in shop.vm("shop-both").vifs] == ["shop-both/1"]
        with pytest.raises(match="VIF shop-both/0 is not in the scope"):
            shop.delete_vm("shop-both")
        with pytest.raises(match="security group other"):
            shop.set_security_groups("shop-both/1", [])
    pool.local.delete_vm("shop-both")


def test_a_tenant_whose_scope_is_a_label(pool: Api) -> None:
    """It sees the networks and VMs with the label, and what it makes must have it; it takes no other one into its scope."""
    own, other = {"tenant": "acme"}, {"tenant": "other"}
    pool.local.put_network("lan", api.NetworkSpec(type="internal", labels=own))
    for name, labels in (("mine", own), ("theirs", other)):
        pool.local.put_vm(name, api.VmSpec(labels=labels))
        pool.local.put_vif(f"{name}/0", vif("lan", name))
    pool.local.put_vif("mine/1", vif("tenant", "mine"))
    with pool.client("acme", "operator", labels=["tenant=acme"], max_vms=2) as acme:
        assert [network.name for network in acme.networks()] == ["lan"]
        assert [[each.id for each in vm.vifs] for vm in acme.vms()] == [["mine/0"]]
        assert {each.id for each in acme.vifs()} == {"mine/0"}
        acme.put_vm("new", api.VmSpec(labels=own))
        acme.put_vif("new/0", vif("lan", "new"))
        acme.plug_vif("new/0", "xen1")
        for refused in (
            lambda: acme.put_vm("bare", api.VmSpec()),
            lambda: acme.put_vm("bare", api.VmSpec(labels=other)),
            lambda: acme.change_vm("new", api.VmChange(labels=other)),
            lambda: acme.put_vm("theirs", api.VmSpec(labels=own)),
            lambda: acme.put_vif("new/1", vif("tenant", "new")),
            lambda: acme.put_vif("theirs/1", vif("lan", "theirs")),
        ):
            with pytest.raises(Forbidden):
                refused()
        with pytest.raises(NotFound):
            acme.change_vm("theirs", api.VmChange(labels=own))
        with pytest.raises(Conflict, match="quota"):
            acme.put_vm("third", api.VmSpec(labels=own))
        assert {event.vif for event in acme.events(1000) if event.vif} >= {"new/0"}
        assert not any(event.vif.startswith("theirs") for event in acme.events(1000))
        pool.local.change_network("lan", api.NetworkChange(labels=other))
        assert (acme.networks(), acme.vifs()) == ([], [])
    assert pool.local.tokens()[0].labels == ["tenant=acme"]
    with pytest.raises(Invalid, match="KEY=VALUE"):
        pool.token("wrong", "viewer", labels=["acme"])
    for name in ("mine", "theirs", "new"):
        pool.local.delete_vm(name)
    pool.local.delete_network("lan")


def test_quotas(pool: Api) -> None:
    with pool.client("few", "operator", **SHOP, max_vifs=3, max_vms=2) as few:
        few.put_vif("shop-q/0", vif(vm="shop-q"))
        few.put_vif("shop-q/1", vif(vm="shop-q"))
        for make in (lambda: few.put_vif("shop-q/2", vif(vm="shop-q")), lambda: few.put_vm("shop-r", api.VmSpec())):
            with pytest.raises(Conflict) as over:
                make()
            assert over.value.code == "over-quota"
        few.delete_vif("shop-q/0")
        few.put_vif("shop-q/0", vif(vm="shop-q"))
        few.delete_vm("shop-q")
        few.put_vm("shop-r", api.VmSpec())
        few.delete_vm("shop-r")


def test_a_network_admin_of_a_scope(pool: Api) -> None:
    with pool.client("shop-admin", "network-admin", **SHOP) as admin:
        admin.put_subnet("shop-front", api.SubnetSpec(network="shop", cidr="10.7.0.0/24"))
        with pytest.raises(Forbidden):
            admin.put_subnet("theirs", api.SubnetSpec(network="tenant", cidr="10.8.0.0/24"))
        with pytest.raises(Forbidden):
            admin.apply(POOL, wait_s=0)
        with pytest.raises(Forbidden):
            admin.make_token("more", api.TokenCall(role="network-admin"))
        admin.delete_subnet("shop-front")


def test_a_hosts_token(pool: Api) -> None:
    pool.local.put_vif("h1/0", vif("tenant", "h1"))
    pool.local.put_vif("h2/0", vif("tenant", "h2", host="xen2"))
    with pool.client("xen1", "host", host="xen1") as host:
        assert host.plug_vif("h1/0", "xen1").host == "xen1"
        for call in (
            lambda: host.plug_vif("h2/0", "xen1"),
            lambda: host.unplug_vif("h2/0"),
            lambda: host.put_vif("h3/0", vif("tenant", "h3")),
        ):
            with pytest.raises(Forbidden):
                call()
        host.unplug_vif("h1/0")
        with pytest.raises(Forbidden):
            host.plug_vif("h1/0", "xen2")
    for name in ("h1", "h2"):
        pool.local.delete_vm(name)


def test_the_unix_sockets_peer_and_each_change_are_recorded(pool: Api) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    assert pool.local.caller() == api.Caller(name=me, role="network-admin", source=f"process {os.getpid()} here")
    with Client(pool.running.address, reason="for the ännual audit") as client:
        client.put_vif("rec/0", vif("tenant", "rec"))
    revision = pool.local.pool().revision
    made = pool.local.change(str(revision))
    assert (made.caller, made.source, made.reason) == (me, f"process {os.getpid()} here", "for the ännual audit")
    assert (made.call, made.disruption, made.summary) == ("PUT /v1/vifs/rec/0", "none", "create vm rec and 1 more")
    assert made.changes is not None
    assert [(change.action, change.noun, change.name) for change in made.changes] == [
        ("create", "vm", "rec"),
        ("create", "vif", "rec/0"),
    ]
    with pool.client("ci", "operator") as ci:
        ci.change_vif("rec/0", api.VifChange(locking_mode="unlocked"))
        ci.plug_vif("rec/0", "xen2")
        ci.delete_vm("rec")
    newest = pool.local.history(3, caller="token ci")
    assert [entry.revision for entry in newest] == [revision + 1, None, revision + 2]
    assert {entry.source for entry in newest} == {"127.0.0.1"}
    changes = [pool.local.change(entry.id).changes for entry in newest]
    assert changes[0] == [api.HistoryChange(action="update", noun="vif", name="rec/0",
                                            old={"locking_mode": "locked"}, new={"locking_mode": "unlocked"},
                                                reason="it is not plugged", disruption="none")]  # fmt: skip
    assert changes[1] is not None
    assert (changes[1][0].old, changes[1][0].new) == ({"host": None}, {"host": "xen2"})
    applied = next(entry for entry in pool.local.history(1000) if entry.call == "POST /v1/apply")
    assert (applied.revision, applied.disruption) == (1, "none")
    assert applied.count == len(pool.local.change("1").changes or ())
    token = next(entry for entry in pool.local.history(1000) if entry.summary == "create token ci")
    assert "digest" not in pool.local.change(token.id).changes[0].new  # type: ignore[index]
    with pytest.raises(NotFound):
        pool.local.change("999999")


def test_refused_calls_are_on_record_and_what_was_shown_is_not(pool: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a role, of a scope, also where the answer says that there is nothing, and of callers who proved nothing."""
    scoped, viewer, wrong = pool.token("nosy", "operator", **SHOP), pool.token("looks", "viewer"), "f" * 64
    for method, path, token, status in (
        ("DELETE", "/v1/vms/web1", viewer, 403),
        ("GET", "/v1/networks/tenant", scoped, 404),
        ("GET", "/v1/networks/nothing", scoped, 404),
        ("GET", "/v1/hosts", f"vnet_nosy_{wrong}", 401),
        ("GET", "/v1/hosts", f"vnet_nobody_{wrong}", 401),
        ("GET", "/v1/export", "", 401),
    ):
        assert pool.raw(method, path, token).status_code == status
    found: dict[tuple[str, str], api.HistoryEntry] = {}

    def recorded() -> bool:
        found.update({(entry.caller, entry.refused): entry for entry in pool.local.history(1000, refused=True)})
        return {("token looks", "role"), ("token nosy", "scope"), ("a stranger as token nosy", "unauthorized")} <= {
            *found
        }

    wait_until(recorded, "records")
    assert found["token looks", "role"].call == "DELETE /v1/vms/web1"
    assert found["token nosy", "scope"].summary == "network tenant is not in the scope of token nosy"
    assert found["a stranger", "unauthorized"].count >= 1
    assert {entry.source for entry in found.values()} == {"127.0.0.1"}
    assert not any(wrong in str(entry) or "nobody" in str(entry) for entry in found.values())
    assert not any(entry.refused for entry in pool.local.history(1000))
    assert main.run(["--controller", pool.running.address, "history", "--refused", "-o", "table"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"token looks +127.0.0.1 +DELETE /v1/vms/web1 +role +\d+ +this takes the role operator", out), out


def test_a_user_whom_a_proxy_names(pool: Api) -> None:
    proxy = pool.token("web", "proxy")
    pool.token("alice", "viewer", user=True)
    pool.token("bob", "operator")
    answer = pool.raw("GET", "/v1/caller", proxy, **{"Remote-User": "alice"})
    assert (answer.json()["name"], answer.json()["role"]) == ("alice by token web", "viewer")
    assert pool.raw("DELETE", "/v1/vms/web1", proxy, **{"Remote-User": "alice"}).json()["code"] == "role"
    for name in ("", "mallory", "bob", "web"):
        answer = pool.raw("GET", "/v1/status", proxy, **{"Remote-User": name})
        assert (answer.status_code, answer.json()["code"]) == (403, "unknown-user")
    assert pool.raw("GET", "/v1/status", **{"Remote-User": "alice"}).status_code == 401


def test_a_browser_is_led_astray_by_nobody(pool: Api) -> None:
    token = pool.token("page", "network-admin")
    rebound = pool.raw("GET", "/v1/status", token, Host=f"evil.example:{pool.port}")
    assert (rebound.status_code, rebound.json()["code"]) == (421, "wrong-host")
    for host in (f"localhost:{pool.port}", f"127.0.0.1:{pool.port}", "[::1]"):
        assert pool.raw("GET", "/v1/status", token, Host=host).status_code == 200
    own = f"http://127.0.0.1:{pool.port}"
    for headers, status in [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": own}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": own, "Sec-Fetch-Site": "same-origin"}, 200),
    ]:
        answer = pool.raw("DELETE", "/v1/vms/nothing", token, **headers)
        assert answer.status_code == status, headers
        assert status == 200 or answer.json()["code"] == "cross-origin"
    assert pool.raw("GET", "/v1/status", token, Origin="http://evil.example").status_code == 200


def test_tokens_and_history_on_the_command_line(
    pool: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def vnet(*args: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main.run(["--controller", pool.running.address, *map(str, args)])
        return code, *capsys.readouterr()

    file, url = tmp_path / "token", ("--controller", pool.url)
    code, out, err = vnet("token", "make", "cli", "--role", "operator", "--days", "1", "--to", file)
    assert (code, out, err) == (0, "", f"{file}: token cli\n")
    assert (file.stat().st_mode & 0o777, "cli  " in vnet("token", "list")[1]) == (0o600, True)
    assert vnet("token", "make", "cli", "--role", "operator")[0] == ExitCode.CONFLICT
    assert vnet("token", "make", "x", "--role", "viewer", "--max-vifs", "1")[0] == ExitCode.INVALID_INPUT
    assert vnet("vm", "create", "cli", *url, "--token-file", file, "-m", "by hand")[0] == 0
    monkeypatch.setenv("VNET_TOKEN", file.read_text().strip())
    assert vnet("vm", "delete", "cli", *url)[0] == 0
    code, _, err = vnet("network", "delete", "tenant", *url)
    assert (code, err.splitlines()[-1]) == (
        1,
        "error: this takes the role network-admin; token cli has the role operator",
    )
    monkeypatch.delenv("VNET_TOKEN")
    made, gone = vnet("history", "--caller", "token cli", "-o", "table")[1].splitlines()[1:]
    assert "create vm cli" in made
    assert made.endswith("by hand")
    assert "delete vm cli" in gone
    out = vnet("history", made.split()[0])[1]
    assert re.search(r"^revision \d+  \S+  token cli  from 127.0.0.1  PUT /v1/vms/cli$", out, re.M), out
    assert "\n+ vm cli   (new from the toolstack; disrupts nothing)\n    name: cli\n" in out
    assert vnet("token", "revoke", "cli")[2] == "token cli is revoked\n"
    code, _, err = vnet("status", *url, "--token-file", file)
    assert (code, "give a token of the pool" in err) == (1, True)


def test_a_stream_ends_with_its_token(pool: Api) -> None:
    token = pool.token("watcher", "viewer", networks=["tenant"], vms=["watched"])
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    with pool.http.stream("GET", f"{pool.url}/v1/events", headers=headers, timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        for vm in ("unseen", "watched"):
            pool.local.put_vif(f"{vm}/0", vif("tenant", vm))
        events = (line for line in lines if line.startswith("data:"))
        assert "watched/0" in next(events)
        pool.local.revoke_token("watcher")
        pool.local.delete_vm("watched")
        assert list(events) == []
    pool.local.delete_vm("unseen")


def test_machines_read_metrics_with_a_token_and_health_without(pool: Api) -> None:
    assert pool.raw("GET", "/metrics").status_code == 401
    shown = pool.raw("GET", "/metrics", pool.token("reader", "viewer"))
    assert shown.status_code == 200
    assert shown.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "\nvnet_hosts " in shown.text
    assert [pool.raw("GET", path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
