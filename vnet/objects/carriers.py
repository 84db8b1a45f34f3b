"""Network types and their carriers: how frames of each type travel between hosts, declared once per type.

One rule: code asks a type's carrier and never which type it is. A new tunnel type is a name in NetworkType and a carrier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address

FIRST_KEY = 5001  # smaller keys are left to administrators, who choose small ones
MAX_VNI = 2**24 - 1  # RFC 7348 §5, RFC 8926 §3.4
MAX_GRE_KEY = 2**32 - 1  # RFC 2890 §2
IPV6_MORE_BYTES = 20  # an IPv6 header has 40 bytes (RFC 8200 §3), an IPv4 header 20


class Way(Enum):
    """The way by which frames leave a VIF's host."""

    NONE = "none"  # they never do
    UPLINK = "uplink"  # to the physical network, which forwards them
    TUNNEL = "tunnel"  # straight to each host that has members, inside packets of the underlay


@dataclass(frozen=True, slots=True, eq=False)
class Encapsulation:
    """A tunnel protocol. Networks of several types may use it: they share its tunnel port and its keys.

    device: the name of its port on br-int. interface: the port's type in Open vSwitch. options: the port's options besides
    the key and the remote address, which flows set. overhead_bytes: of the underlay's MTU, over IPv4: the outer IP header,
    the encapsulation with its key, and the inner Ethernet header. keys: the valid keys. kernel_ipv6: what is in its place where the kernel's
    datapath has a port of another type for IPv6.
    """

    name: str
    device: str
    interface: str
    overhead_bytes: int
    keys: range
    options: tuple[tuple[str, str], ...] = ()
    kernel_ipv6: Encapsulation | None = None

    @property
    def max_key(self) -> int:
        return self.keys[-1]

    def overhead(self, vtep: str | None) -> int:
        """The bytes of the underlay's MTU that it takes, by the family of the VTEP address; None counts as IPv4."""
        ipv6 = vtep is not None and ip_address(vtep).version == 6
        return self.overhead_bytes + (IPV6_MORE_BYTES if ipv6 else 0)


@dataclass(frozen=True, slots=True, eq=False)
class Carrier:
    """The carrier of networks of one type.

    encapsulation: of tunnels between hosts; on a VLAN network only frames for a VIF that is moving take them (the relay).
    key_word: the key's name in documents, plans and listings. new_keys: the keys to allocate, in order.
    fields: the fields that networks of this type need and others must not have.
    """

    way: Way
    encapsulation: Encapsulation | None = None
    key_word: str = ""
    new_keys: range = range(0)
    fields: frozenset[str] = frozenset()

    @property
    def document_key(self) -> str | None:
        """The key's name in a document; None where there is no key, or where it is always allocated."""
        return self.key_word if self.way is Way.TUNNEL else None


# UDP 8 + VXLAN 8 (RFC 7348 §5), GRE with a key 8 (RFC 2890 §2), UDP 8 + Geneve without options 8 (RFC 8926 §3.4).
VXLAN = Encapsulation("vxlan", "vnet-vxlan", "vxlan", 20 + 16 + 14, range(1, MAX_VNI + 1))
# The kernel's GRE devices are of one family each (ip_gre, ip6_gre). Open vSwitch's userspace datapath takes both by type `gre`, and gives all GRE that
# comes in to the first port of either type (lib/tnl-ports.c).
GRE6 = Encapsulation("gre", "vnet-gre6", "ip6gre", 20 + 8 + 14, range(MAX_GRE_KEY + 1))
GRE = replace(GRE6, device="vnet-gre", interface="gre", kernel_ipv6=GRE6)
GENEVE = Encapsulation("geneve", "vnet-geneve", "geneve", 20 + 16 + 14, range(1, MAX_VNI + 1))


class NetworkType(Enum):
    """The carrier of a network's frames between hosts; the value is the type's name everywhere."""

    INTERNAL = "internal"
    VLAN = "vlan"
    VXLAN = "vxlan"
    GRE = "gre"
    GENEVE = "geneve"

    @property
    def carrier(self) -> Carrier:
        return CARRIERS[self]


def _tunnel(encapsulation: Encapsulation, key_word: str) -> Carrier:
    return Carrier(Way.TUNNEL, encapsulation, key_word, range(FIRST_KEY, encapsulation.max_key + 1))


CARRIERS = {
    NetworkType.INTERNAL: Carrier(Way.NONE),
    # Keys of relays are allocated from the far end of Geneve's, where no administrator looks for one.
    NetworkType.VLAN: Carrier(Way.UPLINK, GENEVE, "relay-vni", GENEVE.keys[::-1], frozenset({"tag", "uplink"})),
    NetworkType.VXLAN: _tunnel(VXLAN, "vni"),
    NetworkType.GRE: _tunnel(GRE, "key"),
    NetworkType.GENEVE: _tunnel(GENEVE, "vni"),
}

TUNNEL_TYPES = tuple(t.value for t in NetworkType if t.carrier.way is Way.TUNNEL)
ENCAPSULATIONS = tuple(c.encapsulation for c in CARRIERS.values() if c.way is Way.TUNNEL and c.encapsulation)
ENCAPSULATION_OF_DEVICE = {
    it.device: it
    for encapsulation in ENCAPSULATIONS
    for it in (encapsulation, encapsulation.kernel_ipv6)
    if it is not None
}
# By device, what the pool calls it: only hosts have a port for each family of addresses.
INSTEAD_OF = {it.kernel_ipv6.device: it.device for it in ENCAPSULATIONS if it.kernel_ipv6 is not None}


def types_with(field: str) -> tuple[str, ...]:
    """The names of the types whose networks have a field of the document: `tag`, `uplink`, or the key by its name there."""
    return tuple(t.value for t in NetworkType if field in t.carrier.fields or field == t.carrier.document_key)
