"""The addresses at which servers are reached and listen, and how a connection to one is opened (ovsdb(7), "Connection Methods")."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from .errors import BadRemote

P = TypeVar("P", bound=asyncio.BaseProtocol)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for ssl: and pssl: remotes, in PEM: our key and certificate, and the CA that signs the peers'.

    As everywhere in Open vSwitch the peer is trusted for its CA. peer: the name that a server's certificate must have besides; "" for any.
    """

    private_key: Path
    certificate: Path
    ca_certificate: Path
    peer: str = ""

    def context(self) -> ssl.SSLContext:
        """Of a client. Raises OSError or ssl.SSLError for files that are not there or not PEM."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        return self._loaded(context)

    def server_context(self) -> ssl.SSLContext:
        """Of a server, which asks each client for its certificate. Raises as `context`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET  # a resumed session would go on with an old certificate
        context.num_tickets = 0
        return self._loaded(context)

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(self.ca_certificate)
        context.load_cert_chain(self.certificate, self.private_key)
        return context


def certified_names(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The names that a peer's certificate is for, as `SSLSocket.getpeercert` has it: common names, and DNS names (RFC 5280 §4.1.2.6, §4.2.1.6)."""
    found = certificate or {}
    names = {value for parts in found.get("subject", ()) for key, value in parts if key == "commonName"}
    return frozenset(names | {value for key, value in found.get("subjectAltName", ()) if key == "DNS"})


@dataclass(frozen=True, slots=True)
class Remote:
    """A parsed remote: `path` of a unix socket, or `host` and `port`."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0
    secure: bool = False

    @classmethod
    def parse(cls, text: str) -> Remote:
        """unix:FILE, tcp:HOST[:PORT] or ssl:HOST[:PORT] with IPv6 in brackets; raises BadRemote."""
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest:
            return cls(text, path=rest)
        if kind not in ("tcp", "ssl") or not rest:
            raise BadRemote(f"expected unix:FILE, tcp:HOST:PORT or ssl:HOST:PORT, got {text!r}")
        if rest.startswith("["):
            host, bracket, port = rest[1:].partition("]")
            port = port.removeprefix(":") if bracket else "?"
        else:
            host, _, port = rest.partition(":")
        port = port or "6640"  # IANA's port for OVSDB
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise BadRemote(f"expected HOST:PORT or [IPV6]:PORT, got {text!r}")
        return cls(text, host=host, port=int(port), secure=kind == "ssl")

    async def connect(self, factory: Callable[[], P], context: ssl.SSLContext | None, peer: str = "") -> P:
        """A connected protocol; raises OSError (ssl.SSLError is one), also for a certificate that is not the peer's of that name."""
        loop = asyncio.get_running_loop()
        if self.path:
            return (await loop.create_unix_connection(factory, self.path))[1]
        used = context if self.secure else None
        transport, protocol = await loop.create_connection(factory, self.host, self.port, ssl=used)
        if used is not None and peer:
            names = certified_names(transport.get_extra_info("peercert"))
            if peer not in names:
                transport.abort()
                raise ssl.SSLCertVerificationError(f"its certificate is of {', '.join(sorted(names))}, not of {peer}")
        return protocol


def check_passive(text: str) -> None:
    """Raises BadRemote unless a server can listen so: punix:FILE, ptcp:PORT[:IP] or pssl:PORT[:IP] with IPv6 in brackets."""
    method, _, rest = text.partition(":")
    if method == "punix" and rest:
        return
    port, _, address = rest.partition(":")
    if method not in ("ptcp", "pssl") or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise BadRemote(f"expected punix:FILE, ptcp:PORT:IP or pssl:PORT:IP, got {text!r}")
    try:
        version = ip_address(address.strip("[]")).version if address else 4
    except ValueError:
        raise BadRemote(f"expected an address of this machine after the port, got {text!r}") from None
    if address and (version == 6) != address.startswith("["):
        raise BadRemote(f"expected an IPv6 address in brackets, and no other, got {text!r}")
