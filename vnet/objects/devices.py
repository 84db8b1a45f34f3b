"""The names of a host's bridges and ports in Open vSwitch. One rule: a name follows from the uplink's alone."""

from __future__ import annotations

from vnet.objects.carriers import ENCAPSULATION_OF_DEVICE
from vnet.objects.limits import DEVICE_NAME_MAX

# The bridge that encrypted tunnels end on, and its port towards WireGuard.
ENCRYPTION_BRIDGE, WIREGUARD_LINK = "vnet-encrypted", "vnet-wireguard"
# Of every host: loopback, Open vSwitch's own devices, br-int and the tunnel ports on it.
RESERVED_DEVICES = frozenset(
    {"lo", "ovs-system", "ovs-netdev", "br-int", ENCRYPTION_BRIDGE, WIREGUARD_LINK, *ENCAPSULATION_OF_DEVICE}
)


# Of uplinks' bridges and ports, the functions below; and of mirrors (mirror.py).
OUR_PREFIXES = ("br-", "int-", "phy-", "bond-", "mirror-")


def uplink_bridge(uplink: str) -> str:
    return f"br-{uplink}"


def patch_device(uplink: str) -> str:
    """br-int's end of the patch to an uplink's bridge."""
    return f"int-{uplink}"


def uplink_patch(uplink: str) -> str:
    """The uplink bridge's end of the patch to br-int."""
    return f"phy-{uplink}"


def bond_device(uplink: str) -> str:
    """The port of a bond on its uplink's bridge."""
    return f"bond-{uplink}"[:DEVICE_NAME_MAX]


def devices_of(uplink: str, *, bond: bool, bridge: bool) -> tuple[str, ...]:
    """All names that an uplink takes on its host; `bridge`: whether its bridge is one of ours."""
    names = (patch_device(uplink), uplink_patch(uplink))
    return (*names, *((uplink_bridge(uplink),) if bridge else ()), *((bond_device(uplink),) if bond else ()))
