"""Revisions on trial, on a real pool: confirmed, taken back by themselves, though the controller dies; and what may change meanwhile."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling import until, wait_until
from tests.vnet.controller.daemons import DOCUMENT, REPOSITORY, Controller, controller
from vnet.api.errors import Conflict, NotFound
from vnet.client import AsyncClient, VifSpec, VmSpec
from vnet.db.database import PoolDatabase

WITH_VM = DOCUMENT + b"vms: {web1: {host: xen1, vifs: [{network: tenant, addresses: [10.1.0.10]}]}}\n"
OTHER = WITH_VM.replace(b"  lab: {type: internal}", b"  lab2: {type: geneve}").replace(b"tag: 120", b"tag: 121")


async def test_unconfirmed_it_is_taken_back(client: AsyncClient, pool: PoolDatabase) -> None:
    await client.apply(DOCUMENT, wait_s=0)
    before = await client.export()
    applied = await client.apply(OTHER, wait_s=0, try_s=1)
    assert applied.trial is not None
    assert (applied.trial.revision, applied.trial.caller) == (applied.revision, "root")
    assert (await client.status()).trial is not None
    await client.put_vif("theirs", VifSpec(network="tenant"))
    await until(lambda: pool.mirror.trial is None, "the trial to end")
    assert (await client.export()).split("\n", 1)[1] == before
    assert [vif.id for vif in await client.vifs()] == ["theirs"], "what the toolstack made meanwhile stays"
    newest = (await client.history())[-1]
    assert (newest.caller, newest.reason) == ("controller", "trial of root, not confirmed in time")
    assert newest.revision == (await client.pool()).revision == applied.revision + 2
    await client.delete_vif("theirs")


async def test_confirmed_it_stays(client: AsyncClient, pool: PoolDatabase) -> None:
    applied = await client.apply(OTHER, wait_s=0, try_s=3600)
    with pytest.raises(NotFound, match="revision 99"):
        await client.confirm(99)
    assert (await client.confirm(applied.revision)).revision == applied.revision
    with pytest.raises(NotFound, match="nothing is on trial"):
        await client.confirm()
    assert "lab2" in await client.export()
    assert (await client.history())[-1].summary.startswith("delete trial")
    assert pool.mirror.trial is None
    await client.rollback(str(applied.revision - 1), wait_s=0)


async def test_what_may_change_meanwhile(client: AsyncClient) -> None:
    """Nobody applies another document, and nothing is built on what may go."""
    before = await client.export()
    applied = await client.apply(OTHER, wait_s=0, try_s=3600)
    for call in (client.apply(DOCUMENT, wait_s=0), client.rollback(str(applied.revision - 1), wait_s=0)):
        with pytest.raises(Conflict, match=f"revision {applied.revision} of root is on trial until") as caught:
            await call
        assert caught.value.code == "on-trial"
    with pytest.raises(Conflict, match=r"could not be taken back after this.*lab2"):
        await client.put_vif("theirs", VifSpec(network="lab2"))
    with pytest.raises(Conflict, match="could not be taken back after this"):
        await client.put_vif("theirs", VifSpec(network="tenant", vm="web1"))
    await client.put_vm("theirs", VmSpec())
    assert (await client.revert(applied.revision)).revision == applied.revision + 2
    await client.delete_vm("theirs")
    assert await client.export() == before


@pytest.fixture
def own(ovs: None) -> Iterator[Controller]:
    with controller() as made:
        yield made


def test_a_controller_that_dies_takes_it_back_when_it_is_back(own: Controller) -> None:
    """And what it had confirmed stays."""
    with own.client() as client:
        before = client.export()
        client.apply(OTHER, wait_s=0, try_s=1)
        own.stop(signal.SIGKILL)
        own.start()
        wait_until(lambda: client.export() == before, "the trial to be taken back")
        applied = client.apply(OTHER, wait_s=0, try_s=2)
        client.confirm(applied.revision)
        own.stop(signal.SIGKILL)
        own.start()
        wait_until(lambda: client.status().problems, "the leader to have looked")
        assert "lab2" in client.export()


@pytest.mark.parametrize(
    ("typed", "code", "kept"), [(b"\n", 7, True), (b"", 1, False), (b"\x04", 1, None)], ids=["enter", "ctrl-c", "gone"]
)
def test_at_a_terminal(running: Controller, tmp_path: Path, typed: bytes, code: int, kept: bool | None) -> None:
    document = tmp_path / "pool.vnet.yaml"
    document.write_bytes(OTHER)
    master, terminal = pty.openpty()
    arguments = ["apply", "--yes", "--allow", "deletions=99", "--wait", "0", str(document), "--try"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "VNET_CONTROLLER": running.address}
    with running.client() as client:
        client.apply(DOCUMENT, wait_s=0)
        process = subprocess.Popen(
            [sys.executable, "-m", "vnet.cli.main", *arguments],
            stdin=terminal, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env,
        )  # fmt: skip
        os.close(terminal)
        assert process.stderr is not None
        said = b""
        while b"Enter keeps it" not in said:
            said += process.stderr.readline()
        if typed:
            os.write(master, typed)
        else:
            process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=30)[1]
        assert process.returncode == code, said
        if kept is None:
            assert client.trial().seconds > 30, "the time goes on without the terminal"
            client.revert()
        assert ("lab2" in client.export()) is bool(kept)
    os.close(master)
