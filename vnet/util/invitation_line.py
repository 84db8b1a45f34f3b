"""The invitation of a host as one word, which a controller prints and the host reads.

One rule: it names the CA by its fingerprint, so a host that was given the right word trusts no other controller.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

PREFIX = "vnet1."


class InvitationLine(msgspec.Struct, frozen=True):
    """name: the host's, in the pool. url: of the REST API. pool: the pool database's remotes. ca: the SHA-256 of the CA's certificate."""

    name: str
    url: str
    pool: tuple[str, ...]
    ca: str
    token: str

    def encode(self) -> str:
        return PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


def decode_invitation(text: str) -> InvitationLine:
    """Raises ValueError for what is no invitation."""
    word = text.strip()
    try:
        if not word.startswith(PREFIX):
            raise ValueError(word)
        content = word.removeprefix(PREFIX)
        data = base64.b64decode(content + "=" * (-len(content) % 4), altchars="-_", validate=True)
        return msgspec.json.decode(data, type=InvitationLine)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise ValueError("this is no invitation: copy the whole line that 'vnet host invite' printed") from None
