"""Revisions of a real pool: what differs, the way back, and the pool as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vnet.controller.daemons import DOCUMENT, Controller
from vnet.api.errors import Conflict, Invalid, NotFound
from vnet.cli import main
from vnet.cli.exits import ExitCode
from vnet.client import AsyncClient, Rule, SecurityGroupSpec, VifChange, VifSpec

WITH_VM = DOCUMENT + b"vms: {web1: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.10]}]}}\n"


async def apply(client: AsyncClient, document: bytes) -> str:
    """The revision that an apply makes."""
    return str((await client.apply(document, wait_s=0)).revision)


def lines(text: str) -> list[str]:
    """The changes of a plan, without their reasons."""
    return [line.split("  ")[0] for line in text.splitlines() if line[:2] in ("+ ", "~ ", "- ")]


async def test_there_and_back(client: AsyncClient) -> None:
    """A rollback takes back what came after, from the document and the toolstack, and can be taken back itself."""
    before = await apply(client, DOCUMENT)
    first = await client.export()
    await apply(client, WITH_VM.replace(b"mtu: 1600", b"mtu: 1700").replace(b"tag: 120", b"tag: 121"))
    await client.put_security_group("theirs", SecurityGroupSpec(rules=[Rule(name="a", direction="ingress")]))
    await client.put_vif("theirs", VifSpec(network="tenant", security_groups=["theirs"]))
    await client.change_vif("theirs", VifChange(addresses=["10.1.0.77"]))
    after, last = (await client.pool()).revision, await client.export()
    shown = await client.vif("theirs")
    planned = await client.plan_rollback(before)
    assert planned.revision == after
    assert lines(planned.text) == [
        "~ pool test",
        "~ network prod",
        "~ network tenant",
        "- vif theirs",
        "- vif web1/0",
        "- vm web1",
        "- security-group theirs",
    ]
    assert f"no longer in revision {before}" in planned.text
    done = await client.rollback(before, revision=after, wait_s=0)
    assert (done.revision, lines(done.plan.text)) == (after + 1, lines(planned.text))
    assert await client.export() == first
    assert (await client.diff(before)).changes == []
    assert (await client.rollback(before, wait_s=0)).revision == after + 1, "nothing to do"
    await client.rollback(str(after), wait_s=0)
    assert await client.export() == last
    again = await client.vif("theirs")
    assert (again.mac, again.addresses, again.security_groups) == (shown.mac, ["10.1.0.77"], ["theirs"])
    assert again.owner == shown.owner == "toolstack"
    assert await client.export(at=before) == first
    past = await client.past(before)
    assert (past.revision, len(past.objects["network"]), past.objects["vif"]) == (int(before), 4, [])
    await client.rollback(before, wait_s=0)


async def test_what_differs(client: AsyncClient) -> None:
    old = await apply(client, DOCUMENT)
    await client.put_vif("x/0", VifSpec(network="tenant"))
    new = str((await client.pool()).revision)
    await client.put_vif("y/0", VifSpec(network="tenant"))
    assert lines((await client.diff(old, new)).text) == ["+ vif x/0"]
    assert lines((await client.diff(new, old)).text) == ["- vif x/0"]
    assert lines((await client.diff(old)).text) == ["+ vif x/0", "+ vif y/0"]
    record = next(entry for entry in await client.history() if entry.revision == int(new))
    assert (await client.diff(old, record.id)).text == (await client.diff(old, new)).text
    assert (await client.diff(old, record.time)).text == (await client.diff(old, new)).text
    await client.rollback(old, wait_s=0)


async def test_what_cannot_be_again(client: AsyncClient, pool: object) -> None:
    await client.put_vif("a", VifSpec(network="tenant", mac="0a:00:00:00:00:0a"))
    revision = (await client.pool()).revision
    await client.delete_vif("a")
    await client.put_vif("b", VifSpec(network="tenant", mac="0a:00:00:00:00:0a"))
    await client.rollback(str(revision), wait_s=0)
    assert [vif.id for vif in await client.vifs()] == ["a"], "b goes, so its MAC is free again"
    with pytest.raises(NotFound, match="no revision 99999"):
        await client.plan_rollback("99999")
    with pytest.raises(NotFound, match="no record"):
        await client.past("00000000-0000-4000-8000-000000000000")
    with pytest.raises(Invalid, match="offset"):
        await client.past("2026-01-31T10:42:00")
    with pytest.raises(NotFound, match="oldest change that is kept"):
        await client.past("2026-01-31T10:42:00Z")
    with pytest.raises(Conflict, match="plan again"):
        await client.rollback(str(revision), revision=revision)
    await client.delete_vif("a")


def test_on_the_command_line(
    running: Controller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", running.address)
    document = tmp_path / "pool.vnet.yaml"
    document.write_bytes(WITH_VM)
    with running.client() as client:
        before = str(client.pool().revision)
        assert main.run(["apply", "--yes", "--wait", "0", str(document), "-m", "ticket 7"]) == ExitCode.NOT_FOLLOWED
        assert main.run(["diff", before]) == ExitCode.OK
        assert "+ vif web1/0" in capsys.readouterr().out
        assert main.run(["rollback", before]) == ExitCode.USAGE, "nobody is there to ask"
        assert "- vif web1/0" in capsys.readouterr().out
        many = ["rollback", before, "--yes", "--wait", "0", "--allow"]
        assert main.run([*many, "deletions=1"]) == ExitCode.CONFLICT
        assert main.run([*many, "deletions=2"]) == ExitCode.NOT_FOLLOWED
        assert client.vms() == []
        assert client.history()[-2].reason == "ticket 7"
    capsys.readouterr()
    assert main.run(["history", str(int(before) + 1)]) == ExitCode.OK
    assert "+ vif web1/0   (new in the document; disrupts nothing)" in capsys.readouterr().out
    assert main.run(["history", str(int(before) + 2)]) == ExitCode.OK
    assert f"- vm web1   (no longer in revision {before}; disrupts nothing)" in capsys.readouterr().out
    assert main.run(["export", "--at", before]) == ExitCode.OK
    capsys.readouterr()
    assert main.run(["diff", "25:99"]) == ExitCode.USAGE
    assert "a time such as 10:42" in capsys.readouterr().err


def test_a_rename_on_the_command_line(
    running: Controller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", running.address)
    document = tmp_path / "pool.vnet.yaml"
    with running.client() as client:
        before = str(client.apply(WITH_VM, wait_s=0).revision)
        document.write_bytes(WITH_VM.replace(b"web1", b"shop1") + b"moved: {vms: {web1: shop1}}\n")
        assert (
            main.run(["apply", "--yes", "--allow", "deletions=0", "--wait", "0", str(document)])
            == ExitCode.NOT_FOLLOWED
        )
        capsys.readouterr()
        assert main.run(["history", str(int(before) + 1)]) == ExitCode.OK
        printed = capsys.readouterr().out
        assert "~ vm shop1   (it stays the same one; disrupts nothing)\n    name: web1 -> shop1" in printed
        assert "~ vif web1/0\n    vm: web1 -> shop1" in printed
        assert main.run(["rollback", before, "--yes", "--allow", "deletions=0", "--wait", "0"]) == ExitCode.NOT_FOLLOWED
        assert [(vm.name, [vif.id for vif in client.vifs() if vif.vm == vm.name]) for vm in client.vms()] == [
            ("web1", ["web1/0"])
        ]
        client.apply(DOCUMENT, wait_s=0)


def test_exactly_that_plan_or_nothing(
    running: Controller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VNET_CONTROLLER", running.address)
    document, kept, text = tmp_path / "pool.vnet.yaml", str(tmp_path / "change.plan"), WITH_VM.replace(b"120", b"122")
    document.write_bytes(text.replace(b", addresses: [10.1.0.10]", b""))
    with running.client() as client:
        before = str(client.pool().revision)
        client.apply(DOCUMENT + b"subnets: {t4: {network: tenant, cidr: 10.1.0.0/24}}\n", wait_s=0)
        document.write_bytes(document.read_bytes() + b"subnets: {t4: {network: tenant, cidr: 10.1.0.0/24}}\n")
        assert main.run(["plan", str(document), "--out", kept]) == ExitCode.OK
        shown = capsys.readouterr().out
        client.put_vif("theirs", VifSpec(network="tenant"))  # it takes the address that the plan has for web1/0
        assert main.run(["apply", kept, "--yes", "--wait", "0"]) == ExitCode.CONFLICT
        assert "plan again" in capsys.readouterr().err
        assert client.vms() == []
        client.delete_vif("theirs")
        client.put_vif("elsewhere", VifSpec(network="lab"))
        document.write_bytes(b"another document by now")
        assert main.run(["apply", kept, "--yes", "--wait", "0"]) == ExitCode.NOT_FOLLOWED
        assert capsys.readouterr().out == shown
        with pytest.raises(Conflict, match="something else") as caught:
            client.apply(DOCUMENT, plan="00", wait_s=0)
        assert caught.value.code == "another-plan"
        client.rollback(before, wait_s=0)
