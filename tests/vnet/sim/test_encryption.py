"""Encrypted networks on the twin, and what the rules make of them: frames travel as ever, by WireGuard, and take more of the MTU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from vnet.objects import Encryption, PoolState
from vnet.objects.encryption import PLANES, inner_address
from vnet.plan.export import export_document
from vnet.sim import SimPool
from vnet.topology import TopologyErrors, desired_state, load

TEXT = """
apiVersion: vnet/v1
pool: secret
hosts: {{xen1: {{address: "{vtep}1"}}, xen2: {{address: "{vtep}2"}}}}
underlay: {{mtu: {mtu}{pool}}}
networks:
  a: {{type: {type}{network}}}
  b: {{type: vxlan}}
vms: {{web: {{host: xen1, vifs: [{{network: a}}]}}, db: {{host: xen2, vifs: [{{network: a}}]}}}}
"""
REQUIRED = ", encryption: required"


def pool(
    vtep: str = "10.99.0.", mtu: int = 1500, type: str = "vxlan", network: str = REQUIRED, pool: str = ""
) -> PoolState:
    text = TEXT.format(vtep=vtep, mtu=mtu, type=type, network=network, pool=pool)
    return desired_state(load(text.encode(), "t.vnet.yaml"), PoolState())


@pytest.mark.parametrize("vtep", ["10.99.0.", "fd00:9::"], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("type", ["vxlan", "gre", "geneve"])
def test_mtu_of_an_encrypted_network_is_what_fits(vtep: str, type: str) -> None:
    state = pool(vtep=vtep, type=type)
    tunnel = {"vxlan": 70, "geneve": 70, "gre": 62}[type]
    wireguard = 80 if ":" in vtep else 60
    assert state.networks["a"].mtu == 1500 - tunnel - wireguard
    twin = SimPool.of(state)
    web, db = (state.vifs[f"{vm}/0"] for vm in ("web", "db"))

    header = Ether(src=web.mac, dst=db.mac) / UDP()
    full = bytes(header / (b"x" * (state.networks["a"].mtu + 14 - len(header))))
    (delivery,) = twin.send("web/0", full).items
    assert (delivery.to, delivery.frame) == ("db/0", full)
    assert delivery.path == ("web/0", f"xen1 vnet-{type}", f"xen2 vnet-{type} (encrypted)", "db/0")
    over = replace(state, networks={**state.networks, "a": replace(state.networks["a"], mtu=1501)})
    assert SimPool.of(over).send("web/0", full + b"x").to == []


def test_what_a_pool_requires_holds_for_each_of_its_tunnel_networks() -> None:
    state = pool(network="", pool=REQUIRED)
    assert {name: net.encryption for name, net in state.networks.items()} == dict.fromkeys("ab", Encryption.REQUIRED)
    again = desired_state(load(export_document(state).encode(), "t.vnet.yaml"), PoolState())
    assert (again.pool, again.networks) == (state.pool, state.networks)
    plain = desired_state(
        load(TEXT.format(vtep="10.99.0.", mtu=1500, type="vxlan", network="", pool="").encode(), "t.vnet.yaml"), state
    )
    assert {net.encryption for net in plain.networks.values()} == {None}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mtu": 1320}, "underlay.mtu 1320 is too small for encrypted tunnels, as network a's"),
        ({"network": ", encryption: preferred"}, "nothing is encrypted only sometimes"),
        ({"type": "internal"}, "internal networks have no 'encryption'"),
        ({"network": f"{REQUIRED}, mtu: 1400"}, "1500 (underlay) - 70 (vxlan over IPv6) - 60 (WireGuard over IPv4) = 1370"),
    ],
    ids=["small underlay", "preferred", "no tunnel", "MTU over the sum"],
)  # fmt: skip
def test_what_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyErrors) as caught:
        pool(**more)
    assert message in str(caught.value)


def test_an_address_inside_wireguard_follows_from_pool_host_and_plane() -> None:
    addresses = {inner_address(id, host, plane) for id in ("p", "q") for host in ("xen1", "xen2") for plane in PLANES}
    assert len(addresses) == 8
    assert all(address.startswith("fd") for address in addresses)
