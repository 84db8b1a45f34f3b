"""Hosts that join the pool: an invitation from a controller beside the CA, and for it a certificate of the host's own key.

One rule: the private key is made on the host and stays there. What strangers may ask for is the CA's certificate, and theirs by a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import TYPE_CHECKING

from vnet.api.errors import Conflict
from vnet.controller.invitations import Invitations
from vnet.util.invitation_line import InvitationLine
from vnet.util.transport import CA, PKI_DIR

if TYPE_CHECKING:
    from vnet.controller.pki import Authority


@dataclass(frozen=True, slots=True)
class Joining:
    """directory: of the CA. url: where hosts reach the REST API, pool: and the pool database, as far as the controller's options say."""

    directory: Path = PKI_DIR
    url: str = ""
    pool: tuple[str, ...] = ()

    def invite(
        self, host: str, url: str | None, pool: Sequence[str], valid: timedelta, now: datetime
    ) -> InvitationLine:
        """An invitation. Raises Conflict where the CA is not here, or it is not known where hosts reach us."""
        self._authority()
        where, remotes = url or self.url, tuple(pool) or self.pool
        if not where.startswith("https://"):
            raise Conflict(
                "no-address", "hosts cannot reach this controller: it needs --listen https://..., or give --url", "url"
            )
        if not remotes:
            raise Conflict(
                "no-address", "hosts cannot reach the pool database: --pool-listen pssl:..., or give --pool", "pool"
            )
        digest = sha256(PEM_cert_to_DER_cert(self.ca())).hexdigest()
        return InvitationLine(host, where, remotes, digest, Invitations(self.directory).invite(host, now, valid))

    def join(self, host: str, token: str, request: str) -> str:
        """The certificate for a host's signing request, in PEM. Raises Unauthorized, Invalid, Conflict."""
        from vnet.controller.pki import JOINED_LIFE, requested_key  # noqa: PLC0415 - loads a library that TLS alone needs

        authority, now = self._authority(), datetime.now(UTC)
        key, public = requested_key(request.encode())
        Invitations(self.directory).accept(host, token, public, now)
        return authority.sign(host, key, now, JOINED_LIFE).decode()

    def certificate(self, host: str) -> str:
        """A host's certificate, renewed when that is due. Raises NotFound, Conflict."""
        return self._authority().current(host, datetime.now(UTC)).decode()

    def revoke(self, host: str) -> datetime:
        """Renew a host's certificate no more, and invite it no more; the end of the one that it has. Raises NotFound, Conflict."""
        now = datetime.now(UTC)
        ends = self._authority().revoke(host, now).ends
        Invitations(self.directory).forget(host, now)
        return ends

    def ca(self) -> str:
        """The CA's certificate, in PEM; raises Conflict where there is none."""
        try:
            return (self.directory / CA).read_text()
        except OSError:
            raise Conflict("no-authority", "this controller has no certificates") from None

    def _authority(self) -> Authority:
        from vnet.controller.pki import Authority  # noqa: PLC0415 - as above

        authority = Authority(self.directory)
        if not authority.present:
            raise Conflict(
                "no-authority", "the CA is not on this controller: ask the one where 'vnet pki make' made it"
            )
        return authority
