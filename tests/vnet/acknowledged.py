"""Which hosts have programmed a binding: each says so in its own row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovsctl.ovsdb import OvsdbClient, Select


async def acknowledged(client: OvsdbClient, binding: Mapping[str, Any]) -> set[str]:
    """The hosts that have acknowledged the binding of a row."""
    (agents,) = await client.transact(Select("Agent", (), ("host", "acked")))
    name = f"{binding['host']} {binding['epoch']}"
    return {agent["host"] for agent in agents if agent["acked"].get(binding["vif"]) == name}
