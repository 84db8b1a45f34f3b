"""Every block and every command of the pages is run: by the test that RUNNERS names, or on the lab of this module, page after page.

One rule: nothing is left out but what EXEMPT names with its reason. A command of a new page is run here, as it stands, without a line of code.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.debian.guide import BLOCK as MACHINES
from tests.docs import test_cluster, test_fragments, test_history, test_operate, test_readme, test_tutorial
from tests.docs.parsing import ROOT, Block, page_blocks, sentence_commands
from tests.docs.running import ran
from tests.docs.test_documents import BLOCK as PYTHON
from tests.docs.test_documents import agrees
from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.agent.test_remote import AGENTS
from tests.vnet.lab.test_scenarios import commands_of_the_page
from tests.vnet.libvirt.domains import domain_xml
from tests.vnet.sim.test_docs import BLOCKS as SIMULATED
from tests.vnet.xapi.test_following import page_commands
from vnet.cli.exits import ExitCode
from vnet.client import Client, Unit
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md")))}  # fmt: skip

INTERFACE = re.compile(r"^```xml\n(<interface type='bridge'>.*?)^```", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Runner:
    """A test that runs blocks of a page, and what it takes of the page: its own expression."""

    test: str
    page: str
    selected: Callable[[str], Iterable[str]]


def matches(pattern: re.Pattern[str], *groups: str) -> Callable[[str], Iterable[str]]:
    return lambda text: (found[group] for found in pattern.finditer(text) for group in groups if found[group])


RUNNERS = (
    *(Runner("debian/test_pages.py", page, matches(MACHINES, "text", "event")) for page in ("install.md", "troubleshooting.md", "operate.md")),
    Runner("docs/test_toolstack.py", "toolstack.md", matches(PYTHON, "code")),
    Runner("vnet/lab/test_document.py", "lab.md", matches(PYTHON, "code")),
    Runner("vnet/packets/test_capture.py", "capture.md", matches(PYTHON, "code")),
    *(Runner("docs/test_fragments.py", page, test_fragments.YAML.findall) for page in PAGES if page not in test_fragments.RUN_ELSEWHERE),
    *(Runner("docs/test_fragments.py", page, test_fragments.SHELL.findall) for page in ("trust.md", "remote.md")),
    *(Runner("docs/test_fragments.py", page, test_fragments.CONTROLLER.findall) for page in ("web.md", "toolstack.md")),
    Runner("docs/test_documents.py", "ovsctl.md", lambda text: [*matches(PYTHON, "code")(text), *test_fragments.SHELL.findall(text)]),
    Runner("docs/test_fragments.py", "remote.md", test_fragments.ISSUED.findall),
    Runner("docs/test_tutorial.py", "tutorial.md", matches(test_tutorial.BLOCK, "text")),
    Runner("docs/test_cluster.py", "cluster.md", matches(test_cluster.BLOCK, "script")),
    Runner("docs/test_operate.py", "operate.md", test_operate.BLOCK.findall),
    Runner("docs/test_history.py", "history.md", lambda _: test_history.commands()),
    Runner("docs/test_readme.py", "README.md", lambda _: test_readme.run_here()),
    Runner("vnet/lab/test_scenarios.py", "lab.md", lambda _: commands_of_the_page()),
    Runner("vnet/sim/test_docs.py", "simulator.md", lambda _: SIMULATED),
    Runner("vnet/xapi/test_following.py", "xenserver.md", lambda _: page_commands()),
    Runner("vnet/agent/test_remote.py", "remote.md", AGENTS.findall),
    Runner("docs/test_pages.py", "libvirt.md", INTERFACE.findall),
)  # fmt: skip
# A libvirt with one guest, on the first of the two hosts that docs/libvirt.md names.
GUEST = "7a1f8d1e-0000-4000-8000-000000000001"
VIRSH = """case "$*" in
*10.0.0.2*) ;;
*list*) echo {guest} ;;
*dumpxml*) cat {directory}/domain.xml ;;
esac"""
# Commands that nothing runs as they stand, by how they begin: who does what they do, or why nobody can.
EXEMPT = {
    "vnet capture web1 -w - | wireshark": "Wireshark opens a window; tests/vnet/packets/test_capture.py reads such a file as it comes",
    "vnet controller --identity-header": "tests/vnet/controller/test_tokens.py",
    "vnet doctor --socket": "tests/vnet/agent/test_remote.py, with the agents of its page",
    "vnet pki renew": "tests/vnet/cli/test_pki.py",
    "ovs-ofctl --bundle": "benchmarks/flow_bundle.py",
    "ovs-vsctl --all destroy": "it is for the machine's own Open vSwitch; tests/vnet/agent/test_flow_export.py has such a row",
    "pytest --datapath-type": "tests/kernel",
    "vnet lab up": "tests/docs/test_readme.py, the same line",
    "vnet lab down": "tests/docs/test_readme.py, the same line",
    "vnet lab demo": "tests/vnet/lab/test_demo.py",
    "vnet lab web": "tests/vnet/packets/test_traffic.py",
    "vnet lab scenario": "tests/vnet/lab/test_scenarios.py",
    "vnet libvirt watch": "tests/guests, on a real libvirtd",
    "ln -s /usr/lib/vnet/libvirt": "tests/guests; the unit is started on machines, tests/debian",
    "systemctl restart libvirtd": "tests/guests have a libvirtd of their own, without systemd",
    "systemctl enable --now vnet-": "tests/debian/test_packages.py starts each unit",
    "systemctl status": "tests/debian/test_pages.py, with another unit's name",
    "journalctl -t vnet": "tests/vnet/controller/test_event_delivery.py reads what the journal is given",
    "ip netns exec vnet-wireguard": "a lab's hosts have such namespaces of other names",
}  # fmt: skip
# Blocks that are no commands: drawings, and messages with the test that has them printed. By their page and how they begin.
SHOWN = {
    ("README.md", "topology.vnet.yaml"): "a drawing",
    ("ARCHITECTURE.md", "YAML --load-->"): "a drawing",
    ("ARCHITECTURE.md", "observe "): "a drawing",
    ("lab.md", "VM namespace"): "a drawing",
    ("remote.md", "machine of the agents"): "a drawing",
    ("mirrors.md", "pool.vnet.yaml:12:47"): "tests/docs/test_fragments.py",
    ("cluster.md", "--pool ssl:"): "options; tests/docs/test_cluster.py starts a controller with such",
    ("operate.md", "runs on its own copy"): "tests/vnet/agent/test_obstacles.py",
    ("flow-export.md", "vif=web1/0 vm=web1"): "tests/vnet/compile/test_flow_export.py",
    ("flow-export.md", "name=observer"): "tests/monitoring/test_pmacct.py",
    ("libvirt.md", "<network>"): "tests/guests/test_guests.py",
    ("operate.md", "/var/lib/vnet/pool.db is damaged"): "tests/vnet/controller/test_file_check.py",
}


# What the pages take as there, beside topologies/quickstart.vnet.yaml: of the document, and of a toolstack.
GROUPS = {"db": {"rules": []}}
MADE = """
vnet network create lan --type vxlan
vnet network create video --type vxlan
vnet network create jail --type vxlan
vnet vif create nested/0 --network lan --vm nested
vnet vif create edge1/0 --network lan --vm edge1
vnet vif create ids1/0 --network video --vm ids1
vnet vif create web9/0 --network tenant-a --vm web9 --host xen2
"""
# The change that docs/history.md looks for, and its end.
AROUND = {"history.md": ("vnet apply --yes broken", "vnet apply --yes document")}


@cache
def selections(page: str) -> list[str]:
    """What tests run of a page."""
    return [text for runner in RUNNERS if runner.page == page for text in runner.selected(PAGES[page])]


@cache
def lines(page: str) -> list[str]:
    """The lines of what tests run of a page, without comments."""
    return [
        part.strip()
        for line in Block("sh", "\n".join(selections(page)), 0).commands
        for part in (line, *line.split(";"))
    ]


@cache
def all_lines() -> str:
    blocks = [command for page in PAGES for block in page_blocks(PAGES[page]) for command in block.commands]
    return re.sub(r"\d+", "0", "\n".join([*blocks, *(line for page in PAGES for line in lines(page))]))


def is_among(command: str) -> bool:
    """Whether a command of a sentence is in a block: its words, but for digits, in this order on one line."""
    words = [re.escape(re.sub(r"\d+", "0", word)) for word in command.split()]
    return re.search(r"(?<!\S)" + r"\b.*?(?<!\S)".join(words) + r"(?=[\s;|&]|$)", all_lines()) is not None


def exempt(command: str) -> bool:
    return any(command.startswith(known) for known in EXEMPT)


@cache
def events() -> set[str]:
    """What machines run between blocks, tests/debian."""
    return {
        part.strip()
        for text in PAGES.values()
        for found in MACHINES.finditer(text)
        for part in (found["event"] or "").split(";")
    }


def unrun(block: Block, page: str) -> list[str]:
    """The lines of a block that no test of RUNNERS runs. One that machines run elsewhere too goes with the others of its block."""
    found = [line for line in block.commands if line not in lines(page) and not exempt(line) and not is_made(line)]
    return [] if set(found) <= events() else found


def left(page: str) -> list[Block]:
    """The blocks with commands that no test of RUNNERS runs, and the commands of sentences that are in no block, as one more."""
    blocks = [block for block in page_blocks(PAGES[page]) if unrun(block, page)]
    sentences = [it for it in sentence_commands(PAGES[page]) if not is_among(it) and not exempt(it) and not is_made(it)]
    return [*blocks, *([Block("sh", "\n".join(sentences), 0)] if sentences else [])]


def is_made(command: str) -> bool:
    """A target of the Makefile, or a module, that there is."""
    words = command.split()
    if words[0] == "make":
        return re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M) is not None
    return words[:2] == ["python", "-m"] and find_spec(words[2]) is not None


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_run_or_says_why_not(page: str) -> None:
    """Blocks without commands: code, documents, messages, drawings. What blocks print is compared by who runs them."""
    blocks = list(page_blocks(PAGES[page]))
    assert len(blocks) * 2 == PAGES[page].count("```"), "a block that is not read"
    nobody = [
        f"{page}:{block.line}: {block.text[:60]}"
        for block in blocks
        if not block.commands
        and not (block.follows and block.language == "text")
        and not any(block.text in text for text in selections(page))
        and not any(page == known and block.text.strip().startswith(start) for known, start in SHOWN)
    ]
    assert nobody == []


def test_no_reason_is_left_over() -> None:
    blocks = {page: list(page_blocks(text)) for page, text in PAGES.items()}
    assert [it for it in SHOWN if not any(block.text.strip().startswith(it[1]) for block in blocks[it[0]])] == []
    named = [line for page in PAGES for block in blocks[page] for line in block.commands]
    named += [command for text in PAGES.values() for command in sentence_commands(text)]
    assert [it for it in EXEMPT if not any(command.startswith(it) for command in named)] == []
    tests = {
        found
        for reason in (*EXEMPT.values(), *SHOWN.values())
        for found in re.findall(r"tests/[\w/]+(?:\.py)?", reason)
    }
    tests |= {f"tests/{runner.test}" for runner in RUNNERS}
    assert [test for test in tests if not (ROOT / test).exists()] == []


@pytest.fixture
def lab(ovs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab with all that pages name, and this directory as theirs: with the pool's document, and a libvirt with the guest of docs/libvirt.md."""
    document = yaml.safe_load((ROOT / "topologies/quickstart.vnet.yaml").read_text())
    document["security-groups"] = GROUPS
    document["vms"]["web1"]["labels"] = {"app": "shop", "tier": "web"}
    text = yaml.safe_dump(document, sort_keys=False)
    (tmp_path / "document").write_text(text)
    document["vms"]["db1"]["vifs"][0]["security-groups"] = ["db"]
    del document["expectations"]
    (tmp_path / "broken").write_text(yaml.safe_dump(document, sort_keys=False))
    (tmp_path / "domain.xml").write_text(domain_xml("web1", GUEST, *INTERFACE.findall(PAGES["libvirt.md"])))
    programs = {
        "vnet": f'exec {sys.executable} -m vnet.cli.main "$@"',
        "virsh": VIRSH.format(directory=tmp_path, guest=GUEST),
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    pool = desired_state(load(text.encode(), "pool.vnet.yaml"), PoolState())
    with Lab.up(pool, name=new_name(), driver=Driver.DUMMY, daemons=True, document=text) as made:
        made.start_all()
        made.wait_ready()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("VNET_LAB_NAME", made.spec.name)
        monkeypatch.setenv("VNET_CONTROLLER", f"unix:{made.daemons.controller_socket}")
        monkeypatch.setenv("VNET_AGENT_SOCKET", str(made.daemons.agent_socket("xen1")))
        yield made


@contextlib.contextmanager
def toolstack(lab: Lab, vm: str) -> Iterator[None]:
    """A hypervisor's part of a migration of a VM, while pages drive the network's; the VM is at home again at the end."""
    ends, unit, home = threading.Event(), Unit.of_vm(vm), lab.location(vm)
    assert home is not None

    def follow() -> None:
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            while not ends.wait(0.02):
                found = client.migration(unit)
                if found.phase == "preparing" and found.destination != plugged[-1]:
                    plugged.append(found.destination or home)
                    lab.plug(vm, plugged[-1])
                elif found.phase == "prepared" and lab.location(vm) != plugged[-1]:
                    lab.run(vm, plugged[-1], announce=True, resume=True)

    plugged = [home]
    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        if plugged[-1] != home:
            lab.unplug(vm, home)
            lab.migrate(vm, home)


def as_here(text: str, lab: Lab, directory: Path, since: str) -> str:
    """A text of a page with this lab's paths, the revision that it has, and a moment of today."""
    sockets = {"controller": lab.daemons.controller_socket, "agent-xen1": lab.daemons.agent_socket("xen1")}
    for name, path in sockets.items():
        text = text.replace(f"/run/vnet/{name}.sock", str(path))
    text = re.sub(r"\b41\b", "1", text)  # the revision, before a moment that may have the number
    text = re.sub(r"(?<!\d)(?:2026-01-31T)?10:42(?!:)", since, text)
    text = re.sub(r"/(?=root/|etc/vnet/|var/lib/)", f"{directory}/", text)
    return text.replace("--for 30s", "--for 1s")


def shows(expected: str, printed: str) -> bool:
    """Whether a page shows what was printed, but for measures. Hosts answer in any order."""
    measure = re.compile(r"[+-]?\d+(\.\d+)?(?= (ms|s|frames|bytes)\b)")
    expected, printed = (measure.sub("0", text) for text in (expected, printed))
    return agrees(expected, printed) or sorted(expected.splitlines()) == sorted(printed.splitlines())


def test_what_nobody_else_runs(lab: Lab, tmp_path: Path) -> None:
    """Page after page: its blocks in their order, then the commands of its sentences. What a page shows as printed is printed."""
    failed: dict[str, str] = {}

    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        for line in ("vnet apply --yes document", *MADE.strip().splitlines()):
            assert ran(line, tmp_path)[0] == ExitCode.OK, line
        since = datetime.now().isoformat()
        for page in PAGES:
            blocks = left(page)
            if not blocks:
                continue
            shutil.copy("document", "pool.vnet.yaml")
            before, after = AROUND.get(page, ("", ""))
            assert ran(before, tmp_path)[0] == ExitCode.OK
            moves = any("vnet vm" in line for block in blocks for line in block.commands)
            with toolstack(lab, "web1") if moves else contextlib.nullcontext():
                for block in blocks:
                    code = 0
                    for note in block.notes:
                        if note.startswith("on lab: "):
                            assert ran(note.removeprefix("on lab: "), tmp_path)[0] == ExitCode.OK, note
                        code = int(note.removeprefix("exits with ")) if note.startswith("exits with ") else code
                    for line in unrun(block, page):
                        if line.startswith("vnet vm activate"):  # as the page says: not before
                            wait_until(lambda: client.migration(Unit.of_vm("web1")).phase != "preparing", "all hosts")
                        got, printed = ran(as_here(line, lab, tmp_path, since), tmp_path)
                        expected = block.text.partition(f"$ {line}\n")[2] or "..."
                        if got != code or not shows(expected, printed):
                            failed[f"{page}: {line}"] = f"{got}: {printed}"
            for link in lab.impaired():
                lab.impair(link)
            assert ran(after, tmp_path)[0] == ExitCode.OK
    assert not failed, "\n".join(f"{line}\n{printed}" for line, printed in failed.items())
