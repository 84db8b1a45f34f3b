"""Commands against a real controller: what goes to standard output, and every exit code."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.servers import run_dir
from tests.vnet.controller.daemons import DOCUMENT, Controller
from vnet.api import Applied, Change, Plan, Reason
from vnet.cli import main, topology
from vnet.cli.exits import Exit
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
    assert (code, "+ vif web1/0" in out) == (Exit.OK, True)
    assert vnet(capsys, "plan", "--detailed-exitcode", document)[0] == Exit.CHANGES
    code, out, err = vnet(capsys, "apply", "--yes", "--wait", "0", document)
    assert (code, "+ vif web1/0" in out) == (Exit.NOT_FOLLOWED, True)
    assert "host xen1 does not report: it will follow" in err
    assert "on 0 of 3 hosts" in err
    code, out, _ = vnet(capsys, "plan", "--detailed-exitcode", document)
    assert (code, out) == (Exit.OK, "Nothing to change: the pool is as the document says.\n")
    assert vnet(capsys, "apply", document)[0] == Exit.NOT_FOLLOWED  # nothing to ask about, and still nobody there
    code, out, _ = vnet(capsys, "export")
    exported = tmp_path / "exported.yaml"
    exported.write_text(out)
    assert vnet(capsys, "plan", "--detailed-exitcode", exported)[0] == Exit.OK
    document.write_bytes(DOCUMENT)
    code, out, _ = vnet(capsys, "apply", "--yes", "-o", "json", document)
    assert (code, [c["action"] for c in json.loads(out)["plan"]["changes"]]) == (Exit.NOT_FOLLOWED, ["delete"] * 2)


CHANGE = Change(action="create", kind="host", name="xen1", reason="", disruption="none")
APPLIED = Applied(plan=Plan(revision=2, disruption="none", changes=[CHANGE]), revision=3, generation=7)
PROBLEM = Reason(code="agent-problem", text="host xen2: Port eth1: is not ours", host="xen2")


@pytest.mark.parametrize(
    ("hosts", "code", "text"),
    [
        ({"acknowledged": ["xen1", "xen2"]}, Exit.OK, "applied: revision 3, on 2 hosts\n"),
        ({"acknowledged": ["xen1"], "dead": ["xen2"]}, Exit.OK, "on 1 of 2 hosts\n"),
        ({"acknowledged": ["xen1"], "waiting": ["xen2"]}, Exit.NOT_FOLLOWED, "host xen2 has not programmed generation 7"),
        ({"dead": ["xen1", "xen2"]}, Exit.NOT_FOLLOWED, "on 0 of 2 hosts\n"),
        ({"acknowledged": ["xen1", "xen2"], "problems": [PROBLEM]}, Exit.NOT_FOLLOWED, "host xen2: Port eth1: is not ours"),
        ({"acknowledged": ["xen1", "xen2"], "problems": [PROBLEM]}, Exit.NOT_FOLLOWED, "on 2 hosts, 1 of them with problems"),
        ({}, Exit.OK, "on 0 hosts\n"),
    ],
)  # fmt: skip
def test_who_has_followed_an_apply(capsys: Capture, hosts: dict[str, Any], code: Exit, text: str) -> None:
    assert topology._report(msgspec.structs.replace(APPLIED, **hosts)) == code
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
    assert (code, out) == (Exit.FAILED, "")
    assert text in err


def test_apply_asks_only_where_somebody_can_answer(capsys: Capture, document: Path) -> None:
    code, _, err = vnet(capsys, "apply", document)
    assert (code, "say --yes" in err) == (Exit.USAGE, True)
    assert vnet(capsys, "plan", "--detailed-exitcode", document)[0] == Exit.CHANGES


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
    assert vnet(capsys, "apply", "--yes", "--wait", "0", document)[0] == Exit.NOT_FOLLOWED
    lost = WITH_VM.replace(b"address: 10.99.0.3, uplinks: {trunk0: {members: [eth7]}}", b"address: 10.99.0.3")
    lost = lost.replace(b"uplink: trunk0}", b"uplink: trunk0, hosts: [xen1, xen2]}")
    document.write_bytes(lost)
    code, _, err = vnet(capsys, "apply", "--yes", "--wait", "0", document)
    assert (code, "its disruption is 'uplink'" in err) == (Exit.CONFLICT, True)
    allowed = ("--allow", "disruption=uplink")
    assert vnet(capsys, "apply", "--yes", *allowed, "--wait", "0", document)[0] == Exit.NOT_FOLLOWED
    document.write_bytes(DOCUMENT)
    assert vnet(capsys, "apply", "--yes", *allowed, "--wait", "0", document)[0] == Exit.NOT_FOLLOWED


@pytest.mark.parametrize("limit", ["deletions", "deletions=many", "disruption=much", "creations=1"])
def test_an_unknown_limit_is_an_error(capsys: Capture, document: Path, limit: str) -> None:
    code, _, err = vnet(capsys, "apply", "--allow", limit, document)
    assert (code, "expected deletions=N or disruption=none, flows, vif, uplink" in err) == (Exit.USAGE, True)


def test_a_document_that_lost_its_objects_is_not_applied_unasked(capsys: Capture, document: Path) -> None:
    networks = "".join(f"  lost{n}: {{type: internal}}\n" for n in range(11))
    with_more = DOCUMENT.decode().replace("networks:\n", f"networks:\n{networks}")
    document.write_text(with_more)
    assert vnet(capsys, "apply", "--yes", "--wait", "0", document)[0] == Exit.NOT_FOLLOWED
    document.write_bytes(DOCUMENT)
    code, _, err = vnet(capsys, "apply", "--yes", "--wait", "0", document)
    assert code == Exit.CONFLICT
    assert "nothing was applied: it would delete 11 objects (network lost0, network lost1, network lost2, ...)" in err
    assert vnet(capsys, "plan", "--detailed-exitcode", document)[0] == Exit.CHANGES
    code = vnet(capsys, "apply", "--yes", "--allow", "deletions=11", "--wait", "0", document)[0]
    assert code == Exit.NOT_FOLLOWED
    assert vnet(capsys, "plan", "--detailed-exitcode", document)[0] == Exit.OK


def test_an_invalid_document_exits_4_with_its_places(capsys: Capture, document: Path) -> None:
    assert vnet(capsys, "validate", document)[:2] == (Exit.OK, "")
    document.write_bytes(WITH_VM.replace(b"vxlan", b"vxlam"))
    for command in ("validate", "plan", "apply"):
        code, out, err = vnet(capsys, command, document)
        assert (code, out) == (Exit.INVALID_INPUT, "")
        assert f"{document}:9:" in err
        assert "^^^^^" in err
    code, out, _ = vnet(capsys, "validate", "-o", "json", document)
    assert (code, json.loads(out)["problems"][0]["line"]) == (Exit.INVALID_INPUT, 9)
    assert vnet(capsys, "validate", document.with_name("none"))[0] == Exit.INVALID_INPUT


def test_the_same_data_as_table_json_and_yaml(capsys: Capture, vif: str) -> None:
    code, out, _ = vnet(capsys, "show", "vifs", "--vm", "cli")
    assert code == Exit.OK
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
    assert (code, err) == (Exit.OK, "")
    assert isinstance(json.loads(vnet(capsys, "show", what, "-o", "json")[1]), list)
    assert isinstance(yaml.safe_load(vnet(capsys, "show", what, "-o", "yaml")[1]), list)


def test_status_and_events(capsys: Capture, vif: str) -> None:
    code, out, _ = vnet(capsys, "status")
    assert (code, "VIF cli/0: no host has a port" in out) == (Exit.OK, True)
    assert json.loads(vnet(capsys, "status", "-o", "json")[1])["pool"]["name"] == "test"
    code, out, _ = vnet(capsys, "events", "--vif", "cli/0")
    assert (code, "vif-created" in out) == (Exit.OK, True)


def test_a_vif_by_hand(capsys: Capture) -> None:
    create = ("vif", "create", "hand/0", "--network", "tenant", "--vm", "hand", "--address", "10.1.0.77")
    for _ in range(2):
        assert vnet(capsys, *create)[0] == Exit.OK
    code, out, err = vnet(capsys, *create, "--mac", "0a:00:00:00:00:01")
    assert (code, out) == (Exit.CONFLICT, "")
    assert "exists with mac" in err
    trunk = ("vif", "create", "hand/1", "--network", "bare", "--vm", "hand", "--trunk", "20,10", "-o", "json")
    assert json.loads(vnet(capsys, *trunk)[1])["trunk"] == [10, 20]
    assert vnet(capsys, *trunk[:-4], "--trunk", "x")[0] == Exit.USAGE
    assert (
        vnet(capsys, "vif", "create", "--network", "tennant", "--vm", "hand", "--index", "3")[0] == Exit.INVALID_INPUT
    )
    assert vnet(capsys, "vm", "migrate", "hand", "--to", "xen2")[0] == Exit.CONFLICT
    assert vnet(capsys, "vm", "get", "hand")[1].splitlines()[1].split()[-3:] == ["hand/0,hand/1", "0/2", "-"]
    for _ in range(2):
        assert vnet(capsys, "vm", "delete", "hand")[0] == Exit.OK
    assert vnet(capsys, "vif", "get", "hand/0")[0] == Exit.INVALID_INPUT


def test_unreachable_exits_5(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("unix:/nonexistent/sock", "http://127.0.0.1:1"):
        code, out, err = vnet(capsys, "--controller", address, "status")
        assert (code, out) == (Exit.UNREACHABLE, "")
        assert address in err
    assert vnet(capsys, "vif", "plug", "x", "--port", "tap0", "--socket", "/nonexistent")[0] == Exit.UNREACHABLE


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
    assert (code, out) == (Exit.USAGE, "")
    assert err


def test_failures_exit_1(capsys: Capture, running: Controller, tmp_path: Path) -> None:
    assert vnet(capsys, "--token-file", tmp_path / "none", "status")[0] == Exit.INVALID_INPUT
    with running.client() as client:
        client.put_vm("empty", VmSpec())
    assert vnet(capsys, "vm", "migration", "empty")[0] == Exit.CONFLICT
    assert vnet(capsys, "vm", "delete", "empty")[0] == Exit.OK


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
    assert (code, out, err) == (Exit.OK, "", "plugged: VIF web1/0, port tap3\n")
    assert asked == [{"method": "plug", "params": {"vif": "web1/0", "port": "tap3"}}]
    answers.append(b'{"result": {"vif": "web1/0", "port": null}}\n')
    assert vnet(capsys, "vif", "unplug", "web1/0", "--socket", path)[2] == "VIF web1/0 has no port here\n"
    for code_word, expected in [
        ("invalid", Exit.INVALID_INPUT),
        ("missing", Exit.INVALID_INPUT),
        ("conflict", Exit.CONFLICT),
        ("failed", Exit.FAILED),
    ]:
        answers.append(json.dumps({"error": {"code": code_word, "message": "no"}}).encode() + b"\n")
        assert vnet(capsys, *plug)[0] == expected
    for broken in (b"", b"{\n", b'{"error": 7}\n'):
        answers.append(broken)
        assert vnet(capsys, *plug)[0] == Exit.UNREACHABLE


def test_flows_by_table(capsys: Capture, agent_says: tuple[str, list[bytes], list[dict[str, object]]]) -> None:
    path, answers, _ = agent_says
    flow = {"table": "classify", "number": 0, "does": "names the source", "source": "vif", "packets": 7, "bytes": 9}
    answers += [json.dumps({"result": [{**flow, "flow": "in_port=1,actions=resubmit(,1)"}]}).encode() + b"\n"] * 2
    code, out, _ = vnet(capsys, "show", "flows", "--vif", "web1/0", "--socket", path)
    assert code == Exit.OK
    assert "table 0 classify: names the source" in out
    assert out.splitlines()[-1].split() == ["0", "classify", "7", "vif", "in_port=1,actions=resubmit(,1)"]
    assert json.loads(vnet(capsys, "show", "flows", "-o", "json", "--socket", path)[1])[0]["packets"] == 7


def test_security_groups_of_a_vif(running: Controller, capsys: Capture, vif: str) -> None:
    with running.client() as client:
        rules = [Rule(name="http", direction="ingress", protocol="tcp", ports=[80])]
        client.put_security_group("cli-web", SecurityGroupSpec(rules=rules))
        code, out, _ = vnet(capsys, "show", "security-groups")
        assert (code, out.splitlines()[1].split()) == (Exit.OK, ["cli-web", "drop", "allow", "http", "0", "toolstack"])
        code, out, _ = vnet(capsys, "vif", "security-groups", vif, "cli-web", "-o", "json")
        assert (code, json.loads(out)["security_groups"]) == (Exit.OK, ["cli-web"])
        code, out, err = vnet(capsys, "vif", "security-groups", vif, "cli-wbe")
        assert (code, out, "did you mean 'cli-web'" in err) == (Exit.INVALID_INPUT, "", True)
        code, out, _ = vnet(capsys, "vif", "security-groups", vif, "-o", "json")
        assert (code, json.loads(out)["security_groups"]) == (Exit.OK, [])
        made = ("vif", "create", "--network", "tenant", "--vm", "cli", "--index", "5", "--security-group", "cli-web")
        code, out, _ = vnet(capsys, *made, "-o", "json")
        assert (code, json.loads(out)["security_groups"]) == (Exit.OK, ["cli-web"])
        client.delete_vif("cli/5")
        client.delete_security_group("cli-web")
