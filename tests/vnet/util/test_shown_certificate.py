"""The certificate that a TLS socket of the API shows: the newest that its file has, or had."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from tests.authorities import TestAuthority
from vnet.util.shown_certificate import ShownCertificate
from vnet.util.transport import TransportError


async def test_each_connection_is_shown_what_the_file_has_by_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = TestAuthority(tmp_path)
    file, tls = authority.server().certificate, authority.host("xen1")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=ShownCertificate(tmp_path / "server.pem").context)
    port = server.sockets[0].getsockname()[1]

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls.context())
        return reader, writer, writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]

    connections = [await connect()]
    connections.append(await connect())
    authority.server()
    connections.append(await connect())
    file.write_text("damaged")
    with caplog.at_level(logging.ERROR):
        connections += [await connect(), await connect()]
    assert len(caplog.records) == 1
    assert "is shown still" in caplog.text
    file.unlink()
    connections.append(await connect())
    authority.server()
    connections.append(await connect())
    serials = [serial for _, _, serial in connections]
    assert [serials.index(serial) for serial in serials] == [0, 0, 2, 2, 2, 2, 6]
    for reader, writer, _ in connections:
        writer.write(b"here")
        assert await reader.read(100) == b"here"
        writer.close()
    server.close()


def test_no_certificate_or_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="vnet pki"):
        ShownCertificate(tmp_path / "server.pem")
    (tmp_path / "server.pem").write_text("damaged")
    with pytest.raises(TransportError, match=r"no TLS with .*server\.pem"):
        ShownCertificate(tmp_path / "server.pem")
