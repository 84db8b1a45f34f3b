"""The pool's CA: what it makes, what ovsdb-server and clients accept of it, and renewal under way."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ovsctl.ovsdb import ConnectFailed, OvsdbClient, Tls
from tests.authorities import LIFE, TestAuthority, tls_options
from tests.polling import until
from tests.servers import OvsdbServer, free_port, ovsdb_server
from vnet.api.errors import Conflict, Invalid, NotFound
from vnet.db.rows import SCHEMA_NAME
from vnet.util.transport import HOST, SERVER, TransportError, check_cleartext, tls_for

SCHEMA = Path("vnet/db/vnet.ovsschema")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path / "pki")


@pytest.fixture
def served(authority: TestAuthority, ovs: None) -> Iterator[tuple[OvsdbServer, str]]:
    """A pool database over TLS, and its remote."""
    port = free_port()
    with ovsdb_server(SCHEMA, options=[*tls_options(authority.server()), f"--remote=pssl:{port}:127.0.0.1"]) as server:
        yield server, f"ssl:127.0.0.1:{port}"


async def reaches(remote: str, tls: Tls) -> bool:
    try:
        async with OvsdbClient(remote, SCHEMA_NAME, tls=tls, connect_timeout_s=1.0) as client:
            return client.connected
    except ConnectFailed:
        return False


def test_private_keys_are_their_owners_alone(authority: TestAuthority) -> None:
    authority.server()
    authority.host("xen1")
    keys = [path for path in authority.directory.rglob("*.pem") if b"PRIVATE KEY" in path.read_bytes()]
    assert {path.name for path in keys} == {"ca.key.pem", "server.pem", "host.pem"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert stat.S_IMODE(authority.directory.stat().st_mode) == 0o700


async def test_a_host_reaches_the_database_and_is_no_server(
    served: tuple[OvsdbServer, str], authority: TestAuthority
) -> None:
    host = authority.host("xen1")
    assert await reaches(served[1], host)
    port = free_port()
    with ovsdb_server(SCHEMA, options=[*tls_options(host), f"--remote=pssl:{port}:127.0.0.1"]):
        assert not await reaches(f"ssl:127.0.0.1:{port}", authority.host("xen2"))


async def test_another_ca_and_an_expired_certificate_are_refused(
    served: tuple[OvsdbServer, str], authority: TestAuthority, tmp_path: Path
) -> None:
    other = TestAuthority(tmp_path / "other")
    other.server()
    stranger, ours = other.host("xen1"), authority.host("xen1")
    assert not await reaches(served[1], stranger)
    assert not await reaches(served[1], Tls(ours.private_key, ours.certificate, stranger.ca_certificate))
    assert not await reaches(served[1], Tls(stranger.private_key, stranger.certificate, ours.ca_certificate))
    assert not await reaches(served[1], authority.host("xen3", LIFE + timedelta(hours=2)))
    assert await reaches(served[1], ours)


async def test_a_client_takes_up_a_renewed_certificate_at_its_next_connection(
    served: tuple[OvsdbServer, str], authority: TestAuthority
) -> None:
    server, remote = served
    expired = authority.host("xen1", LIFE + timedelta(hours=2))
    client = OvsdbClient(remote, SCHEMA_NAME, tls=expired, connect_timeout_s=20)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.open())
        await until(lambda: "certificate verify failed" in server.log.read_text(), "the server's refusal")
        assert not client.connected
        authority.host("xen1")
    assert client.connected
    await client.close()


async def test_the_server_takes_up_a_renewed_certificate_and_keeps_its_connections(
    served: tuple[OvsdbServer, str], authority: TestAuthority
) -> None:
    _, remote = served
    host = authority.host("xen1")
    lost: list[bool] = []
    async with OvsdbClient(remote, SCHEMA_NAME, tls=host) as client:
        client.on_connection_change(lost.append)
        before = await serial(remote, host)
        authority.server()

        async def renewed() -> bool:
            return await serial(remote, host) != before

        await until(renewed, "the server's new certificate")
        await client.request("echo")
        assert lost == []


async def serial(remote: str, tls: Tls) -> str:
    """The serial number of the certificate that a server shows."""
    _, address, port = remote.split(":")
    reader, writer = await asyncio.open_connection(address, int(port), ssl=tls.context())
    del reader
    shown = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    return str(shown["serialNumber"])


def test_renewed_30_days_before_its_end_and_not_earlier(tmp_path: Path) -> None:
    from vnet.controller.pki import LIFE, NOTICE, Authority, CertificateUse, renew_server, server_addresses

    made = Authority(tmp_path)
    assert not renew_server(tmp_path, NOW)
    assert made.create("test", NOW)
    assert not made.create("test", NOW)
    made.issue("server", CertificateUse.SERVER, tmp_path, NOW, ("10.0.0.1", "pool.example"))
    made.issue("xen1", CertificateUse.HOST, tmp_path / "xen1", NOW)
    day_before = NOW + LIFE - NOTICE - timedelta(days=1)
    assert not renew_server(tmp_path, day_before)
    assert {found.state for found in made.certificates(day_before)} == {"valid"}
    soon = NOW + LIFE - NOTICE
    assert [(found.name, found.state) for found in made.certificates(soon)][:2] == [
        ("xen1", "ends-soon"),
        ("server", "ends-soon"),
    ]
    assert renew_server(tmp_path, soon)
    assert server_addresses(tmp_path) == ("10.0.0.1", "pool.example")
    states = {found.name: found.state for found in made.certificates(NOW + LIFE)}
    assert states == {"xen1": "expired", "server": "valid", "vnet pool test": "valid"}


def test_a_hosts_certificate_is_renewed_for_its_key_until_it_is_revoked(tmp_path: Path) -> None:
    from vnet.controller.pki import JOINED_LIFE, Authority, requested_key, signing_request

    made = Authority(tmp_path)
    made.create("test", NOW)
    key, request = signing_request("xen4")
    public, _ = requested_key(request)
    first = made.sign("xen4", public, NOW, JOINED_LIFE)
    assert made.current("xen4", NOW + JOINED_LIFE / 2 - timedelta(seconds=1)) == first
    half = NOW + JOINED_LIFE / 2
    second = made.current("xen4", half)
    assert second != first
    assert made.current("xen4", half) == second
    (tmp_path / "host.pem").write_bytes(key + second)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(tmp_path / "host.pem")
    assert {found.name: found.ends for found in made.certificates(half)}["xen4"] == half + JOINED_LIFE
    late = made.current("xen4", half + 3 * JOINED_LIFE)  # the host was away for long
    assert late not in (first, second)
    with pytest.raises(NotFound):
        made.current("xen5", NOW)
    now = half + 3 * JOINED_LIFE
    ends = made.revoke("xen4", now).ends
    assert ends == now + JOINED_LIFE
    for refused in (made.current, made.revoke):
        with pytest.raises(NotFound):
            refused("xen4", now)
    assert not made.ended_between(now, ends - timedelta(seconds=1))
    assert made.ended_between(now, ends)
    assert not made.ended_between(ends, ends + timedelta(days=1))
    assert "xen4" not in {found.name for found in made.certificates(now)}


def test_a_name_is_no_path(authority: TestAuthority) -> None:
    from vnet.controller.pki import Authority, CertificateUse

    authority.server()
    made = Authority(authority.directory)
    for name in ("../../evil", "a/b", "%2e", "."):
        made.issue(name, CertificateUse.HOST, authority.directory / "out", NOW)
    assert {path.name for path in (authority.directory / "issued").iterdir()} == {
        "server-server.pem", "host-..%2f..%2fevil.pem", "host-a%2fb.pem", "host-%252e.pem", "host-..pem",
    }  # fmt: skip
    for name in ("", "x" * 65):
        with pytest.raises(Invalid):
            made.issue(name, CertificateUse.HOST, authority.directory / "out", NOW)


def test_no_ca_here(tmp_path: Path) -> None:
    from vnet.controller.pki import Authority, CertificateUse

    with pytest.raises(Conflict, match="vnet pki make"):
        Authority(tmp_path).issue("xen1", CertificateUse.HOST, tmp_path, NOW)
    (tmp_path / "ca.pem").write_text("of another machine")
    with pytest.raises(Conflict, match="another machine"):
        Authority(tmp_path).create("test", NOW)


@pytest.mark.parametrize(
    "remote", ["tcp:10.0.0.1:6640", "tcp:10.0.0.1", "tcp:[fd00::1]:6640", "ptcp:6640", "ptcp:6640:0.0.0.0", "tcp:db:1"]
)
def test_cleartext_off_loopback_is_asked_for_by_name(remote: str) -> None:
    with pytest.raises(TransportError, match="--cleartext"):
        check_cleartext([remote], False)
    check_cleartext([remote], True)


@pytest.mark.parametrize(
    "remote",
    ["tcp:127.0.0.1:6640", "tcp:[::1]:6640", "ptcp:6640:127.0.0.1", "ptcp:6640:[::1]", "unix:/x", "ssl:10.0.0.1:6640"],
)
def test_loopback_and_tls_need_no_flag(remote: str) -> None:
    check_cleartext([remote], False)


def test_tls_needs_an_identity(tmp_path: Path, authority: TestAuthority) -> None:
    assert tls_for(["unix:/x", "tcp:127.0.0.1:1"], tmp_path, HOST) is None
    with pytest.raises(TransportError, match="vnet pki"):
        tls_for(["ssl:127.0.0.1:1"], tmp_path, HOST)
    authority.server()
    found = tls_for(["ssl:127.0.0.1:1"], authority.directory, SERVER)
    assert found is not None
    assert isinstance(found.context(), ssl.SSLContext)
    found.certificate.write_text("damaged")
    with pytest.raises(TransportError, match=r"no TLS with .*server\.pem"):
        tls_for(["ssl:127.0.0.1:1"], authority.directory, SERVER)
