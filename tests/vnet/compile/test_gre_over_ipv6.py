"""GRE over IPv6: a port of its own where the kernel's datapath forwards, the port of all GRE where Open vSwitch does."""

from __future__ import annotations

import pytest

from vnet.compile import HostView, Switch, ovs_rows
from vnet.compile.inputs import HostInputs
from vnet.objects import Encryption, Host, Network, NetworkType

IPV4, IPV6 = "10.99.0.1", "fd00::1"
PLAIN, SECRET = (
    Network("plain", NetworkType.GRE, mtu=1400, key=5001, number=1),
    Network("secret", NetworkType.GRE, mtu=1400, key=5002, number=2, encryption=Encryption.REQUIRED),
)


def ports(switch: Switch, address: str, *networks: Network) -> tuple[dict[str, str], dict[str, int | None]]:
    """(the types of tunnel ports, the ofport by which each network's frames leave) of a host."""
    inputs = HostInputs("xen1", kernel=switch.is_kernel)
    for network in networks:
        inputs.set_network(network)
    inputs.set_device("vnet-gre", 1)
    inputs.set_device("vnet-gre6", 6)
    inputs.set_host(Host("xen1", address))
    view = HostView(inputs)
    bridge = ovs_rows(view, switch).bridges[0]
    types = {port.name: port.interfaces[0].type for port in bridge.ports if port.name != switch.bridge}
    return types, {name: found.tunnel for name, found in inputs.local_networks.items()}


BOTH = {"vnet-gre": "gre", "vnet-gre6": "ip6gre"}


@pytest.mark.parametrize("kernel", ["", "system"])
def test_the_kernels_datapath_has_a_port_for_each_family(kernel: str) -> None:
    switch = Switch(datapath_type=kernel)
    assert ports(switch, IPV4, PLAIN) == ({"vnet-gre": "gre"}, {"plain": 1})
    assert ports(switch, IPV4, SECRET) == ({"vnet-gre6": "ip6gre"}, {"secret": 6})
    assert ports(switch, IPV4, PLAIN, SECRET) == (BOTH, {"plain": 1, "secret": 6})
    assert ports(switch, IPV6, PLAIN) == ({"vnet-gre6": "ip6gre"}, {"plain": 6})


@pytest.mark.parametrize("address", [IPV4, IPV6])
def test_the_userspace_datapath_has_one_port_for_both(address: str) -> None:
    switch = Switch(datapath_type="netdev")
    assert ports(switch, address, PLAIN, SECRET) == ({"vnet-gre": "gre"}, {"plain": 1, "secret": 1})
