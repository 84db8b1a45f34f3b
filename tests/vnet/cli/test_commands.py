"""Commands against a real controller: what goes to standard output, and every exit code."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.shell_completion import ShellComplete

from tests.servers import run_dir
from tests.vnet.controller.daemons import DOCUMENT, Controller
from vnet.api import RESOURCES, Applied, Change, Plan, Reason
from vnet.cli import main, topology
from vnet.cli.applied import report_applied
from vnet.cli.exits import ExitCode
from vnet.cli.watching import watched
from vnet.client import Rule, SecurityGroupSpec, VifSpec, VmSpec
from vnet.objects.impact import Disruption

Capture = pytest.CaptureFixture[str]
WITH_VM = DOCUMENT + b"vms: {web1: {host: xen1, vifs: [{network: tenant}]}}\n"


@pytest.fixture(autouse=True)
def _environment(running: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", running.address)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "test.vnet.yaml"
    path.write_bytes(WITH_VM)
    return path


@pytest.fixture
def vif(running: Controller) -> Iterator[str]:
    with running.client() as client:
        yield client.put_vif("cli/0", VifSpec(network="tenant", vm="cli")).id
        client.delete_vm("cli")


def vnet(capsys: Capture, *args: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    capsys.readouterr()
    code = main.run([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def test_plan_apply_and_plan_again(capsys: Capture, document: Path, tmp_path: Path) -> None:
    code, out, _ = vnet(capsys, "plan", document)
    assert (code, "+ vif web1/0" in out) == (ExitCode.OK, True)
    assert vnet(capsys, "plan", "--detailed-exitcode", document)[0] == ExitCode.CHANGES
    code, out, err = vnet(capsys, "apply", "--yes", "--wait", "0", document)
    assert (code, "+ vif web1/0" in out) == (ExitCode.NOT_FOLLOWED, True)
    assert "host xen1 does not report: it will follow" in err
    assert "on 0 of 3 hosts" in err
    code, out, _ = vnet(capsys, "plan", "--detailed-exitcode", document)
    assert (code, out) == (ExitCode.OK, "Nothing to change: the pool is as the document says.\n")
    assert vnet(capsys, "apply", document)[0] == ExitCode.NOT_FOLLOWED  # nothing to ask about, and still nobody there
    code, out, _ = vnet(capsys, "export")
    exported = tmp_path / "exported.yaml"
    exported.write_text(out)
    assert vnet(capsys, "plan", "--detailed-exitcode", exported)[0] == ExitCode.OK
    document.write_bytes(DOCUMENT)
    code, out, _ = vnet(capsys, "apply", "--yes", "-o", "json", document)
    assert (code, [c["action"] for c in json.loads(out)["plan"]["changes"]]) == (ExitCode.NOT_FOLLOWED, ["delete"] * 2)


CHANGE = Change(action="create", kind="host", name="xen1", reason="", disruption="none")
APPLIED = Applied(plan=Plan(revision=2, disruption="none", changes=[CHANGE]), revision=3, generation=7)
PROBLEM = Reason(code="agent-problem", text="host xen2: Port eth1: is not ours", host="xen2")


@pytest.mark.parametrize(
    ("hosts", "code", "text"),
    [
        ({"acknowledged": ["xen1", "xen2"]}, ExitCode.OK, "applied: revision 3, on 2 hosts\n"),
        ({"acknowledged": ["xen1"], "dead": ["xen2"]}, ExitCode.OK, "on 1 of 2 hosts\n"),
        ({"acknowledged": ["xen1"], "waiting": ["xen2"]}, ExitCode.NOT_FOLLOWED, "host xen2 has not programmed generation 7"),
        ({"dead": ["xen1", "xen2"]}, ExitCode.NOT_FOLLOWED, "on 0 of 2 hosts\n"),
        ({"acknowledged": ["xen1", "xen2"], "problems": [PROBLEM]}, ExitCode.NOT_FOLLOWED, "host xen2: Port eth1: is not ours"),
        ({"acknowledged": ["xen1", "xen2"], "problems": [PROBLEM]}, ExitCode.NOT_FOLLOWED, "on 2 hosts, 1 of them with problems"),
        ({}, ExitCode.OK, "on 0 hosts\n"),
    ],
)  # fmt: skip
def test_who_has_followed_an_apply(capsys: Capture, hosts: dict[str, Any], code: ExitCode, text: str) -> None:
    assert report_applied(msgspec.structs.replace(APPLIED, **hosts), "table") == code
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("vm", "migrate", "web1", "--to", "xen2"), "VM web1 stays as far on its way to host xen2"),
        (("vif", "migrate", "web1/0", "--to", "xen2"), "VIF web1/0 stays as far on its way to host xen2"),
        (("host", "evacuate", "xen1"), "'vnet status' lists it"),
    ],
)
def test_ctrl_c_says_how_things_are_left(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], text: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"vnet.client.Client.{command[1]}", interrupted)
    code, out, err = vnet(capsys, *command)
    assert (code, out) == (ExitCode.FAILED, "")
    assert text in err


def test_apply_asks_only_where_somebody_can_answer(capsys: Capture, document: Path) -> None:
    code, _, err = vnet(capsys, "apply", document)
    assert (code, "say --yes" in err) == (ExitCode.USAGE, True)
    assert vnet(capsys, "plan", "--detailed-exitcode", document)[0] == ExitCode.CHANGES


def planned(deletions: int, disruption: str) -> Plan:
    gone = [
        Change(action="delete", kind="vif", name=f"web{n}/0", reason="", disruption=disruption)
        for n in range(deletions)
    ]
    return Plan(revision=2, disruption=disruption, changes=gone)


@pytest.mark.parametrize(
    ("plan", "allow", "beyond"),
    [
        (planned(10, "vif"), (), []),
        (planned(11, "none"), (), ["--allow deletions=11"]),
        (planned(11, "none"), ("deletions=11",), []),
        (planned(1, "none"), ("deletions=0",), ["--allow deletions=1"]),
        (planned(0, "uplink"), (), ["--allow disruption=uplink"]),
        (planned(0, "uplink"), ("disruption=uplink",), []),
        (planned(0, "of a later version"), ("disruption=uplink",), ["its disruption is 'of a later version'"]),
        (planned(12, "vif"), ("disruption=flows",), ["--allow deletions=12", "--allow disruption=vif"]),
    ],
)
def test_yes_has_limits(plan: Plan, allow: tuple[str, ...], beyond: list[str]) -> None:
    found = topology._beyond(plan, topology._limits(allow))
    assert len(found) == len(beyond)
    for text, option in zip(found, beyond, strict=True):
        assert option in text


def test_the_degrees_are_those_of_plans() -> None:
    assert tuple(degree.name.lower() for degree in Disruption) == topology.DEGREES


def test_a_vif_may_be_interrupted_unasked_and_an_uplink_may_not(capsys: Capture, document: Path) -> None:
    assert vnet(capsys, "apply", "--yes", "--wait", "0", document)[0] == ExitCode.NOT_FOLLOWED
    lost = WITH_VM.replace(b"address: 10.99.0.3, uplinks: {trunk0: {members: [eth7]}}", b"address: 10.99.0.3")
    lost = lost.replace(b"uplink: trunk0}", b"uplink: trunk0, hosts: [xen1, xen2]}")
    document.write_bytes(lost)
    code, _, err = vnet(capsys, "apply", "--yes", "--wait", "0", document)
    assert (code, "its disruption is 'uplink'" in err) == (ExitCode.CONFLICT, True)
    allowed = ("--allow", "disruption=uplink")
    assert vnet(capsys, "apply", "--yes", *allowed, "--wait", "0", document)[0] == ExitCode.NOT_FOLLOWED
    document.write_bytes(DOCUMENT)
    assert vnet(capsys, "apply", "--yes", *allowed, "--wait", "0", document)[0] == ExitCode.NOT_FOLLOWED


@pytest.mark.parametrize("limit", ["deletions", "deletions=many", "disruption=much", "creations=1"])
def test_an_unknown_limit_is_an_error(capsys: Capture, document: Path, limit: str) -> None:
    code, _, err = vnet(capsys, "apply", "--allow", limit, document)
    assert (code, "expected deletions=N or disruption=none, flows, vif, uplink" in err) == (ExitCode.USAGE, True)


def test_a_document_that_lost_its_objects_is_not_applied_unasked(capsys: Capture, document: Path) -> None:
    networks = "".join(f"  lost{n}: {{type: internal}}\n" for n in range(11))
    with_more = DOCUMENT.decode().replace("networks:\n", f"networks:\n{networks}")
    document.write_text(with_more)
    assert vnet(capsys, "apply", "--yes", "--wait", "0", document)[0] == ExitCode.NOT_FOLLOWED
    document.write_bytes(DOCUMENT)
    code, _, err = vnet(capsys, "apply", "--yes", "--wait", "0", document)
    assert code == ExitCode.CONFLICT
    assert "nothing was applied: it would delete 11 objects (network lost0, network lost1, network lost2, ...)" in err
    assert vnet(capsys, "plan", "--detailed-exitcode", document)[0] == ExitCode.CHANGES
    code = vnet(capsys, "apply", "--yes", "--allow", "deletions=11", "--wait", "0", document)[0]
    assert code == ExitCode.NOT_FOLLOWED
    assert vnet(capsys, "plan", "--detailed-exitcode", document)[0] == ExitCode.OK


def test_an_invalid_document_exits_4_with_its_places(capsys: Capture, document: Path) -> None:
    assert vnet(capsys, "validate", document)[:2] == (ExitCode.OK, "")
    document.write_bytes(WITH_VM.replace(b"vxlan", b"vxlam"))
    for command in ("validate", "plan", "apply"):
        code, out, err = vnet(capsys, command, document)
        assert (code, out) == (ExitCode.INVALID_INPUT, "")
        assert f"{document}:9:" in err
        assert "^^^^^" in err
    code, out, _ = vnet(capsys, "validate", "-o", "json", document)
    assert (code, json.loads(out)["problems"][0]["line"]) == (ExitCode.INVALID_INPUT, 9)
    assert vnet(capsys, "validate", document.with_name("none"))[0] == ExitCode.INVALID_INPUT


def test_the_same_data_as_table_json_and_yaml(capsys: Capture, vif: str) -> None:
    code, out, _ = vnet(capsys, "show", "vifs", "--vm", "cli")
    assert code == ExitCode.OK
    heading, row = out.splitlines()
    assert heading.split()[:3] == ["VIF", "NETWORK", "MAC"]
    assert row.split()[:2] == ["cli/0", "tenant"]
    as_json = json.loads(vnet(capsys, "vif", "list", "--vm", "cli", "-o", "json")[1])
    as_yaml = yaml.safe_load(vnet(capsys, "show", "vifs", "--vm", "cli", "-o", "yaml")[1])
    assert as_json == as_yaml
    assert [item["id"] for item in as_json] == ["cli/0"]
    assert json.loads(vnet(capsys, "vif", "get", "cli/0", "-o", "json")[1]) == as_json[0]


@pytest.mark.parametrize("what", ["hosts", "networks", "vifs", "bindings"])
def test_every_list_in_every_form(capsys: Capture, what: str) -> None:
    code, _, err = vnet(capsys, "show", what)
    assert (code, err) == (ExitCode.OK, "")
    assert isinstance(json.loads(vnet(capsys, "show", what, "-o", "json")[1]), list)
    assert isinstance(yaml.safe_load(vnet(capsys, "show", what, "-o", "yaml")[1]), list)


def test_status_and_events(capsys: Capture, vif: str) -> None:
    code, out, _ = vnet(capsys, "status")
    assert (code, "VIF cli/0: no host has a port" in out) == (ExitCode.OK, True)
    assert json.loads(vnet(capsys, "status", "-o", "json")[1])["pool"]["name"] == "test"
    code, out, _ = vnet(capsys, "events", "--vif", "cli/0")
    assert (code, "vif-created" in out) == (ExitCode.OK, True)


def test_a_vif_by_hand(capsys: Capture) -> None:
    create = ("vif", "create", "hand/0", "--network", "tenant", "--vm", "hand", "--address", "10.1.0.77")
    for _ in range(2):
        assert vnet(capsys, *create)[0] == ExitCode.OK
    code, out, err = vnet(capsys, *create, "--mac", "0a:00:00:00:00:01")
    assert (code, out) == (ExitCode.CONFLICT, "")
    assert "exists with mac" in err
    trunk = ("vif", "create", "hand/1", "--network", "bare", "--vm", "hand", "--trunk", "20,10", "-o", "json")
    assert json.loads(vnet(capsys, *trunk)[1])["trunk"] == [10, 20]
    assert vnet(capsys, *trunk[:-4], "--trunk", "x")[0] == ExitCode.USAGE
    assert (
        vnet(capsys, "vif", "create", "--network", "tennant", "--vm", "hand", "--index", "3")[0]
        == ExitCode.INVALID_INPUT
    )
    assert vnet(capsys, "vm", "migrate", "hand", "--to", "xen2")[0] == ExitCode.CONFLICT
    assert vnet(capsys, "vm", "get", "hand")[1].splitlines()[1].split()[-3:] == ["hand/0,hand/1", "0/2", "-"]
    for _ in range(2):
        assert vnet(capsys, "vm", "delete", "hand")[0] == ExitCode.OK
    assert vnet(capsys, "vif", "get", "hand/0")[0] == ExitCode.INVALID_INPUT


def test_a_document_of_several_files_is_applied_with_their_places(capsys: Capture, document: Path) -> None:
    document.write_bytes(DOCUMENT + b"include: [vms.vnet.yaml]\n")
    part = document.parent / "vms.vnet.yaml"
    part.write_text(
        "vms:\n  'a[1-3]': {host: xen1, vifs: [{network: tenant}]}\n  b: {vifs: [{network: tenant, id: taken}]}\n"
    )
    code, _, err = vnet(capsys, "vm", "create", "other")
    assert (code, vnet(capsys, "vif", "create", "taken", "--network", "tenant", "--vm", "other")[0]) == (0, 0)
    code, _, err = vnet(capsys, "apply", "--yes", document)
    assert (code, "vms.vnet.yaml:3:" in err) == (ExitCode.INVALID_INPUT, True)
    assert vnet(capsys, "vm", "delete", "other", "--yes")[0] == ExitCode.OK
    assert vnet(capsys, "apply", "--yes", "--wait", "0", document)[0] == ExitCode.NOT_FOLLOWED
    code, out, _ = vnet(capsys, "vm", "list", "--field", "name", "--field", "owner")
    assert out.splitlines() == [f"{name}\tdocument" for name in ("a1", "a2", "a3", "b")]
    document.write_bytes(DOCUMENT)
    vnet(capsys, "apply", "--yes", document)


def test_fields_and_wide_tables(capsys: Capture, vif: str) -> None:
    assert vnet(capsys, "vif", "get", vif, "--field", "place.state")[1] == "defined\n"
    code, out, _ = vnet(capsys, "vif", "list", "-o", "wide")
    heading = out.splitlines()[0]
    assert heading.startswith("VIF ")
    assert {"LOCKING MODE", "EPOCH", "STATE"} <= {*heading.split("  ")} | {word.strip() for word in heading.split("  ")}
    assert "Place(" not in out
    code, _, err = vnet(capsys, "vif", "get", vif, "--field", "colour")
    assert (code, "has no field colour" in err) == (ExitCode.USAGE, True)


def test_waiting(capsys: Capture, vif: str) -> None:
    assert vnet(capsys, "wait", "network", "tenant", "--for", "type=vxlan")[0] == ExitCode.OK
    assert vnet(capsys, "wait", "vif", "nobody/7", "--for", "deleted")[0] == ExitCode.OK
    code, _, err = vnet(capsys, "wait", "vif", vif, "--for", "ready", "--timeout", "0")
    assert (code, f"VIF {vif} is not ready" in err, "no host has a port" in err) == (ExitCode.FAILED, True, True)
    code, _, err = vnet(capsys, "wait", "network", "tenant", "--for", "ready")
    assert (code, "there is deleted, KEY=VALUE" in err) == (ExitCode.USAGE, True)


def test_a_wait_and_a_watch_end_with_the_change(capsys: Capture, running: Controller) -> None:
    with running.client() as client, running.client() as other:
        rows = watched(client, RESOURCES["vm"], client.vms)
        next(rows)
        other.put_vm("late", VmSpec())
        assert [vm.name for vm in next(rows)[0]] == ["late"]
        waiting = threading.Thread(target=vnet, args=(capsys, "wait", "vm", "late", "--for", "deleted"))
        waiting.start()
        other.delete_vm("late")
        assert next(rows) == ([], ["late"])
        waiting.join(30)
        assert not waiting.is_alive()


def test_an_object_in_the_editor(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    monkeypatch.setenv("EDITOR", str(editor))

    def edits(script: str) -> None:
        editor.write_text(f"#!/bin/sh\nsed -i '{script}' \"$1\"\n")
        editor.chmod(0o755)

    vnet(capsys, "network", "create", "edited", "--type", "vxlan")
    edits("s/^mtu:.*/mtu: 1400/")
    assert vnet(capsys, "network", "edit", "edited")[0] == ExitCode.OK
    assert vnet(capsys, "network", "get", "edited", "--field", "mtu")[1] == "1400\n"
    code, _, err = vnet(capsys, "network", "edit", "edited")
    assert (code, err) == (ExitCode.OK, "nothing to change\n")
    edits("s/^mtu:/mut:/")
    code, _, err = vnet(capsys, "network", "edit", "edited")
    assert (code, "no 'mut' that can be changed" in err) == (ExitCode.USAGE, True)
    edits("s/^mtu:/[mtu:/")
    code, _, err = vnet(capsys, "network", "edit", "edited")
    assert (code, "nothing was changed" in err) == (ExitCode.USAGE, True)
    assert vnet(capsys, "network", "delete", "edited")[0] == ExitCode.OK


@pytest.mark.parametrize(("answer", "there"), [("n", True), ("y", False)])
def test_a_deletion_asks_on_a_terminal(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, answer: str, there: bool
) -> None:
    vnet(capsys, "vm", "create", "asked")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", StringIO(answer + "\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    code, _, err = vnet(capsys, "vm", "delete", "asked")
    assert "- VM asked" in err or "- vm asked" in err
    assert (code == ExitCode.OK) is not there
    assert (vnet(capsys, "vm", "get", "asked")[0] == ExitCode.OK) is there
    vnet(capsys, "vm", "delete", "asked", "--yes")


def test_names_are_completed_from_the_pool(
    capsys: Capture, running: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, names in (
        ("vnet network get te", ["tenant"]),
        ("vnet vif list --network te", ["tenant"]),
        ("vnet host get", ["xen1", "xen2", "xen3"]),
    ):
        given = words.split() if words[-1] != "t" else [*words.split(), ""]
        complete = ShellComplete(main.cli, {}, "vnet", "_VNET_COMPLETE")
        found = complete.get_completions(given[1:-1], given[-1])
        assert [item.value for item in found] == names
    monkeypatch.setenv("VNET_CONTROLLER", "unix:/nowhere")
    assert ShellComplete(main.cli, {}, "vnet", "_VNET_COMPLETE").get_completions(["network", "get"], "te") == []


def test_unreachable_exits_5(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("unix:/nonexistent/sock", "http://127.0.0.1:1"):
        code, out, err = vnet(capsys, "--controller", address, "status")
        assert (code, out) == (ExitCode.UNREACHABLE, "")
        assert address in err
    assert vnet(capsys, "vif", "plug", "x", "--port", "tap0", "--socket", "/nonexistent")[0] == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "args",
    [
        ("--controller", "ftp://x", "status"),
        ("vif", "plug", "x"),
        ("vif", "plug", "x", "--port", "tap0", "--host", "xen1"),
        ("show", "everything"),
        ("vm", "migrate", "web1"),
        ("status", "-o", "xml"),
    ],
)
def test_misuse_exits_64(capsys: Capture, args: tuple[str, ...]) -> None:
    code, out, err = vnet(capsys, *args)
    assert (code, out) == (ExitCode.USAGE, "")
    assert err


def test_failures_exit_1(capsys: Capture, running: Controller, tmp_path: Path) -> None:
    assert vnet(capsys, "--token-file", tmp_path / "none", "status")[0] == ExitCode.INVALID_INPUT
    with running.client() as client:
        client.put_vm("empty", VmSpec())
    assert vnet(capsys, "vm", "migration", "empty")[0] == ExitCode.CONFLICT
    assert vnet(capsys, "vm", "delete", "empty")[0] == ExitCode.OK


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\x1b[" in vnet(capsys, "show", "hosts")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in vnet(capsys, "show", "hosts")[1]


@pytest.fixture
def agent_says() -> Iterator[tuple[str, list[bytes], list[dict[str, object]]]]:
    """An agent's socket that answers each line with the next answer; (path, answers to give, requests)."""
    answers: list[bytes] = []
    asked: list[dict[str, object]] = []
    with run_dir() as path, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / "agent.sock"))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(json.loads(connection.makefile("rb").readline()))
                    connection.sendall(answers.pop(0))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield str(path / "agent.sock"), answers, asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_plugging_on_this_host(capsys: Capture, agent_says: tuple[str, list[bytes], list[dict[str, object]]]) -> None:
    path, answers, asked = agent_says
    plug = ("vif", "plug", "web1/0", "--port", "tap3", "--socket", path)
    answers.append(b'{"result": {"vif": "web1/0", "port": "tap3"}}\n')
    code, out, err = vnet(capsys, *plug)
    assert (code, out, err) == (ExitCode.OK, "", "plugged: VIF web1/0, port tap3\n")
    assert asked == [{"method": "plug", "params": {"vif": "web1/0", "port": "tap3"}}]
    answers.append(b'{"result": {"vif": "web1/0", "port": null}}\n')
    assert vnet(capsys, "vif", "unplug", "web1/0", "--socket", path)[2] == "VIF web1/0 has no port here\n"
    for code_word, expected in [
        ("invalid", ExitCode.INVALID_INPUT),
        ("missing", ExitCode.INVALID_INPUT),
        ("conflict", ExitCode.CONFLICT),
        ("failed", ExitCode.FAILED),
    ]:
        answers.append(json.dumps({"error": {"code": code_word, "message": "no"}}).encode() + b"\n")
        assert vnet(capsys, *plug)[0] == expected
    for broken in (b"", b"{\n", b'{"error": 7}\n'):
        answers.append(broken)
        assert vnet(capsys, *plug)[0] == ExitCode.UNREACHABLE


def test_flows_by_table(capsys: Capture, agent_says: tuple[str, list[bytes], list[dict[str, object]]]) -> None:
    path, answers, _ = agent_says
    flow = {
        "table": "classify",
        "number": 0,
        "does": "names the source",
        "source": "vif",
        "packets": 7,
        "bytes": 9,
        "asks": ["rules of a", "rules of b (pool)"],
    }
    answers += [json.dumps({"result": [{**flow, "flow": "in_port=1,actions=resubmit(,1)"}]}).encode() + b"\n"] * 2
    code, out, _ = vnet(capsys, "show", "flows", "--vif", "web1/0", "--socket", path)
    assert code == ExitCode.OK
    assert "table 0 classify: names the source\n  asks, till a step has decided: rules of a; rules of b (pool)\n" in out
    assert out.splitlines()[-1].split() == ["0", "classify", "7", "vif", "in_port=1,actions=resubmit(,1)"]
    assert json.loads(vnet(capsys, "show", "flows", "-o", "json", "--socket", path)[1])[0]["packets"] == 7


def test_security_groups_of_a_vif(running: Controller, capsys: Capture, vif: str) -> None:
    with running.client() as client:
        rules = [Rule(name="http", direction="ingress", protocol="tcp", ports=[80])]
        client.put_security_group("cli-web", SecurityGroupSpec(rules=rules))
        code, out, _ = vnet(capsys, "show", "security-groups")
        assert (code, out.splitlines()[1].split()) == (
            ExitCode.OK,
            ["cli-web", "drop", "allow", "http", "0", "toolstack"],
        )
        code, out, _ = vnet(capsys, "vif", "security-groups", vif, "cli-web", "-o", "json")
        assert (code, json.loads(out)["security_groups"]) == (ExitCode.OK, ["cli-web"])
        code, out, err = vnet(capsys, "vif", "security-groups", vif, "cli-wbe")
        assert (code, out, "did you mean 'cli-web'" in err) == (ExitCode.INVALID_INPUT, "", True)
        code, out, _ = vnet(capsys, "vif", "security-groups", vif, "-o", "json")
        assert (code, json.loads(out)["security_groups"]) == (ExitCode.OK, [])
        change = ("vif", "quarantine", vif)
        assert vnet(capsys, *change)[0] == ExitCode.USAGE
        code, _, err = vnet(capsys, *change, "--network", "lab", "--dry-run")
        assert (code, "network tenant -> lab" in err) == (ExitCode.OK, True)
        assert vnet(capsys, *change, "--release")[2] == "nothing to change\n"
        made = ("vif", "create", "--network", "tenant", "--vm", "cli", "--index", "5", "--security-group", "cli-web")
        code, out, _ = vnet(capsys, *made, "-o", "json")
        assert (code, json.loads(out)["security_groups"]) == (ExitCode.OK, ["cli-web"])
        client.delete_vif("cli/5")
        client.delete_security_group("cli-web")
