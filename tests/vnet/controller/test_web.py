"""The web page as it is served and packaged. What it shows is tried in a browser by `make test-web` (tests/web)."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import grimp
import httpx
import pytest

from tests.servers import free_port, run_dir
from tests.vnet.controller.daemons import DOCUMENT, Controller
from tests.vnet.controller.databases import FakeAgent, opened, stop_embedded
from vnet import api, web
from vnet.client import AsyncClient, Client
from vnet.controller.routes import routes
from vnet.web import FOLDER, MEDIA_TYPES, page_files

ROOT = Path(web.__file__).parent
OWN = [
    path
    for path in sorted(ROOT.rglob("*"))
    if path.suffix in (".js", ".css", ".html", ".svg") and "vendor" not in path.parts
]
IMPORT = re.compile(r"""^(?:import|export) .*?from "([^"]+)";$""", re.M)
# What would make markup or code of a text, or ask elsewhere.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://(?!www\.w3\.org/2000/svg)|localStorage\.setItem\((?!\"vnet-theme\")"
)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.code = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style"):
            self.code += data.strip()


class Served:
    """A controller at a port."""

    def __init__(self, url: str, viewer: str, shop: str, admin: Callable[[], Client]) -> None:
        self.viewer, self.shop, self.admin = viewer, shop, admin
        self._http = httpx.Client(base_url=url, timeout=30, verify=False)

    def get(self, path: str, token: str = "", **headers: str) -> httpx.Response:
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        return self._http.get(path, headers={**shown, **headers})

    def post(self, path: str, body: object, token: str = "") -> httpx.Response:
        return self._http.post(path, json=body, headers={"Authorization": f"Bearer {token}"})


POOL = (
    DOCUMENT
    + b"""\
security-groups:
  web: {rules: [{name: http, direction: ingress, protocol: tcp, ports: [80]}]}
vms:
  web1: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.10], security-groups: [web]}]}
  web2: {host: xen2, vifs: [{network: tenant, addresses: [10.1.0.11]}]}
expectations:
  - {name: http is open, from: web2, to: web1, protocol: tcp, port: 80, expect: reachable}
  - {name: ssh is not, from: web2, to: web1, protocol: tcp, port: 22, expect: reachable}
"""
)


@pytest.fixture(scope="module")
def served(ovs: None) -> Iterator[Served]:
    port = free_port()
    with run_dir() as path:
        made = Controller(path, ("--listen", f"unix:{path}/run/controller.sock", "--listen", f"tcp:127.0.0.1:{port}"))
        try:
            made.start()
            with made.client() as client:
                client.apply(POOL, "test.vnet.yaml", wait_s=0)
                viewer = client.make_token("page", api.TokenCall(role="viewer")).secret
                shop = client.make_token(
                    "shop", api.TokenCall(role="operator", vms=["web1"], networks=["tenant"])
                ).secret
            asyncio.run(plug(made))
            yield Served(f"http://127.0.0.1:{port}", viewer, shop, made.client)
        finally:
            made.stop()
            stop_embedded(made.database)


async def plug(made: Controller) -> None:
    """Both VMs run."""
    async with opened(made.database.remote) as pool, AsyncClient(made.address) as client:
        for host, vif in (("xen1", "web1/0"), ("xen2", "web2/0")):
            agent = FakeAgent(pool, host, client)
            await agent.beat()
            await agent.claim(vif)


def test_every_file_is_served_to_whoever_asks_and_nothing_else_is(served: Served) -> None:
    found = page_files()
    for path, file in found.items():
        answer = served.get(path)
        assert (answer.status_code, answer.content) == (200, file.data), path
        assert answer.headers["content-type"] == file.media
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = served.get(path, **{"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in (
        "/web/",
        "/web/__init__.py",
        "/web/js",
        "/web/../api/__init__.py",
        "/web/%2e%2e/%2e%2e/pyproject.toml",
        "/web//app.css",
    ):
        assert served.get(path).status_code in (401, 404), path
    assert served.get("/v1/status").status_code == 401
    for host in ("evil.example", "evil.example:80"):
        assert served.get("/", Host=host).status_code == 421, "a name that somebody points here is not answered"


def test_the_policy_of_the_page_lets_nothing_in_from_elsewhere(served: Served) -> None:
    parts = dict(
        part.strip().partition(" ")[::2] for part in served.get("/").headers["content-security-policy"].split(";")
    )
    assert parts.pop("default-src") == "'none'"
    assert parts.pop("require-trusted-types-for") == "'script'"
    assert all(value in ("'self'", "'none'") for value in parts.values()), parts
    assert {"base-uri", "form-action", "frame-ancestors"} <= parts.keys()
    assert served.get("/").headers["x-frame-options"] == "DENY"


def test_the_page_has_no_code_inside_and_names_only_files_that_there_are() -> None:
    found = Elements((ROOT / "index.html").read_text())
    assert found.code == ""
    for tag, attributes in found.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            if (address := attributes.get(name)) is not None:
                assert address in page_files() or address.startswith("#"), address


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_our_own_files_ask_nothing_elsewhere_and_make_no_markup_of_texts(path: Path) -> None:
    text = path.read_text()
    assert not FORBIDDEN.findall(text)
    here = page_files()
    for name in IMPORT.findall(text):
        address = (path.parent / name).resolve().relative_to(ROOT)
        assert f"{FOLDER}{address}" in here, name


def test_every_file_is_packaged() -> None:
    data = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    assert {f"*{suffix}" for suffix in MEDIA_TYPES} <= set(data)
    served_ones = {path.removeprefix(FOLDER).removeprefix("/") or "index.html" for path in page_files()}
    there = {
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert served_ones == there
    assert "vnet.web" in build_deb_reached(), "the controller's package has them"


def build_deb_reached() -> set[str]:
    """The modules that the Debian package of the controller keeps."""
    graph = grimp.build_graph("vnet", "ovsctl", exclude_type_checking_imports=True)
    return graph.find_upstream_modules("vnet.controller.daemon")


def test_counters_are_of_what_a_caller_may_see(served: Served) -> None:
    whole = served.get("/v1/traffic", served.viewer).json()
    assert (whole["vifs"], list(whole["missing"])) == ({}, ["xen1", "xen2"]), "nobody answers for these hosts"
    assert served.get("/v1/traffic", served.shop).json() == {"vifs": {}, "missing": {}, "tunnels": []}
    assert served.get("/v1/traffic?vif=web2%2F0", served.shop).status_code == 404
    assert served.get("/v1/traffic?vif=nobody", served.viewer).status_code == 404


def test_what_is_vendored_has_its_licence_beside_it() -> None:
    for path in (ROOT / "vendor").glob("*.js"):
        assert "Permission is hereby granted" in path.with_name(f"{path.stem}.LICENSE.txt").read_text()


def test_the_api_says_of_each_call_who_may_make_it_and_of_each_noun_how_it_is_listed(served: Served) -> None:
    document = served.get("/v1/openapi.json", served.viewer).json()
    for route in routes():
        operation = document["paths"][route.path][route.method.lower()]
        assert set(operation["x-vnet-roles"]) == {role.value for role in route.allowed}
        assert operation["x-vnet-scoped"] == route.scoped
    assert {noun["word"] for noun in document["x-vnet-nouns"]} == set(api.RESOURCES)
    for noun in document["x-vnet-nouns"]:
        assert f"/v1/{noun['plural']}" in document["paths"]
        assert noun["key"] in document["components"]["schemas"][noun["schema"]]["properties"]


def test_a_trace_has_both_ways_each_step_and_the_line_of_the_document(served: Served) -> None:
    asked = {"source": "web2", "target": "web1", "protocol": "tcp", "port": 80}
    good = served.post("/v1/trace", asked, served.viewer).json()
    assert good["reached"]
    senders = [packet["hops"][0]["switch"] for packet in good["legs"] if not packet["aside"]]
    assert senders == ["xen2 br-int", "xen1 br-int", "xen2 br-int"], "there, back, and there again"
    document = served.get("/v1/export", served.viewer).text.splitlines()
    steps = [step for packet in good["legs"] for hop in packet["hops"] for step in hop["steps"]]
    rules = {step["place"] for step in steps if step["source"] == "security group web, rule http"}
    assert rules, {step["source"] for step in steps}
    for place in rules:
        assert "http" in document[int(place.split(":")[1]) - 1]
    bad = served.post("/v1/trace", {**asked, "port": 22}, served.viewer).json()
    assert not bad["reached"]
    assert "security group web at " in bad["reason"]
    frame = "0a0000000001" + "0a0000000002" + "0800" + "00" * 46
    assert not served.post("/v1/trace", {"source": "web2", "frame": frame}, served.viewer).json()["reached"], (
        "a guard knows its MAC"
    )


def test_a_question_that_cannot_be_right_is_refused(served: Served) -> None:
    bodies = (
        ({"source": "nobody", "target": "web1"}, "nobody"),
        ({"source": "web1"}, "target"),
        ({"source": "web1", "frame": "00"}, "14"),
        ({"source": "web1", "target": "web2", "protocol": "tcp", "port": 70000}, "65535"),
    )
    for body, words in bodies:
        answer = served.post("/v1/trace", body, served.viewer)
        assert answer.status_code == 400, body
        assert words in answer.text
    for query in ("protocol=sctp", "protocol=tcp", "protocol=tcp&port=0"):
        assert served.get(f"/v1/matrix?{query}", served.viewer).status_code == 400, query


def test_the_twin_answers_for_the_pool_as_it_is_now(served: Served) -> None:
    def reaches() -> list[list[bool]]:
        found = served.get("/v1/matrix?protocol=tcp&port=22", served.viewer).json()
        assert [it["vifs"] for it in found["classes"]] == [["web1/0"], ["web2/0"]]
        return found["reaches"]  # type: ignore[no-any-return]

    assert reaches() == [[True, True], [False, True]]
    checked = {it["name"]: it["holds"] for it in served.get("/v1/check", served.viewer).json()}
    assert checked == {"http is open": True, "ssh is not": False}
    explained = served.get("/v1/vifs/web1%2F0/explained", served.viewer).json()
    assert (explained["host"], explained["steps"]) == ("xen1", [{"tier": "vif", "mandatory": False, "groups": ["web"]}])
    assert {"security group web, rule http", "VIF web1/0"} <= {flow["source"] for flow in explained["flows"]}
    with served.admin() as client:
        client.apply(POOL.replace(b"ports: [80]", b"ports: [80, 22]"), "test.vnet.yaml", wait_s=0)
        assert reaches() == [[True, True], [True, True]]
        client.apply(POOL, "test.vnet.yaml", wait_s=0, force=True)
    assert reaches() == [[True, True], [False, True]]


def test_a_trace_is_of_the_pool_as_it_was(served: Served) -> None:
    asked = {"source": "web2", "target": "web1", "protocol": "tcp", "port": 22}
    with served.admin() as client:
        first = client.pool().revision
        client.apply(POOL.replace(b"ports: [80]", b"ports: [22, 80]"), "test.vnet.yaml", wait_s=0)
        client.apply(POOL, "test.vnet.yaml", wait_s=0, force=True)
    found = [served.post("/v1/trace", {**asked, "at": str(first + n)}, served.viewer).json() for n in range(3)]
    assert [it["reached"] for it in found] == [False, True, False]
    assert [it["guessed"] for it in found] == [[], [], []]
    assert served.post("/v1/trace", {**asked, "at": "nonsense"}, served.viewer).status_code == 400
    assert served.post("/v1/trace", {**asked, "at": "999999"}, served.viewer).status_code == 404


def test_a_matrix_and_expectations_are_of_the_pool_as_it_was(served: Served) -> None:
    with served.admin() as client:
        first = client.pool().revision
        client.apply(POOL.replace(b"ports: [80]", b"ports: [22, 80]"), "test.vnet.yaml", wait_s=0)
        client.apply(POOL, "test.vnet.yaml", wait_s=0, force=True)
        then = [client.matrix("tcp", 22, at=str(first + n)) for n in range(2)]
        assert [found.reaches for found in then] == [[[True, True], [False, True]], [[True, True], [True, True]]]
        assert [found.guessed for found in then] == [[], []]
        held = [{one.name: one.holds for one in client.check(at=str(first + n))} for n in range(2)]
        assert held == [{"http is open": True, "ssh is not": False}, {"http is open": True, "ssh is not": True}]
    assert served.get("/v1/matrix?at=nonsense", served.viewer).status_code == 400
    assert served.get("/v1/check?at=999999", served.viewer).status_code == 404


def test_who_is_parted_by_failures(served: Served) -> None:
    with served.admin() as client:
        whole = client.matrix("tcp", 80)
        assert (whole.reaches, whole.parted) == ([[True, True], [True, True]], [])
        cut = client.matrix("tcp", 80, cut=["xen1:underlay"])
        assert cut.reaches == [[True, False], [False, True]]
        down = client.matrix("tcp", 80, down=["xen1"])
        assert [it.hosts for it in down.classes] == [[], ["xen2"]]
        assert down.reaches == [[True, False], [False, True]], "what runs on a host that is down sends and gets nothing"
        failing = {one.name: (one.holds, one.asked) for one in client.check(cut=["xen1:underlay"])}
        assert failing["http is open"] == (False, True)
        gone = {one.name: one.asked for one in client.check(down=["xen1"])}
        assert gone == {"http is open": False, "ssh is not": False}
        each = client.matrix("tcp", 80, each_failure=True)
        assert each.reaches == whole.reaches
        parted = {(each.classes[it.source].name, each.classes[it.target].name): it.failures for it in each.parted}
        assert parted[("web2/0", "web1/0")] == ["xen1: underlay cut", "xen2: underlay cut"]
        assert [one.fails for one in client.failures()] == [[]] * len(client.failures()), "nothing is tried unasked"
        of = {one.text: one for one in client.failures(expectations=True)}
        assert (of["xen1: underlay cut"].cut, of["host xen1 down"].down) == ("xen1:underlay", "xen1")
        assert "http is open" in of["xen1: underlay cut"].fails
        assert of["host xen1 down"].unasked == ["http is open", "ssh is not"]
        assert client.matrix("tcp", 80) == whole, "the twin is whole again"
    for query in ("down=nobody", "cut=xen1:nothing", "down=xen1&each-failure=true"):
        assert served.get(f"/v1/matrix?{query}", served.viewer).status_code == 400, query


def test_questions_about_the_whole_pool_are_not_for_a_tenant(served: Served) -> None:
    for path in ("/v1/check", "/v1/failures", "/v1/vifs/web1%2F0/explained"):
        assert served.get(path, served.viewer).status_code == 200, path
        assert served.get(path, served.shop).status_code == 403, path
    assert served.get("/v1/matrix", served.shop).status_code == 200
    for query in ("at=1", "down=xen1", "cut=xen1:underlay", "each-failure=true"):
        answer = served.get(f"/v1/matrix?{query}", served.shop)
        assert (answer.status_code, answer.json()["where"]) == (403, query.partition("=")[0])
    for more in ({"at": "1"}, {"frame": "00" * 64}):
        answer = served.post("/v1/trace", {"source": "web1", "target": "outside", **more}, served.shop)
        assert (answer.status_code, answer.json()["where"]) == (403, next(iter(more)))


def test_a_tenant_is_told_of_its_own_and_of_nobody_else(served: Served) -> None:
    found = served.get("/v1/matrix?protocol=tcp&port=22", served.shop).json()
    assert [(it["name"], it["hosts"], it["vifs"]) for it in found["classes"]] == [("web1/0", ["xen1"], ["web1/0"])]
    assert found["reaches"] == [[True]]
    for body in (
        {"source": "web1", "target": "web2"},
        {"source": "web2", "target": "web1"},
        {"source": "web1", "target": "nobody"},
    ):
        answer = served.post("/v1/trace", body, served.shop)
        assert answer.status_code == 404, body
        assert "did you mean" not in answer.text
    with served.admin() as client:
        scope = {"vms": ["web*"], "networks": ["tenant"]}
        both = client.make_token("both", api.TokenCall(role="viewer", **scope)).secret
        grouped = client.make_token("grouped", api.TokenCall(role="viewer", security_groups=["web"], **scope)).secret
    asked = {"source": "web2", "target": "web1", "protocol": "tcp", "port": 22}
    of_all = served.post("/v1/trace", asked, served.viewer)
    assert "security group web" in of_all.text
    assert "pool.vnet.yaml:" in of_all.text
    part = served.post("/v1/trace", asked, both)
    for word in ("security group web", "pool.vnet.yaml", "10.99.0."):
        assert word not in part.text, part.text
    assert (part.json()["reached"], of_all.json()["reached"]) == (False, False)
    assert part.json()["reason"].startswith("dropped on xen1 in INGRESS_VERDICT: ")
    sources = {step["source"] for leg in part.json()["legs"] for hop in leg["hops"] for step in hop["steps"]}
    assert {"VIF web1/0", "VIF web2/0", "network tenant"} <= sources
    http = served.post("/v1/trace", {**asked, "port": 80}, grouped).json()
    assert http["reached"]
    assert "security group web, rule http" in str(http["legs"])
