"""This host's certificate, kept up to date: the controller beside the CA is asked for the newest now and then.

One rule: the key stays, and a certificate that does not go with it, or does not come, leaves the files as they are. A certificate
is no secret, so it takes none to ask; the controller is verified by the pool's CA.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import ssl
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from vnet.util.files import replace_file
from vnet.util.transport import CA, HOST, identity_file

log = logging.getLogger(__name__)

PERIOD_S = 3600.0
TIMEOUT_S = 10.0
MAX_BYTES = 64 * 1024
BEGIN = b"-----BEGIN CERTIFICATE-----"


class CertificateRenewal:
    """Of host `host`, from the API at `url`, into a directory."""

    def __init__(self, host: str, url: str, directory: Path) -> None:
        self._host: Final = host
        self._url: Final = url
        self._directory: Final = directory

    async def run(self, period_s: float = PERIOD_S) -> None:
        """Without end."""
        while True:
            await self.look()
            await asyncio.sleep(period_s)

    async def look(self) -> bool:
        """Takes up the newest certificate, if it is not the one that is here; whether it did."""
        renewed = False
        try:
            renewed = await asyncio.to_thread(self._renew)
        except (OSError, ValueError, http.client.HTTPException, msgspec.MsgspecError) as error:
            log.warning("this host's certificate is not renewed: %s: %s", self._url, error)
        if renewed:
            log.info("this host's certificate is renewed")
        return renewed

    def _renew(self) -> bool:
        path = identity_file(self._directory, HOST)
        key, _, certificate = path.read_bytes().partition(BEGIN)
        newest = self._fetch()
        if newest.strip() == (BEGIN + certificate).strip():
            return False
        with tempfile.NamedTemporaryFile(dir=self._directory) as made:  # mode 0600
            made.write(key + newest)
            made.flush()
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(made.name)
        replace_file(path, key + newest, 0o600)
        return True

    def _fetch(self) -> bytes:
        address = urlsplit(self._url)
        context = ssl.create_default_context(cafile=self._directory / CA)
        connection = http.client.HTTPSConnection(address.netloc, context=context, timeout=TIMEOUT_S)
        try:
            connection.request("GET", f"/v1/hosts/{quote(self._host, safe='')}/certificate")
            answer = connection.getresponse()
            data = answer.read(MAX_BYTES)
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(msgspec.json.decode(data).get("message", answer.status))
        return msgspec.json.decode(data, type=dict[str, str])["certificate"].encode()
