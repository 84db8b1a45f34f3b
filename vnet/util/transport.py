"""Connections between machines. One rule: off loopback they are TLS, unless cleartext is asked for by name.

A machine keeps its identities in one directory: for each a file with its private key and its certificate, which is replaced in
one step, and beside them the certificate of the pool's CA. Servers and clients read the files again when they are replaced.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

from ovsctl.ovsdb import Tls
from vnet.util.loopback import is_loopback

PKI_DIR = Path("/var/lib/vnet/pki")
CA = "ca.pem"
SERVER = "server"  # an identity of a server, which is a client of other servers too
HOST = "host"  # an agent's
MIN_SECRET = 16  # characters of a token or a key in a file


class TransportError(ValueError):
    """A connection would be in cleartext, or an identity is missing."""


def identity_file(directory: Path, identity: str) -> Path:
    """The private key and the certificate of an identity."""
    return directory / f"{identity}.pem"


def tls_for(remotes: Iterable[str], directory: Path, identity: str) -> Tls | None:
    """The identity for these remotes; None where none of them is TLS. Raises TransportError for a file without it."""
    if not any(remote.startswith(("ssl:", "pssl:")) for remote in remotes):
        return None
    own, ca = identity_file(directory, identity), directory / CA
    for path in (own, ca):
        if not path.is_file():
            raise TransportError(f"TLS needs {path}: make it with 'vnet pki' (docs/trust.md)")
    tls = Tls(own, own, ca)
    try:
        tls.context()
    except OSError as error:
        raise TransportError(f"no TLS with {own} and {ca}: {error}") from None
    return tls


def check_cleartext(remotes: Iterable[str], allowed: bool) -> None:
    """Raise TransportError for the first of the remotes that leaves this machine without TLS. Forms: ovsdb(7)."""
    for remote in remotes:
        if not allowed and leaves_in_cleartext(remote):
            secure = remote.replace("tcp:", "ssl:", 1)
            raise TransportError(
                f"{remote} is cleartext off loopback: use {secure}, or add --cleartext (docs/trust.md)"
            )


def read_secret(path: Path, label: str) -> bytes:
    """A token or a key in a file, which only its owner may read. label: it in words. Raises TransportError."""
    try:
        mode, secret = path.stat().st_mode, path.read_bytes().strip()
    except OSError as error:
        raise TransportError(f"{label} {path}: {error.strerror}") from None
    if mode & 0o077:
        raise TransportError(f"{label} {path} may be read by others: chmod 600 it")
    if len(secret) < MIN_SECRET:
        raise TransportError(f"{label} {path}: it has at least {MIN_SECRET} characters")
    return secret


def listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens at an address, "" for all of this machine's; IPv6 without brackets. Raises OSError that names it."""
    # asyncio has only a socket that is named TCP's send what it has at once: an answer's body, the second thing written, would wait
    # until the peer acknowledges the first, 40 ms (Nagle's algorithm, RFC 9293 §3.7.4).
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        at = f"[{host}]" if ":" in host else host or "*"
        raise OSError(error.errno, f"cannot listen at {at}:{port}: {error.strerror}") from None
    return made


def passive_address(remote: str) -> tuple[str, int]:
    """Where ptcp:PORT[:IP] or pssl:PORT[:IP] listens, as `listening_socket` takes it (ovsdb(7))."""
    port, _, host = remote.partition(":")[2].partition(":")
    return host.strip("[]"), int(port)


def leaves_in_cleartext(remote: str) -> bool:
    method, _, rest = remote.partition(":")
    if method == "ptcp":
        host = rest.partition(":")[2]  # without one it listens on all addresses
    elif method == "tcp":
        host = rest.rpartition(":")[0] if rest.startswith("[") or rest.count(":") == 1 else rest
    else:
        return False
    return not is_loopback(host.strip("[]"))
