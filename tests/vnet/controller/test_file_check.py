"""A pool database whose file is damaged: it is refused with what is lost and the ways back, and nothing of the file is touched."""

from __future__ import annotations

import logging
import re
import subprocess
from pathlib import Path

import pytest

from ovsctl.ovsdb.log_file import parse_log
from tests.polling import wait_until
from tests.vnet.controller.daemons import controller
from tests.vnet.controller.databases import embedded, opened, stop_embedded
from vnet.controller.embedded import EmbeddedDatabase
from vnet.controller.file_check import LISTED
from vnet.db.changes import InsertObject
from vnet.db.errors import DamagedDatabase
from vnet.db.writes import configuration_write
from vnet.objects import Network, NetworkType

pytestmark = pytest.mark.usefixtures("ovs")

NETWORKS = [Network(f"net{number}", NetworkType.VXLAN, number, 1450, key=number) for number in range(10, 30)]


def run(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


async def filled(database: EmbeddedDatabase) -> bytes:
    """The file of a pool whose networks were made one after another, its server stopped."""
    database.ensure()
    async with opened(database.remote) as pool:
        for network in NETWORKS:
            await pool.write(configuration_write([InsertObject(network)], pool.mirror.state.pool))
    database.stop()
    return database.database.read_bytes()


def damage(database: EmbeddedDatabase, data: bytes, network: str) -> bytes:
    """Flips a bit in the record in which a network was made."""
    at = data.index(f'"{network}"'.encode())
    database.database.write_bytes(data[:at] + bytes([data[at] ^ 2]) + data[at + 1 :])
    return database.database.read_bytes()


async def test_a_file_damaged_in_the_middle_is_not_served(caplog: pytest.LogCaptureFixture) -> None:
    with embedded() as database:
        whole = await filled(database)
        copy = database.database.with_suffix(".db.monday")
        copy.write_bytes(whole)
        damaged = damage(database, whole, "net15")
        with pytest.raises(DamagedDatabase) as refused:
            database.ensure()
        text = str(refused.value)
        assert database.database.read_bytes() == damaged
        assert "SHA-1" in text
        assert f"drop {len(parse_log(damaged).behind) + 1} records for good" in text
        assert "network net16, network net17" in text  # net15 is what cannot be read
        assert f"{len(NETWORKS) - 6 - LISTED} more" in text
        assert re.search(rf"Put back a copy: {copy} \(the pool at 20\d\d-", text)
        with pytest.raises(DamagedDatabase):
            database.ensure()

        command = re.search(r"give up what is lost: (.*?)\. Hosts", text)
        assert command is not None
        run(command[1])
        database.ensure()
        async with opened(database.remote) as pool:
            assert pool.mirror.state.networks.keys() == {"tenant", "prod", *(f"net{n}" for n in range(10, 15))}
        database.stop()

        database.database.write_bytes(copy.read_bytes())
        database.ensure()
        async with opened(database.remote) as pool:
            assert pool.mirror.state.networks.keys() == {"tenant", "prod", *(network.name for network in NETWORKS)}
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_write_that_was_cut_short_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with embedded() as database:
        whole = await filled(database)
        last = parse_log(whole).records[-1]
        database.database.write_bytes(whole[: last.end - 9])
        assert database.ensure()
        assert f"{last.end - 9 - last.start} bytes at its end are dropped" in caplog.text
        async with opened(database.remote) as pool:
            assert NETWORKS[-2].name in pool.mirror.state.networks


async def test_what_is_no_database_is_not_served() -> None:
    with embedded() as database:
        whole = await filled(database)
        for data in (b"", b"\0" * 4096, whole[100:]):
            database.database.write_bytes(data)
            with pytest.raises(DamagedDatabase, match="nothing of it can be"):
                database.ensure()
            assert database.database.read_bytes() == data


def test_a_controller_waits_for_a_file_that_is_whole(tmp_path: Path) -> None:
    with controller() as running:
        running.stop()
        stop_embedded(running.database)
        whole = running.database.database.read_bytes()
        damaged = damage(running.database, whole, "tenant")
        running.launch()
        wait_until(lambda: "is damaged at byte" in running.log.read_text(), "the reason in the log")
        assert running.database.database.read_bytes() == damaged
        running.database.database.write_bytes(whole)
        running.wait_until_it_answers()
        with running.client() as client:
            assert {network.name for network in client.networks()} == {"tenant", "prod", "bare", "lab"}
