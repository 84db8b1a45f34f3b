"""A VIF setting and a noun, both made up, on a copy of the tree: everything but a handful of lines follows from the declaration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HELPERS = (
    *(f"tests/{package}__init__.py" for package in ("", "vnet/", "vnet/controller/")),
    *("tests/servers.py", "tests/vnet/controller/daemons.py", "tests/vnet/controller/databases.py"),
)
GENERATORS = ("vnet.db.schema", "vnet.topology.reference", "vnet.api.generate")
Edits = dict[str, tuple[tuple[str, str], ...]]

# The schema of a database that gets a column has a version of its own.
VERSION = ('VERSION = "1.', 'VERSION = "2.')
SETTING: Edits = {
    "vnet/objects/vif.py": (
        ("    VM_REF,\n    TrunkTags,\n", "    VM_REF,\n    TrunkTags,\n    text_kind,\n"),
        (
            "    awaited: bool = attr(\n",
            '    label: str | None = attr(text_kind("a label", 64), "Its label.", default=None, change=_PORT_STAYS)\n'
            "    awaited: bool = attr(\n",
        ),
    ),
    "vnet/db/schema.py": (VERSION,),
}
GADGET = '''
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.kinds import choice
from vnet.grammar.noun import Noun
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Usage
from vnet.objects.words import NAME_KIND, NETWORK_REF, OWNER, text_kind


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Gadget(Declared):
    """A gadget on a network."""

    NOUN: ClassVar[Noun] = Noun("gadget", "gadgets", "gadget", "Gadget", "gadgets", doc="Gadgets, by name.")
    TITLE: ClassVar[str] = "a gadget"

    name: str = attr(NAME_KIND, "Its name.", set_by=SetBy.NAME)
    network: str = attr(NETWORK_REF, "The network it is on.")
    colour: Colour = attr(choice("a colour", Colour), "Its colour.", change=NOTHING)
    note: str | None = attr(text_kind("a note", 80), "A note.", default=None, change=NOTHING)
    owner: Owner = attr(OWNER, "Its maker.", default=Owner.DOCUMENT, set_by=SetBy.RUNTIME)

    @property
    def summary(self) -> str:
        return f"{self.colour.value} on {self.network}"

    def cost_of_new(self, usage: Usage, name: str) -> Cost:
        return NOTHING

    def cost_of_removal(self, usage: Usage, name: str) -> Cost:
        return NOTHING
'''
RULE = """def _gadgets(p: Proposal) -> Faults:
    for gadget in p.changed("gadgets").values():
        if gadget.network not in p.after.networks:
            yield missing("gadget", gadget.name, "network", ("network", gadget.network), p.after.networks)


RULES: """
NOUN: Edits = {
    "vnet/objects/gadget.py": (("", GADGET),),
    "vnet/objects/proposal.py": (
        ("from vnet.objects.host import", "from vnet.objects.gadget import Gadget\nfrom vnet.objects.host import"),
        ("(Host, Network, Subnet, ", "(Host, Network, Subnet, Gadget, "),
    ),
    "vnet/objects/state.py": (
        ("from vnet.objects.host import", "from vnet.objects.gadget import Gadget\nfrom vnet.objects.host import"),
        ("    vms: Map", "    gadgets: Mapping[str, Gadget] = field(default_factory=dict)\n    vms: Map"),
    ),
    "vnet/objects/rules.py": (
        ("RULES: ", RULE),
        ("*(_subnets, ", "*(_gadgets, _subnets, "),
        (
            '        yield from _in_use(p, "network", name, users)\n',
            '        users += [f"gadget {g.name}" for g in p.after.gadgets.values() if g.network == name]\n'
            '        yield from _in_use(p, "network", name, users)\n',
        ),
    ),
    "vnet/cli/main.py": (
        (
            '    "vm": (',
            '    "gadget": ("vnet.cli.nouns:gadget", "Gadgets: list, make, change, delete."),\n    "vm": (',
        ),
    ),
    "vnet/db/schema.py": (VERSION,),
}

# Follows one object through every door. ROW: its row once the document is applied.
COMMON = '''
import asyncio, contextlib, io, json
from pathlib import Path

import httpx
import vnet
from ovsctl.ovsdb import Client as Rows, Select
from tests.vnet.controller.daemons import DOCUMENT, REPOSITORY, controller
from vnet import api
from vnet.cli import main
from vnet.client import AsyncClient, Client
from vnet.grammar.problems import TopologyErrors
from vnet.topology import load

assert Path(vnet.__file__).parents[1] == REPOSITORY == Path.cwd(), "the copy is tried, by the controller as well"


def cli(*args):
    """The standard output of a command that succeeds."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main.run([*args])
    assert code == 0, (args, code, err.getvalue())
    return out.getvalue()


def problems(text):
    try:
        load(text, "lab.vnet.yaml")
    except TopologyErrors as errors:
        return [problem.code for problem in errors.problems]
    return []


async def row(running, table, where):
    async with Rows([running.database.remote], "Vnet") as rows:
        ((found,),) = await rows.transact(Select(table, ((where[0], "==", where[1]),)))
        return found


def through_document(running, document, table, where, cells, words):
    """Validate, plan, apply, the row, and an export that loads and changes nothing."""
    file = Path("lab.vnet.yaml")
    file.write_bytes(document)
    cli("validate", str(file))
    with running.client() as client:
        assert client.plan(document).changes
        client.apply(document, wait_s=0)
        assert client.plan(document).changes == []
        found = asyncio.run(row(running, table, where))
        assert {name: found[name] for name in cells} == cells, found
        exported = client.export()
        assert words in exported, exported
        assert load(exported.encode(), "exported").state == load(document, "lab").state
        assert client.plan(exported.encode()).changes == []


def through_rest(running, path, noun, name, body, change):
    """PUT, GET, PATCH and DELETE, each change without doing it first; and the events of it."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(running.socket)), base_url="http://x") as http:
        def call(method, query="", **more):
            return http.request(method, path + query, **more)

        for method, stated, action in (("PUT", body, "create"), ("PATCH", change, "update"), ("DELETE", None, "delete")):
            before = call("GET")
            asked = call(method, "?dry-run=true", json=stated).json()
            (planned,) = [each for each in asked["changes"] if each["kind"] == noun]
            assert (planned["action"], planned["name"], asked["disruption"]) == (action, name, "none"), asked
            assert call("GET").text == before.text, "a dry run changes nothing"
            assert call(method, json=stated).status_code == 200
            after = call("GET")
            assert after.status_code == (404 if stated is None else 200)
            assert stated is None or {word: after.json()[word] for word in stated} == stated
        happened = {event["kind"] for event in http.get("/v1/events").json()}
        assert {f"{noun}-{verb}" for verb in ("created", "changed", "deleted")} <= happened


async def through_clients(running, noun, name, spec, change):
    """The generated calls of both clients; each result of the asyncio one is what the blocking one's is."""
    async with AsyncClient(running.address) as aio:
        with Client(running.address) as blocking:
            for call, *args in (
                (f"plan_{noun}", spec), (f"put_{noun}", spec), (noun,), (f"change_{noun}", change), (noun,),
            ):
                here, there = getattr(blocking, call)(name, *args), await getattr(aio, call)(name, *args)
                assert call != noun or here == there
            assert here in await getattr(aio, f"{noun}s")()
            assert here in getattr(blocking, f"{noun}s")()
            assert [each.name for each in getattr(blocking, f"delete_{noun}")(name, dry_run=True).changes] == [name]
            await getattr(aio, f"delete_{noun}")(name)
            assert name not in cli("--controller", running.address, noun, "list", "-o", "json")
            return here
'''
USES_SETTING = """
LABELLED = DOCUMENT + b"vms:\\n  web1: {host: xen1, vifs: [{network: tenant, label: front door}]}\\n"
assert problems(LABELLED.replace(b"front door", b"''")) == ["wrong-text"]
with controller() as running:
    through_document(running, LABELLED, "Vif", ("id", "web1/0"), {"label": "front door"}, 'label: front door')
    stated = {"network": "tenant", "label": "old"}
    through_rest(running, "/v1/vifs/free", "vif", "free", stated, {"label": "new"})
    spec, change = api.VifSpec(network="tenant", label="old"), api.VifChange(label="new")
    assert asyncio.run(through_clients(running, "vif", "free", spec, change)).label == "new"
    where = ("--controller", running.address)
    cli(*where, "vif", "create", "free", "--network", "tenant", "--label", "one")
    cli(*where, "vif", "set", "free", "--label", "two")
    assert json.loads(cli(*where, "vif", "get", "free", "-o", "json"))["label"] == "two"
    cli(*where, "vif", "set", "free", "--no-label")
    assert json.loads(cli(*where, "vif", "get", "free", "-o", "json"))["label"] is None
print("all of it")
"""
USES_NOUN = """
GADGETS = DOCUMENT + b"gadgets:\\n  lamp: {network: tenant, colour: red, note: by the door}\\n"
assert problems(GADGETS.replace(b"red", b"pink")) == ["wrong-value"]
assert problems(GADGETS.replace(b"{network: tenant,", b"{network: tenent,")) == ["unknown-network"]
with controller() as running:
    cells = {"name": "lamp", "network": "tenant", "colour": "red", "note": "by the door", "owner": "document"}
    through_document(running, GADGETS, "Gadget", ("name", "lamp"), cells, "lamp: {network: tenant, colour: red, note: by")
    stated = {"network": "tenant", "colour": "red", "note": "a bell"}
    through_rest(running, "/v1/gadgets/bell", "gadget", "bell", stated, {"colour": "blue", "note": None})
    spec, change = api.GadgetSpec(network="tenant", colour="red"), api.GadgetChange(colour="blue")
    assert asyncio.run(through_clients(running, "gadget", "bell", spec, change)).colour == "blue"
    where = ("--controller", running.address)
    cli(*where, "gadget", "create", "bell", "--network", "prod", "--colour", "red")
    cli(*where, "gadget", "set", "bell", "--colour", "blue", "--note", "loud")
    listed = json.loads(cli(*where, "gadget", "list", "-o", "json"))
    assert [(each["name"], each["colour"], each["owner"]) for each in listed] == [
        ("bell", "blue", "toolstack"), ("lamp", "red", "document")
    ]
    assert "COLOUR" in cli(*where, "gadget", "list")
    assert main.run([*where, "network", "delete", "prod"]) != 0
    cli(*where, "gadget", "delete", "bell")
    assert [each["name"] for each in json.loads(cli(*where, "gadget", "list", "-o", "json"))] == ["lamp"]
print("all of it")
"""


@pytest.mark.parametrize(
    ("edits", "most", "uses"), [(SETTING, 3, USES_SETTING), (NOUN, 6, USES_NOUN)], ids=["VIF setting", "noun"]
)
def test_it_is_declared_once(ovs: None, tmp_path: Path, edits: Edits, most: int, uses: str) -> None:
    assert len(edits) <= most
    for package in ("vnet", "ovsctl", "docs"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests/vnet/controller").mkdir(parents=True)
    for module in HELPERS:
        shutil.copy(ROOT / module, tmp_path / module)
    for name, replaced in edits.items():
        path = tmp_path / name
        text = path.read_text() if path.exists() else ""
        for old, new in replaced:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        path.write_text(text)
    script = tmp_path / "uses.py"
    script.write_text(COMMON + uses)
    for command in (*(["-m", generator] for generator in GENERATORS), ["uses.py"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert done.stdout == "all of it\n"
