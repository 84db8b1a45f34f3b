"""Every noun on the command line: made, shown, changed, removed; the changes and their disruption on standard error."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.vnet.cli.test_commands import Capture, vnet
from tests.vnet.controller.daemons import Controller, controller
from tests.vnet.controller.nouns import SAMPLES, Sample
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.cli.options import with_connection
from vnet.client import VifSpec, VmChange, VmSpec


@pytest.fixture(scope="module")
def running(ovs: None) -> Iterator[Controller]:
    with controller() as made:
        yield made


@pytest.fixture(autouse=True)
def _environment(running: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", running.address)


WORDS = {"none": "none", "flows": "flows only", "vif": "VIF interrupted", "uplink": "uplink interrupted"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.noun)
def test_a_noun_on_the_command_line(capsys: Capture, sample: Sample, tmp_path: Path) -> None:
    noun, name = sample.noun, sample.name
    create = (noun, "create", name, *sample.options)
    code, out, err = vnet(capsys, *create, "--dry-run")
    assert (code, out, f"+ {noun} {name}" in err, "Disruption: none" in err) == (ExitCode.OK, "", True, True)
    assert vnet(capsys, noun, "get", name)[0] == ExitCode.INVALID_INPUT

    code, out, err = vnet(capsys, *create)
    assert (code, name in out, "disruption: none" in err) == (ExitCode.OK, True, True)
    assert vnet(capsys, *create)[0] == ExitCode.OK
    made = json.loads(vnet(capsys, noun, "get", name, "-o", "json")[1])
    assert {word: made[word] for word in sample.body} | {"rules": [], "uplinks": []} == sample.body | {
        "rules": [],
        "uplinks": [],
    }
    assert made in json.loads(vnet(capsys, noun, "list", "-o", "json")[1])
    assert yaml.safe_load(vnet(capsys, "show", sample.resource.plural, "-o", "yaml")[1])

    again = tmp_path / "object.yaml"
    again.write_text(yaml.safe_dump(made))
    code, out, _ = vnet(capsys, noun, "create", "--file", again, "-o", "json")
    assert (code, json.loads(out)) == (ExitCode.OK, made), "an answer makes the same object again"

    change = (noun, "set", name, *sample.changed_options)
    code, out, asked = vnet(capsys, *change, "--dry-run")
    assert (code, out, f"~ {noun} {name}" in asked) == (ExitCode.OK, "", True)
    assert json.loads(vnet(capsys, noun, "get", name, "-o", "json")[1]) == made
    code, out, err = vnet(capsys, *change)
    assert (code, out, err) == (ExitCode.OK, "", asked)
    assert f"Disruption: {WORDS[sample.disruption]}." in err
    assert vnet(capsys, *change)[2] == "nothing to change\n"
    shown = json.loads(vnet(capsys, noun, "get", name, "-o", "json")[1])
    assert {word: shown[word] or None for word in sample.change} == {
        word: value or None for word, value in sample.change.items()
    }

    code, out, err = vnet(capsys, noun, "delete", name, "--dry-run", "-o", "json")
    assert (code, [c["action"] for c in json.loads(out)["changes"] if c["kind"] == noun]) == (ExitCode.OK, ["delete"])
    assert vnet(capsys, noun, "get", name)[0] == ExitCode.OK
    assert f"- {noun} {name}" in vnet(capsys, noun, "delete", name)[2]
    assert vnet(capsys, noun, "get", name)[0] == ExitCode.INVALID_INPUT
    assert vnet(capsys, noun, "delete", name) == (ExitCode.OK, "", "nothing to change\n")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("network", "create", "x"), "missing: --type"),
        (("network", "create"), "missing: NAME, --type"),
        (("network", "create", "x", "--type", "private"), "is not one of"),
        (("network", "create", "x", "--type", "vlan", "--tag", "none"), "'none' is none of: untagged, a number"),
        (("network", "set", "tenant"), "nothing to change"),
        (("security-group", "create", "x", "--rule", "http"), "'http' is no KEY=VALUE"),
        (
            ("security-group", "create", "x", "--rule", "name=a colour=red"),
            "keys: action, direction, icmp, log, mandatory, name",
        ),
        (("security-group", "create", "x", "--rule", "name=a log=yes"), "'yes' is none of: true, false"),
        (("subnet", "create", "x", "--network", "lab", "--cidr", "10.0.0.0/8", "--no-cidr"), "No such option"),
    ],
)
def test_misuse_names_the_option(capsys: Capture, args: tuple[str, ...], text: str) -> None:
    code, out, err = vnet(capsys, *args)
    assert (code, out) == (ExitCode.USAGE, "")
    assert text in err


def test_lists_are_filtered_by_labels(capsys: Capture) -> None:
    assert vnet(capsys, "network", "create", "north", "--type", "internal", "--label", "site=north")[0] == ExitCode.OK
    for command in (("network", "list"), ("show", "networks")):
        assert "north" in vnet(capsys, *command, "-l", "site=north")[1]
        assert vnet(capsys, *command, "--label", "site=south", "-o", "json")[1] == "[]\n"
    assert vnet(capsys, "vif", "list", "-l", "site")[0] == ExitCode.INVALID_INPUT
    vnet(capsys, "network", "delete", "north")


def test_a_rule_that_rejects_and_logs(capsys: Capture, running: Controller) -> None:
    rule = "name=no-ssh direction=ingress action=reject protocol=tcp ports=22 log=true"
    code, _, err = vnet(capsys, "security-group", "create", "strict", "--ingress", "reject", "--rule", rule)
    assert code == ExitCode.OK, err
    with running.client() as client:
        group = client.security_group("strict")
        assert (group.ingress, [(found.action, found.log) for found in group.rules]) == ("reject", [("reject", True)])
        client.delete_security_group("strict")


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("vif", "list", "--network", "tennant"), ExitCode.INVALID_INPUT, "did you mean tenant?"),
        (("show", "subnets", "--network", "tennant"), ExitCode.INVALID_INPUT, "did you mean tenant?"),
        (("show", "bindings", "--host", "xen"), ExitCode.INVALID_INPUT, "there is no host xen"),
        (("network", "set", "tenant", "--mtu", "1400"), ExitCode.CONFLICT, "change it in the document"),
        (("network", "create", "x", "--type", "vlan", "--tag", "120", "--uplink", "trunk0"), ExitCode.CONFLICT, "120"),
        (("vif", "set", "nobody/0", "--no-trunk"), ExitCode.INVALID_INPUT, "there is no VIF nobody/0"),
    ],
)
def test_refusals_have_their_exit_codes(capsys: Capture, args: tuple[str, ...], code: ExitCode, text: str) -> None:
    found, out, err = vnet(capsys, *args)
    assert (found, out) == (code, "")
    assert text in err


def test_options_stand_before_the_command_and_after_it(
    capsys: Capture, running: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VNET_CONTROLLER")
    after = vnet(capsys, "network", "list", "--controller", running.address, "-o", "json")
    before = vnet(capsys, "--controller", running.address, "-o", "json", "network", "list")
    between = vnet(capsys, "network", "--controller", running.address, "list", "-o", "json")
    assert after == before == between
    assert json.loads(after[1])
    assert vnet(capsys, "network", "list", "--controller", "unix:/none")[0] == ExitCode.UNREACHABLE
    assert vnet(capsys, "status", "--controller", running.address, "--token-file", "/none")[0] == ExitCode.INVALID_INPUT


def test_a_command_keeps_an_option_of_its_own(capsys: Capture) -> None:
    command = main.cli.get_command(None, "controller")  # type: ignore[arg-type]  # the context is not looked at
    assert command is not None
    with_connection(command)
    assert sum("--token-file" in option.opts for option in command.params) == 1


def test_a_person_deletes_what_was_shown_or_nothing(running: Controller) -> None:
    with running.client() as client:
        client.put_vm("shown", VmSpec())
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "vnet.cli.main", "vm", "delete", "shown"]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            seen = b""
            while b"Delete?" not in seen:
                seen += os.read(ours, 4096)
            client.put_vif("shown/0", VifSpec(network="tenant", vm="shown"))
            os.write(ours, b"y\n")
            assert process.wait(timeout=60) == ExitCode.CONFLICT
        os.close(ours)
        assert [vif.id for vif in client.vm("shown").vifs] == ["shown/0"]
        client.delete_vm("shown")


def test_an_edit_changes_nothing_that_somebody_else_has_changed(
    capsys: Capture, running: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running.client() as client:
        client.put_vm("read", VmSpec())

        def edited(text: str, **_: Any) -> str:
            client.change_vm("read", VmChange(title="theirs"))
            return text.replace("title: null", "title: mine")

        monkeypatch.setattr(click, "edit", edited)
        code, _, err = vnet(capsys, "vm", "edit", "read")
        assert (code, "another by now" in err) == (ExitCode.CONFLICT, True)
        assert client.vm("read").title == "theirs"
        client.delete_vm("read")
