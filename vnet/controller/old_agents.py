"""Agents of the first version: they know nothing of encryption, and would send an encrypted network's frames in clear; and they claim a VIF that nobody runs
wherever its port is.

One rule: no network becomes encrypted while one of them runs. Agents of later versions send to hosts that have stated a key, and to no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vnet.api.errors import Conflict
from vnet.db.view import PoolView
from vnet.objects import Network


def first_agents(view: PoolView) -> list[str]:
    """Live hosts with an agent of the first version, 0.1.0 as it was tagged: it states no switch."""
    agents = view.state.agents
    return sorted(host for host in view.live & view.state.hosts.keys() if host in agents and not agents[host].switch)


def problems(view: PoolView) -> Iterator[tuple[str, str]]:
    """Host and text, where a network is encrypted."""
    if any(network.encryption is not None for network in view.state.networks.values()):
        for host in first_agents(view):
            yield (
                host,
                f"host {host}: its agent is of a version that sends frames of encrypted networks in clear: upgrade it, or stop it",
            )


def check_encryption(view: PoolView, networks: Iterable[Network]) -> None:
    """Raises Conflict where one of these networks becomes encrypted beside such an agent."""
    for network in networks:
        before = view.state.networks.get(network.name)
        if network.encryption is None or (before is not None and before.encryption is not None):
            continue
        if hosts := first_agents(view):
            text = f"network {network.name} cannot be encrypted yet: agents of an older version would send its frames in clear; upgrade host {', '.join(hosts)}"
            raise Conflict("agent-too-old", text, network.name)
