"""A VIF setting, a noun and a stage of the pipeline, all made up, on a copy of the tree: all but a handful of files follow.

The copy's tests of every noun (REST, both clients, commands, events) take the first two as one more sample; DOORS tries document, row and
export. The copy's tests of compile take the stage, and TWIN sends a frame through it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from filecmp import cmp
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GENERATORS = ("vnet.db.schema", "vnet.topology.reference", "vnet.api.generate")
Edits = dict[str, tuple[tuple[str, str], ...]]
UNFINISHED = shutil.ignore_patterns("*.pyc.*")  # compiled code that others write now
ALONE = ("-p", "no:cacheprovider", "-p", "no:xdist")
MOST_OF_STAGE = 4

# The schema of a database that gets a column has a version of its own.
VERSION = ('VERSION = "1.', 'VERSION = "2.')
SETTING: Edits = {
    "vnet/objects/vif.py": (
        ("    VM_REF,\n    TrunkTags,\n", "    VM_REF,\n    TrunkTags,\n    text_kind,\n"),
        (
            "    awaited: bool = attr(\n",
            '    caption: str | None = attr(text_kind("a caption", 64), "Its caption.", default=None, change=_PORT_STAYS)\n'
            "    awaited: bool = attr(\n",
        ),
    ),
    "vnet/db/schema.py": (VERSION,),
}
GADGET = '''
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.value_types import choice
from vnet.grammar.noun import Noun
from vnet.objects.enums import Owner
from vnet.objects.impact import NOTHING, Cost, Usage
from vnet.objects.words import NAME_KIND, NETWORK_REF, OWNER, text_kind

GADGET_REF = replace(NAME_KIND, expected="the name of a gadget", refers="gadget")


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
NOUN: Edits = {
    "vnet/objects/gadget.py": (("", GADGET),),
    "vnet/objects/state.py": (
        ("from vnet.objects.host import", "from vnet.objects.gadget import Gadget\nfrom vnet.objects.host import"),
        ("    AddressSet,\n    SecurityGroup,\n", "    AddressSet,\n    Gadget,\n    SecurityGroup,\n"),
        ("    vms: Map", "    gadgets: Mapping[str, Gadget] = field(default_factory=dict)\n    vms: Map"),
    ),
    "vnet/objects/vif.py": (
        (
            "from vnet.objects.words import (",
            "from vnet.objects.gadget import GADGET_REF\nfrom vnet.objects.words import (",
        ),
        (
            "    awaited: bool = attr(\n",
            '    gadget: str | None = attr(GADGET_REF, "The gadget that it has.", default=None, change=_PORT_STAYS)\n'
            "    awaited: bool = attr(\n",
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

STAMP = '''"""Frames of VIFs are counted, by VIF."""

from vnet.compile.flows import Flows, goto
from vnet.compile.pipeline import Category, Table, cookie, following
from vnet.compile.view import HostView
from ovsctl.openflow import Flow, Match

ONWARD = (goto(following(Table.STAMP)),)


def stamp_flows(view: HostView, vif_id: str, network_name: str) -> Flows:
    vif = view.vif(vif_id, network_name)
    ofport = view.ofport(vif) if vif is not None else None
    if ofport is None:
        return ()
    return (Flow(Match(in_port=ofport), ONWARD, Table.STAMP, 100, cookie(Category.STAMP, vif_id)),)

'''
STAMP_STAGE = """    Table.STAMP: Stage(
        "how much a VIF sends, by counters",
        frozenset({"in_port"}),
        frozenset({following(Table.STAMP)}),
        miss=following(Table.STAMP),
    ),
    Table.SENT: Stage(
"""
STAMP_FEATURE = """    Feature(Category.STAMP, "counter of VIF {}", (Input.VIF,), frozenset({T.STAMP}), stamp_flows),
    Feature(Category.PROBE, """
STAMP_DOC = """- Next: STAMP

## 41 STAMP

How much a VIF sends, by counters.

- Matches: `in_port`
- Next: SENT

## 42 SENT
"""
STAGE: Edits = {
    "vnet/compile/stamp.py": (("", STAMP),),
    "vnet/compile/pipeline.py": (
        ("    FROM_RATE = 40\n", "    FROM_RATE = 40\n    STAMP = 41\n"),
        ("    Table.FROM_RATE,\n    Table.SENT", "    Table.FROM_RATE,\n    Table.STAMP,\n    Table.SENT"),
        ("    Table.SENT: Stage(\n", STAMP_STAGE),
        ("\n\ndef cookie(", "    STAMP = 99\n\n\ndef cookie("),
    ),
    "vnet/compile/features.py": (
        (
            "from vnet.compile.view",
            "from vnet.compile.stamp import stamp_flows\nfrom vnet.compile.view",
        ),
        ("    Feature(Category.PROBE, ", STAMP_FEATURE),
    ),
    "docs/pipeline.md": (
        (
            "- Next: LEARN, REPORTS, FROM_ISOLATION, EGRESS, STORM, FROM_RATE, SENT, LOOKUP\n",
            "- Next: LEARN, REPORTS, FROM_ISOLATION, EGRESS, STORM, FROM_RATE, STAMP, LOOKUP\n",
        ),
        (
            "- Next: REPORTS, FROM_ISOLATION, EGRESS, STORM, FROM_RATE, SENT\n",
            "- Next: REPORTS, FROM_ISOLATION, EGRESS, STORM, FROM_RATE, STAMP\n",
        ),
        (
            "- Next: FROM_ISOLATION, EGRESS, STORM, FROM_RATE, SENT\n",
            "- Next: FROM_ISOLATION, EGRESS, STORM, FROM_RATE, STAMP\n",
        ),
        ("- Next: EGRESS, STORM, FROM_RATE, SENT\n", "- Next: EGRESS, STORM, FROM_RATE, STAMP\n"),
        ("- Next: SENT\n\n## 42 SENT\n", STAMP_DOC),
    ),
}
TWIN = """
from tests.vnet.sim.pools import talk, two_hosts
from vnet.sim.trace import trace_packet


def test_a_frame_passes_the_stage():
    pool = two_hosts()
    leg = trace_packet(pool, "web1/0", talk(pool, "web1/0", "db1/0").frame())
    passed = [(step.name, step.source) for hop in leg.hops for step in hop.steps]
    assert ("STAMP", "counter of VIF web1/0") in passed
    assert leg.to == ["db1/0"]
"""

# The samples that the copy's tests of every noun take.
NOUNS = "tests/vnet/controller/nouns.py"
LABELLED = (
    ('"app/0",\n        {', '"app/0",\n        {"caption": "old", '),
    ('"locking_mode": "unlocked"}', '"locking_mode": "unlocked", "caption": "new"}'),
    ('("--network", "tenant", "--mac"', '("--caption", "old", "--network", "tenant", "--mac"'),
    ('("--no-address", ', '("--caption", "new", "--no-address", '),
)
GADGETS = (
    (
        "SAMPLES = (\n",
        """SAMPLES = (
    Sample(
        "gadget",
        "bell",
        {"network": "tenant", "colour": "red", "note": "loud"},
        {"network": "tenant", "colour": "blue"},
        "colour",
        {"colour": "blue", "note": None},
        "none",
        ("--network", "tenant", "--colour", "red", "--note", "loud"),
        ("--colour", "blue", "--no-note"),
    ),
""",
    ),
)

DOORS = """
from pathlib import Path

import msgspec
import pytest

import vnet
from ovsctl.ovsdb import OvsdbClient as Rows, Select
from tests.vnet.controller.daemons import DOCUMENT, REPOSITORY
from tests.vnet.controller.nouns import SAMPLES
from vnet import api
from vnet.client import Conflict, Invalid
from vnet.grammar.problems import TopologyErrors
from vnet.topology import load

CASES = {
    "vif": (
        b"vms:\\n  web1: {host: xen1, vifs: [{network: tenant, caption: front door}]}\\n",
        {(b"front door", b"''"): "wrong-text"},
        Select("Vif", (("id", "==", "web1/0"),), ("caption",)),
        {"caption": "front door"},
        "caption: front door",
    ),
    "gadget": (
        b"gadgets:\\n  lamp: {network: tenant, colour: red, note: by the door}\\n",
        {(b"red", b"pink"): "wrong-value", (b"tenant", b"tenent"): "unknown-network"},
        Select("Gadget", (), ("name", "network", "colour", "note", "owner")),
        {"name": "lamp", "network": "tenant", "colour": "red", "note": "by the door", "owner": "document"},
        "lamp: {network: tenant, colour: red, note: by the door}",
    ),
}


@pytest.mark.parametrize("noun", CASES)
async def test_the_document(running, client, noun):
    assert REPOSITORY == Path.cwd() == Path(vnet.__file__).parents[1], "the copy is tried, by the controller as well"
    section, wrong, select, cells, words = CASES[noun]
    for (old, new), code in wrong.items():
        with pytest.raises(TopologyErrors) as refused:
            load(DOCUMENT + section.replace(old, new), "lab.vnet.yaml")
        assert [problem.code for problem in refused.value.problems] == [code]
    document = DOCUMENT + section
    assert (await client.plan(document)).changes
    await client.apply(document, wait_s=0)
    assert (await client.plan(document)).changes == []
    async with Rows([running.database.remote], "Vnet") as rows:
        assert await rows.transact(select) == [[cells]]
    exported = await client.export()
    assert words in exported
    assert load(exported.encode(), "exported").state == load(document, "lab").state
    assert (await client.plan(exported.encode())).changes == []

    (sample,) = [sample for sample in SAMPLES if sample.noun == noun]
    await client.put_network("used", api.NetworkSpec(type="internal"))
    spec = msgspec.convert({**sample.body, "network": "used"}, sample.resource.spec)
    await getattr(client, f"put_{noun}")(sample.name, spec)
    with pytest.raises(Conflict, match=f"network used cannot go: it still has .* {sample.name}"):
        await client.delete_network("used")


# A reference is checked, filters lists, and keeps the gadget there.
async def test_another_noun_names_the_gadget(client):
    await client.put_network("places", api.NetworkSpec(type="internal"))
    await client.put_gadget("clock", api.GadgetSpec(network="places", colour="red"))
    await client.put_vif("holder/0", api.VifSpec(network="places", vm="holder", gadget="clock"))
    await client.put_vif("holder/1", api.VifSpec(network="places", vm="holder"))
    with pytest.raises(Invalid, match="unknown gadget 'clokc'") as refused:
        await client.change_vif("holder/0", api.VifChange(gadget="clokc"))
    assert (refused.value.code, refused.value.where) == ("unknown-gadget", "gadget")
    assert [vif.id for vif in await client.vifs(gadget="clock")] == ["holder/0"]
    assert [gadget.name for gadget in await client.gadgets(network="places")] == ["clock"]
    with pytest.raises(Conflict, match="gadget clock cannot go: it still has VIF holder/0"):
        await client.delete_gadget("clock")
    await client.change_vif("holder/0", api.VifChange(gadget=None))
    await client.delete_gadget("clock")
"""
GENERATED = {
    *("vnet/db/vnet.ovsschema", "vnet/topology/vnet.schema.json", "docs/topology.md"),
    *("vnet/api/__init__.py", "vnet/client/__init__.py", "vnet/client/calls.py"),
}


@pytest.mark.parametrize(
    ("noun", "edits", "samples", "most", "passed"),
    [("vif", SETTING, LABELLED, 3, 5), ("gadget", NOUN, GADGETS, 6, 6)],
    ids=["VIF setting", "noun"],
)
def test_it_is_declared_once(
    ovs: None, tmp_path: Path, noun: str, edits: Edits, samples: tuple[tuple[str, str], ...], most: int, passed: int
) -> None:
    copy = edited_copy(tmp_path, {**edits, NOUNS: samples})
    for generator in GENERATORS:
        run(copy, generator)
    by_hand = changed(copy) - GENERATED - {NOUNS}
    assert by_hand == edits.keys()
    assert len(by_hand) <= most

    (copy / "tests/vnet/test_made_up.py").write_text(DOORS)
    tests = ("tests/vnet/controller/test_resources.py", "tests/vnet/cli/test_nouns.py", "tests/vnet/test_made_up.py")
    chosen = f"(test_a_noun or test_the_document or another) and {noun}"
    assert f"{passed} passed" in run(copy, "pytest", *ALONE, *tests, "-k", chosen)


def test_a_stage_is_declared_once(tmp_path: Path) -> None:
    copy = edited_copy(tmp_path, STAGE)
    for generator in GENERATORS:
        run(copy, generator)
    assert changed(copy) == STAGE.keys()
    assert len(STAGE) <= MOST_OF_STAGE
    (copy / "tests/vnet/test_made_up.py").write_text(TWIN)
    of_compile = ("test_pipeline_doc.py", "test_features.py")
    tests = (*(f"tests/vnet/compile/{name}" for name in of_compile), "tests/vnet/test_made_up.py")
    run(copy, "pytest", *ALONE, *tests, "-k", "not test_a_path_skips_the_stages")  # which names today's


def edited_copy(directory: Path, edits: Edits) -> Path:
    """A copy of the tree with each text replaced that stands in its file once."""
    copy = directory / "copy"
    for package in ("vnet", "ovsctl", "docs", "tests"):
        shutil.copytree(ROOT / package, copy / package, ignore=UNFINISHED)  # with what is compiled
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name, replaced in edits.items():
        path = copy / name
        text = path.read_text() if path.exists() else ""
        for old, new in replaced:
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        path.write_text(text)
    return copy


def changed(copy: Path) -> set[str]:
    """The files of a copy that the tree has not, or has otherwise."""
    return {
        name for name in files(copy) if not (ROOT / name).exists() or not cmp(ROOT / name, copy / name, shallow=False)
    }


def files(copy: Path) -> Iterator[str]:
    return (str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file() and path.suffix != ".pyc")


def run(copy: Path, module: str, *args: str) -> str:
    """The standard output of a module of the copy that succeeds."""
    command, env = [sys.executable, "-m", module, *args], {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
