"""Which servers will do."""

from __future__ import annotations

import dataclasses

import pytest

from ovsctl.ovsdb import ServerInfo
from ovsctl.ovsdb.server_info import unfit

PLAIN = ServerInfo.plain("unix:x", "Kinds")


@pytest.mark.parametrize(
    ("change", "leader_only", "reason"),
    [
        ({}, True, None),
        ({"leader": False}, False, None),
        ({"leader": False}, True, "not the leader"),
        ({"connected": False}, False, "not in touch"),
        ({"exists": False}, False, "no database Kinds"),
    ],
)
def test_unfit_servers(change: dict[str, bool], leader_only: bool, reason: str | None) -> None:
    found = unfit(dataclasses.replace(PLAIN, **change), leader_only)
    assert found is None if reason is None else found is not None and reason in found
