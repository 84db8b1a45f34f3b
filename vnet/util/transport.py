"""Connections between machines. One rule: off loopback they are TLS, unless cleartext is asked for by name.

A machine keeps its identities in one directory: for each a file with its private key and its certificate, which is replaced in
one step, and beside them the certificate of the pool's CA. Servers and clients read the files again when they are replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ovsctl.ovsdb import Tls
from vnet.util.loopback import is_loopback

PKI_DIR = Path("/var/lib/vnet/pki")
CA = "ca.pem"
SERVER = "server"  # an identity of a server, which is a client of other servers too
HOST = "host"  # an agent's


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
        if not allowed and _leaves_in_cleartext(remote):
            secure = remote.replace("tcp:", "ssl:", 1)
            raise TransportError(
                f"{remote} is cleartext off loopback: use {secure}, or add --cleartext (docs/trust.md)"
            )


def _leaves_in_cleartext(remote: str) -> bool:
    method, _, rest = remote.partition(":")
    if method == "ptcp":
        host = rest.partition(":")[2]  # without one it listens on all addresses
    elif method == "tcp":
        host = rest.rpartition(":")[0] if rest.startswith("[") or rest.count(":") == 1 else rest
    else:
        return False
    return not is_loopback(host.strip("[]"))
