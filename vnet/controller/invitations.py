"""Invitations of hosts: tokens that a controller gives out once, and for which a host gets its certificate.

One rule: a token is for one name, for one key, and for a short time. Only its hash is kept, in a file beside the CA.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import msgspec

from vnet.api.errors import Unauthorized
from vnet.util.files import replace_file

VALID = timedelta(hours=1)


class Invited(msgspec.Struct, frozen=True):
    """token: its hash. ends: seconds since 1970. key: the hash of the public key that has got a certificate for it, "" before."""

    token: str
    ends: float
    key: str = ""


@dataclass(frozen=True, slots=True)
class Invitations:
    """Those of the CA in a directory, by host."""

    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "invitations.json"

    def invite(self, host: str, now: datetime, valid: timedelta = VALID) -> str:
        """A new token for a host; one that it had before is worth nothing any more."""
        token = secrets.token_urlsafe(32)
        self._write(self._read(now) | {host: Invited(_hash(token.encode()), (now + valid).timestamp())})
        return token

    def accept(self, host: str, token: str, public_key: bytes, now: datetime) -> None:
        """Use a token for a key. Raises Unauthorized, without a word on the reason; the same key again is no error."""
        known, key = self._read(now).get(host), _hash(public_key)
        # Compared in any case, so that the time tells nothing of who is invited.
        same = hmac.compare_digest(known.token if known is not None else _hash(b""), _hash(token.encode()))
        if known is None or not same or known.key not in ("", key):
            raise Unauthorized("not-invited", "this invitation is none, was used, or has ended: invite the host again")
        self._write(self._read(now) | {host: msgspec.structs.replace(known, key=key)})

    def forget(self, host: str, now: datetime) -> None:
        """End a host's invitation, if it has one."""
        self._write({name: invited for name, invited in self._read(now).items() if name != host})

    def _read(self, now: datetime) -> dict[str, Invited]:
        if not self.file.exists():
            return {}
        found = msgspec.json.decode(self.file.read_bytes(), type=dict[str, Invited])
        return {host: invited for host, invited in found.items() if invited.ends > now.timestamp()}

    def _write(self, invitations: dict[str, Invited]) -> None:
        replace_file(self.file, msgspec.json.encode(invitations), 0o600)


def _hash(content: bytes) -> str:
    """Of random bytes, so that it need not be slow."""
    return sha256(content).hexdigest()
