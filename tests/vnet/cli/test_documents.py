"""Commands about documents alone: validate for CI systems, explain."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from vnet.cli import main
from vnet.cli.ci_reports import CaseResult, annotation
from vnet.cli.exits import ExitCode
from vnet.topology.document import root_shape
from vnet.topology.reference import REFERENCE_FILE

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[3]
GOOD = "apiVersion: vnet/v1\npool: lab\nhosts: {xen1: {address: 10.99.0.1}}\nnetworks: {lan: {type: vxlan}}\n"


def test_several_documents_and_reports_for_ci(tmp_path: Path, capsys: Capture) -> None:
    good, bad, junit = tmp_path / "good.vnet.yaml", tmp_path / "bad.vnet.yaml", tmp_path / "report.xml"
    good.write_text(GOOD)
    bad.write_text(GOOD.replace("vxlan", "vxlam") + "vms: {web1: {vifs: [{network: x}]}}\n")
    files = [str(good), str(bad), "--junit", str(junit), "--annotate", "github"]
    assert main.run(["validate", *files]) == ExitCode.INVALID_INPUT
    printed = capsys.readouterr()
    assert printed.out.startswith(f"::error file={bad},line=4,col=24::{bad}:4:24: wanted a network type")
    assert f"{good} is valid" in printed.err
    assert "2 problems" in printed.err
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    lines = [(case.get("file"), case.get("line"), case.find("failure") is not None) for case in suite]
    assert lines == [(None, None, False), (str(bad), "4", True), (str(bad), "5", True)]
    assert main.run(["validate", str(good), str(bad), "-o", "json"]) == ExitCode.INVALID_INPUT
    assert [(row["valid"], len(row["problems"])) for row in json.loads(capsys.readouterr().out)] == [
        (True, 0),
        (False, 2),
    ]


def test_failed_expectations_are_reported(tmp_path: Path, capsys: Capture) -> None:
    file, junit = tmp_path / "pool.vnet.yaml", tmp_path / "report.xml"
    file.write_text(
        GOOD + "vms: {a: {host: xen1, vifs: [{network: lan}]}, b: {host: xen1, vifs: [{network: lan}]}}\n"
        "expectations:\n- {name: joined, from: a, to: b, expect: reachable}\n- {name: apart, from: a, to: b, expect: unreachable}\n"
    )
    assert main.run(["check", str(file), "--junit", str(junit), "--annotate", "github"]) == ExitCode.EXPECTATION_FAILED
    assert f"::error file={file},line=8,col=3::FAIL  {file}:8:3: apart: a/0 reaches b/0" in capsys.readouterr().out
    assert [case.get("name") for case in ElementTree.parse(junit).getroot() if len(case)] == ["apart"]


def test_an_annotation_ends_where_it_should() -> None:
    case = CaseResult("x", "a,b:c.yaml:3:4", "50 % of\n::error::this")
    assert annotation(case) == "::error file=a%2Cb%3Ac.yaml,line=3,col=4::50 %25 of%0A::error::this"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "expectations"),
        ("networks.*.mtu", "an MTU in bytes"),
        ("networks.lan.mtu", "an MTU in bytes"),
        ("networks.*", "a map of networks"),
        ("vms.*.vifs[].qos", "the name of a QoS class"),
        ("hosts.*.uplinks.*.members", "Two or more are a bond"),
        ("security-groups.*.rules[].ports", "443-445"),
        ("underlay.mtu", "Left out: 1500"),
        ("defaults.vif", "locking-mode"),
        ("networks.*.type", "needed"),
    ],
)
def test_explain(path: str, expected: str, capsys: Capture) -> None:
    assert main.run(["explain", path] if path else ["explain"]) == ExitCode.OK
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("netwroks", "a document has no key 'netwroks'; did you mean 'networks'?"),
        ("networks.*.mtv", "'networks' has no key 'mtv'; did you mean 'mtu'?"),
        ("networks.*.mtu.x", "'networks.mtu' has no key 'x'"),
    ],
)
def test_what_cannot_be_explained(path: str, message: str, capsys: Capture) -> None:
    assert main.run(["explain", path]) == ExitCode.INVALID_INPUT
    assert message in capsys.readouterr().err


def test_every_key_of_the_reference_is_explained(capsys: Capture) -> None:
    """Each section of the reference page is a path that explain knows, and each of its keys is one below."""
    section, tried = "", 0
    for line in REFERENCE_FILE.read_text().splitlines():
        if line.startswith("### "):
            section = line.removeprefix("### ").strip("`")
        elif line.startswith("| `") and section:
            key = line.split("`")[1]
            path = key if section == "The document" else f"{section}.{key}"
            assert main.run(["explain", path]) == ExitCode.OK, capsys.readouterr().err
            tried += 1
        elif line.startswith("## ") and tried:
            break
    assert tried > 100 > len(root_shape().words)


def test_hooks_of_pre_commit_run_commands_that_are_there() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [hook["id"] for hook in hooks] == ["vnet-validate", "vnet-fmt", "vnet-check"]
    assert all("vnet " + hook["id"].removeprefix("vnet-") in hook["entry"] for hook in hooks)
