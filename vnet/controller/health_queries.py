"""Having hosts look at the network between them, all at once. One rule: a host that does not answer is an answer too, never an error."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from uuid import uuid4

import msgspec

from vnet.controller.questions import ask
from vnet.controller.vif_status import host_problem
from vnet.db.database import PoolDatabase, now_ms
from vnet.db.health import HealthQuery, HostHealth
from vnet.db.view import PoolView

MOST_VLANS = 300  # of one uplink: more take longer than anybody waits
MOST_GATEWAYS = 300  # that are heard


def vlans_in_use(view: PoolView) -> dict[str, dict[int, int]]:
    """The VLANs of the pool's networks, by uplink and tag, 0 for untagged frames, SERVICE_VLAN added for service tags, with the largest MTU."""
    found: dict[str, dict[int, int]] = {}
    for _, network in sorted(view.state.networks.items()):
        if network.uplink is not None:
            mtus = found.setdefault(network.uplink, {})
            if len(mtus) < MOST_VLANS or network.vlan in mtus:
                mtus[network.vlan] = max(network.mtu, mtus.get(network.vlan, 0))
    return found


def gateways_in_use(view: PoolView, hosts: Iterable[str]) -> dict[str, dict[str, dict[int, list[str]]]]:
    """The gateways of subnets on the physical network, by the host that is to hear who claims them, uplink and VLAN. Of an uplink it is the first of these hosts that has it."""
    listener: dict[str, str] = {}
    for host in sorted(hosts, reverse=True):
        listener |= {uplink.name: host for uplink in view.state.hosts[host].uplinks}
    found: dict[str, dict[str, dict[int, list[str]]]] = {}
    gateways = (
        (network.uplink, network.vlan, subnet.gateway)
        for _, subnet in sorted(view.state.subnets.items())
        if subnet.gateway is not None
        and (network := view.state.networks.get(subnet.network)) is not None
        and network.uplink in listener
    )
    for uplink, vlan, gateway in islice(gateways, MOST_GATEWAYS):
        found.setdefault(listener[uplink], {}).setdefault(uplink, {}).setdefault(vlan, []).append(gateway)
    return found


def _questions(view: PoolView) -> list[HealthQuery]:
    """What to ask all hosts, for all to look at once."""
    alive = [host for host in view.state.hosts if host_problem(view, host) is None]
    vlans, gateways = msgspec.json.encode(vlans_in_use(view)).decode(), gateways_in_use(view, alive)
    return [
        HealthQuery(str(uuid4()), host, now_ms(), vlans, msgspec.json.encode(gateways.get(host, {})).decode())
        for host in sorted(view.state.hosts)
    ]


async def ask_hosts(database: PoolDatabase, view: PoolView, wait_s: float) -> dict[str, HostHealth]:
    """What hosts find now, by host. Raises PoolError."""
    queries = _questions(view)
    replies = await ask(database, view, queries, HostHealth, wait_s)
    return {query.host: reply for query, reply in zip(queries, replies, strict=True)}
