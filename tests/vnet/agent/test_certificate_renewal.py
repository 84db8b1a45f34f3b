"""The agent takes up the certificate that the controller has renewed for its key, and nothing else."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.authorities import TestAuthority
from vnet.agent.certificate_renewal import CertificateRenewal
from vnet.util.shown_certificate import ShownCertificate


@dataclass
class AnsweringController:
    """Answers every request with `status` and `content`."""

    status: int = 200
    content: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).split()[1].decode())
        data = json.dumps(self.content).encode()
        writer.write(
            b"HTTP/1.1 %d x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (self.status, len(data), data)
        )
        await writer.drain()
        writer.close()

    @asynccontextmanager
    async def serve(self, directory: Path) -> AsyncIterator[str]:
        context = ShownCertificate(directory / "server.pem").context
        async with await asyncio.start_server(self.answer, "127.0.0.1", 0, ssl=context) as server:
            yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_only_what_goes_with_the_key_is_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from vnet.controller.pki import Authority

    authority = TestAuthority(tmp_path)
    authority.server()
    pki = authority.host("xen 4", timedelta(days=340)).certificate.parent
    own = pki / "host.pem"
    before = own.read_text()
    key, begin, old = before.partition("-----BEGIN CERTIFICATE-----")
    renewed = Authority(tmp_path).current("xen 4", datetime.now(UTC)).decode()
    authority.host("xen5")
    others = Authority(tmp_path).current("xen5", datetime.now(UTC)).decode()
    controller = AnsweringController()
    async with controller.serve(tmp_path) as url:
        renewal = CertificateRenewal("xen 4", url, pki)
        for status, certificate in [(200, begin + old), (200, others), (200, "nonsense"), (200, ""), (404, renewed)]:
            controller.status, controller.content = status, {"certificate": certificate}
            assert not await renewal.look(), certificate
            assert own.read_text() == before, certificate
        controller.content = {"message": "host xen 4 has no certificate"}
        await renewal.look()
        assert "has no certificate" in caplog.messages[-1]
        controller.status, controller.content = 200, {"certificate": renewed}
        assert (await renewal.look(), await renewal.look()) == (True, False)
        assert own.read_text() == key + renewed
        assert stat.S_IMODE(own.stat().st_mode) == 0o600
        assert set(controller.asked) == {"/v1/hosts/xen%204/certificate"}
        assert {path.name for path in pki.iterdir()} == {"host.pem", "ca.pem"}


async def test_a_server_of_another_ca_is_not_heeded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, other = TestAuthority(tmp_path / "ours"), TestAuthority(tmp_path / "other")
    ours.server()
    other.server()
    pki = ours.host("xen4").certificate.parent
    controller = AnsweringController()
    async with controller.serve(other.directory) as url:
        renewal = CertificateRenewal("xen4", url, pki)
        await renewal.look()
    assert controller.asked == []
    assert "certificate verify failed" in caplog.text
    renewal = CertificateRenewal("xen4", url, pki)
    assert not await renewal.look()  # nobody is there
