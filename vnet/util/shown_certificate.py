"""The certificate that TLS sockets of the API, and those for other servers, show.

One rule: each new connection is shown what the file has by then, so a renewal needs no restart, and open connections stay.
"""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Final

from vnet.util.transport import TransportError

log = logging.getLogger("vnet.tls")


class ShownCertificate:
    """A server's identity in a file, and the CA of its clients where they have to show a certificate.

    Raises TransportError where there is none, or a damaged one.
    """

    def __init__(self, file: Path, clients_ca: Path | None = None) -> None:
        self._file: Final = file
        self._clients_ca: Final = clients_ca
        self._read = self._stamp()
        try:
            self._newest = self._load()
        except FileNotFoundError:
            raise TransportError(f"TLS needs {self._file}: make it with 'vnet pki' (docs/trust.md)") from None
        except OSError as error:
            raise TransportError(f"no TLS with {self._file}: {error}") from None
        self.context: Final = self._load()
        self.context.sni_callback = self._greet

    def _greet(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Begins a connection: it is called with each one's first message, whether or not that names the server."""
        stamp = self._stamp()
        if stamp != self._read:
            self._read = stamp
            try:
                self._newest = self._load()
                log.info("%s: shows the certificate that is new there", self._file)
            except OSError as error:
                log.error("%s: %s; the certificate that was there before is shown still", self._file, error)
        connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET  # a resumed session would go on with an old certificate
        context.num_tickets = 0
        context.load_cert_chain(self._file)
        if self._clients_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._clients_ca)
        return context

    def _stamp(self) -> tuple[int, int] | None:
        """What changes when the file is replaced."""
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns
