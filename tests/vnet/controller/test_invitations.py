"""Invitations: for one name, one key, and a short time."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vnet.api.errors import Conflict, Invalid, Unauthorized
from vnet.controller.invitations import VALID, Invitations
from vnet.controller.joining import Joining
from vnet.util.invitation_line import InvitationLine, decode_invitation

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_token_is_for_one_name_and_one_key(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path)
    token = invitations.invite("xen4", NOW)
    for host, given in [("xen5", token), ("xen4", token[:-1]), ("xen4", "")]:
        with pytest.raises(Unauthorized):
            invitations.accept(host, given, b"key", NOW)
    invitations.accept("xen4", token, b"key", NOW)
    invitations.accept("xen4", token, b"key", NOW)  # the answer was lost
    with pytest.raises(Unauthorized):
        invitations.accept("xen4", token, b"another", NOW)


def test_a_token_ends_and_a_new_one_takes_its_place(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path)
    first, other = invitations.invite("xen4", NOW), invitations.invite("xen5", NOW)
    with pytest.raises(Unauthorized):
        invitations.accept("xen5", other, b"key", NOW + VALID)
    second = invitations.invite("xen4", NOW)
    with pytest.raises(Unauthorized):
        invitations.accept("xen4", first, b"key", NOW)
    invitations.accept("xen4", second, b"key", NOW + VALID - timedelta(seconds=1))


def test_only_its_hash_is_kept_for_the_owner_alone(tmp_path: Path) -> None:
    invitations = Invitations(tmp_path)
    token = invitations.invite("xen4", NOW)
    assert token not in invitations.file.read_text()
    assert stat.S_IMODE(invitations.file.stat().st_mode) == 0o600


def test_the_line_is_read_as_it_was_printed_and_nothing_else_is() -> None:
    line = InvitationLine("xen4", "https://10.0.0.1:8443", ("ssl:10.0.0.1:6640",), "ab" * 32, "secret")
    assert decode_invitation(f" {line.encode()}\n") == line
    for text in ("", "vnet1.", line.encode()[:-3], "vnet2." + line.encode()[6:], "vnet1.e30", "\xff"):
        with pytest.raises(ValueError, match="vnet host invite"):
            decode_invitation(text)


def test_what_it_takes_to_invite(tmp_path: Path) -> None:
    from vnet.controller.pki import Authority, requested_key

    url, pool = "https://10.0.0.1:8443", ("ssl:10.0.0.1:6640",)
    with pytest.raises(Conflict, match="CA is not on this controller"):
        Joining(tmp_path, url, pool).invite("xen4", None, (), VALID, NOW)
    Authority(tmp_path).create("test", NOW)
    for joining, option in [(Joining(tmp_path, "", pool), "--url"), (Joining(tmp_path, url), "--pool")]:
        with pytest.raises(Conflict, match=option):
            joining.invite("xen4", None, (), VALID, NOW)
    made = Joining(tmp_path).invite("xen4", url, pool, VALID, NOW)
    assert (made.name, made.url, made.pool) == ("xen4", url, pool)
    for request in (b"", b"nonsense", (tmp_path / "ca.pem").read_bytes()):
        with pytest.raises(Invalid, match="no signing request"):
            requested_key(request)
