"""Remotes: their text, and real connections over unix, TCP and TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from ovsctl.ovsdb import BadRemote, BadValue, ConnectFailed, OvsdbClient, Remote, Tls, check_passive
from tests.ovsctl.ovsdb.schemas import SCHEMA_JSON
from tests.servers import free_port, ovsdb_server, run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/x.sock", Remote("unix:/run/x.sock", path="/run/x.sock")),
        ("tcp:10.0.0.1:6641", Remote("tcp:10.0.0.1:6641", host="10.0.0.1", port=6641)),
        ("tcp:10.0.0.1", Remote("tcp:10.0.0.1", host="10.0.0.1", port=6640)),
        ("tcp:[fd00::1]:1", Remote("tcp:[fd00::1]:1", host="fd00::1", port=1)),
        ("ssl:[fd00::1]", Remote("ssl:[fd00::1]", host="fd00::1", port=6640, secure=True)),
        ("ssl:db.example:6640", Remote("ssl:db.example:6640", host="db.example", port=6640, secure=True)),
    ],
)
def test_remotes_are_parsed(text: str, expected: Remote) -> None:
    assert Remote.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "unix:", "tcp:", "ptcp:6640", "tcp::1", "tcp:h:0", "tcp:h:65536", "tcp:h:x", "tcp:[::1", "tcp:[::1]x"]
)
def test_bad_remotes(text: str) -> None:
    with pytest.raises(BadRemote):
        OvsdbClient(text, "Kinds")


@pytest.mark.parametrize(
    "text", ["punix:/run/x.sock", "ptcp:6640", "ptcp:6640:10.0.0.1", "ptcp:0:[::1]", "pssl:6640:0.0.0.0"]
)
def test_a_server_can_listen_so(text: str) -> None:
    check_passive(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "punix:",
        "tcp:6640:10.0.0.1",
        "ptcp:",
        "ptcp:x",
        "ptcp:65536",
        "ptcp:1:host",
        "ptcp:1:::1",
        "ptcp:1:[10.0.0.1]",
    ],
)
def test_no_server_can_listen_so(text: str) -> None:
    with pytest.raises(BadRemote):
        check_passive(text)


def test_a_client_needs_a_remote() -> None:
    with pytest.raises(BadValue):
        OvsdbClient([], "Kinds")


@pytest.mark.usefixtures("ovs")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_tcp(host: str) -> None:
    port = free_port()
    with ovsdb_server(SCHEMA_JSON, options=[f"--remote=ptcp:{port}:{host}"]):
        async with OvsdbClient(f"tcp:{host}:{port}", "Kinds") as client:
            assert client.schema.name == "Kinds"


def make_certificates(path: Path) -> tuple[Tls, Tls]:
    """What a server and a client of one authority need."""
    subject = ("-subj", "/O=test/CN=ca", "-days", "2", "-nodes", "-newkey", "rsa:2048")
    run("openssl", "req", "-x509", *subject, "-keyout", str(path / "ca.key"), "-out", str(path / "ca.pem"))
    for name in ("server", "client"):
        key, request, pem = (path / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        subject = ("-subj", f"/O=test/CN={name}", "-nodes", "-newkey", "rsa:2048")  # type: ignore[assignment]
        run("openssl", "req", "-new", *subject, "-keyout", str(key), "-out", str(request))
        signed = ("-in", str(request), "-CA", str(path / "ca.pem"), "-CAkey", str(path / "ca.key"), "-CAcreateserial")
        run("openssl", "x509", "-req", *signed, "-days", "2", "-out", str(pem))
    server, client = (Tls(path / f"{n}.key", path / f"{n}.pem", path / "ca.pem") for n in ("server", "client"))
    return server, client


@pytest.mark.usefixtures("ovs")
async def test_tls_both_ways(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    server, client = make_certificates(tmp_path / "ours")
    _, stranger = make_certificates(tmp_path / "theirs")
    port = free_port()
    files = (
        f"--private-key={server.private_key}",
        f"--certificate={server.certificate}",
        f"--ca-cert={server.ca_certificate}",
    )
    with ovsdb_server(SCHEMA_JSON, options=[*files, f"--remote=pssl:{port}:127.0.0.1"]):
        remote = f"ssl:127.0.0.1:{port}"
        async with OvsdbClient(remote, "Kinds", tls=client) as connected:
            assert connected.schema.name == "Kinds"
        for tls in (stranger, Tls(stranger.private_key, stranger.certificate, client.ca_certificate)):
            with pytest.raises(ConnectFailed):
                async with OvsdbClient(remote, "Kinds", tls=tls.context(), connect_timeout_s=0.5):
                    pass
    with pytest.raises(OSError, match="No such file"):
        OvsdbClient(remote, "Kinds", tls=Tls(Path("/nothing"), Path("/nothing"), Path("/nothing")))
    with pytest.raises(ssl.SSLError):
        OvsdbClient(remote, "Kinds", tls=Tls(client.certificate, client.private_key, client.ca_certificate))


async def test_tls_needs_its_files() -> None:
    with pytest.raises(BadRemote, match="tls"):
        OvsdbClient("ssl:127.0.0.1:1", "Kinds")
