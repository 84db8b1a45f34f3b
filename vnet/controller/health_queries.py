"""Having hosts look at the network between them, all at once. One rule: a host that does not answer is an answer too, never an error."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec

from vnet.controller.vif_status import host_problem
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.health import HealthQuery, HostHealth, decode_health
from vnet.db.probes import MAX_ASKED
from vnet.db.view import PoolView

MOST_VLANS = 300  # of one uplink: more take longer than anybody waits


def vlans_in_use(view: PoolView) -> dict[str, dict[int, int]]:
    """The VLANs of the pool's networks, by uplink and tag, 0 for untagged frames, with the largest MTU. Of service tags none: hellos have the other sort."""
    found: dict[str, dict[int, int]] = {}
    for _, network in sorted(view.state.networks.items()):
        if network.uplink is not None and not network.is_service:
            mtus = found.setdefault(network.uplink, {})
            if len(mtus) < MOST_VLANS or (network.tag or 0) in mtus:
                mtus[network.tag or 0] = max(network.mtu, mtus.get(network.tag or 0, 0))
    return found


async def ask_hosts(database: PoolDatabase, view: PoolView, wait_s: float) -> dict[str, HostHealth]:
    """What hosts find now, by host. Raises PoolError."""
    missing = {it: reason.text for it in sorted(view.state.hosts) if (reason := host_problem(view, it)) is not None}
    vlans = msgspec.json.encode(vlans_in_use(view)).decode()
    queries = [HealthQuery(str(uuid4()), host, now_ms(), vlans) for host in sorted(view.state.hosts.keys() - missing)]
    parts = [queries[start : start + MAX_ASKED] for start in range(0, len(queries), MAX_ASKED)]
    found = await asyncio.gather(*(database.ask(part, wait_s) for part in parts))
    texts = [text for part in found for text in part]
    late = "the agent of host {} did not answer within {:g} s"
    answers = {
        query.host: decode_health(text) if text else HostHealth(problem=late.format(query.host, wait_s))
        for query, text in zip(queries, texts, strict=True)
    }
    return answers | {host: HostHealth(problem=text) for host, text in missing.items()}
