"""What an uplink's bridge has learned of MACs, as ovs-appctl tells it. Pure.

One rule: a MAC of a VIF that runs here is behind the patch to br-int. Where the bridge hears it from a NIC, another station has it as well, or a loop brings its frames back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MOVED = re.compile(r"port moved MAC entries\s*:\s*(\d+)")
Learned = dict[tuple[int, str], str]  # by VLAN, 0 without a tag, and MAC: the port


def learned(text: str) -> Learned:
    """The table of `fdb/show` (ovs-vswitchd(8))."""
    rows = (line.split() for line in text.splitlines()[1:])
    return {(int(row[1]), row[2]): row[0] for row in rows if len(row) >= 3 and row[1].isdigit()}


def moves(text: str) -> int | None:
    """How often a MAC came by another port than before, of `fdb/stats-show`; None of a version that does not count it."""
    found = MOVED.search(text)
    return int(found[1]) if found is not None else None


def outside(table: Learned, own: Mapping[tuple[int, str], str], patch: int) -> set[tuple[int, str, str]]:
    """The VIFs, with VLAN and MAC, whose MAC was heard elsewhere than behind the patch. own: VIFs by VLAN and MAC."""
    return {(*key, vif) for key, vif in own.items() if key in table and table[key] != str(patch)}


def flapping(tables: Iterable[Learned]) -> set[tuple[int, str]]:
    """What has been at several ports, by tables that were read right after each other."""
    ports: dict[tuple[int, str], set[str]] = {}
    for table in tables:
        for key, port in table.items():
            ports.setdefault(key, set()).add(port)
    return {key for key, at in ports.items() if len(at) > 1}
