"""A running XenServer pool as a topology document: its hosts, bridges, bonds, VLANs, tunnels, VMs and VIFs. Pure, from the records of xapi.

One rule: what vnet cannot say as it is, is left out and told in a comment. The document is read again before it is handed out, so one that is printed
can be applied.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from vnet.objects import NetworkType, PoolState, Way
from vnet.objects.limits import NAME
from vnet.objects.words import title_of
from vnet.plan.export import export_document
from vnet.topology import API_VERSION, desired_state, load
from vnet.util.printable import on_one_line
from vnet.xapi.records import NULL, UnreadableRecord, XenHost, XenNetwork, XenVif, XenVm, read_as
from vnet.xapi.wanted import labels_of, qos_name

Records = Mapping[str, Mapping[str, Any]]  # by class in lower case, then by reference
S = TypeVar("S", bound=msgspec.Struct)
CLASSES = ("host", "network", "PIF", "tunnel", "VM", "VIF")
VNI = "xo:sdn-controller:vni"  # of a network's other_config, by Xen Orchestra's controller
OF_XAPI = ("is_guest_installer_network", "is_host_internal_management_network")  # other_config of its own network


class XenPif(msgspec.Struct, frozen=True):
    """What joins a host to a network: a NIC, a bond, a VLAN of one of them, or a tunnel's end. VLAN: its tag, -1 for none."""

    network: str
    host: str
    device: str = ""
    vlan: int = msgspec.field(name="VLAN", default=-1)
    management: bool = False
    address: str = msgspec.field(name="IP", default="")
    bond_slave_of: str = NULL
    tunnels: tuple[str, ...] = msgspec.field(name="tunnel_access_PIF_of", default=())

    @property
    def is_slave(self) -> bool:
        return self.bond_slave_of not in ("", NULL)


class XenTunnel(msgspec.Struct, frozen=True):
    """protocol: gre or vxlan; hosts before 8.2 do not say, and have gre."""

    access: str = msgspec.field(name="access_PIF")
    protocol: str = "gre"


@dataclass(slots=True)
class _Pool:
    """The records as values, and what is left out of them, with the reason."""

    hosts: dict[str, XenHost]
    networks: dict[str, XenNetwork]
    pifs: dict[str, XenPif]
    tunnels: dict[str, XenTunnel]
    vms: dict[str, XenVm]
    vifs: dict[str, XenVif]
    keeps_tunnels: bool = False  # of Xen Orchestra's controller, whose bridges are uplinks then
    left_out: list[str] = field(default_factory=list)

    def pifs_of(self, network: str) -> list[XenPif]:
        return [pif for pif in self.pifs.values() if pif.network == network]


def import_document(
    records: Mapping[str, Records | Mapping[str, Any]], name: str, vms: bool = True, *, keep_tunnels: bool = False
) -> str:
    """The document of a pool, named `name`; without `vms` its hosts and networks only. keep_tunnels: networks of Xen Orchestra's tunnels are on their bridges, and
    not tunnels of vnet's. Raises TopologyErrors where they contradict each other."""
    pool = _read(records)
    pool.keeps_tunnels = keep_tunnels
    names = _names(pool)
    networks, uplinks = _networks(pool, names)
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "pool": name,
        "hosts": {host.name: _host(pool, ref, uplinks) for ref, host in pool.hosts.items()},
        "underlay": {"mtu": _underlay(pool)},
        "networks": networks,
    }
    if vms:
        known = {ref: names[ref] for ref in pool.networks if names.get(ref) in networks}
        document |= _vms(pool, known)
    state = desired_state(load(json.dumps(document).encode(), "the imported pool"), PoolState())
    comments = [f"# {line}" for line in (*_labels(pool, names, networks), *(f"Left out: {text}." for text in sorted(pool.left_out)))]  # fmt: skip
    return "\n".join((*comments, export_document(state)))


def carried(records: Mapping[str, Any], ref: str) -> dict[str, Any]:
    """How the frames of one network travel, in the document's words; empty where vnet cannot say it."""
    pool = _read(records)
    words: dict[str, Any] = {}
    reason = _carried(pool, pool.networks[ref], [pif for pif in pool.pifs_of(ref) if not pif.is_slave], words)
    return {} if reason else words


def is_tunnel(records: Mapping[str, Any], ref: str) -> bool:
    """Whether a network is one of tunnels, as Xen Orchestra's controller makes."""
    return any(pif.tunnels for pif in _read(records).pifs_of(ref))


def _read(records: Mapping[str, Any]) -> _Pool:
    pool = _Pool({}, {}, {}, {}, {}, {})
    pool.hosts = _table(records, "host", XenHost, pool)
    pool.networks = _table(records, "network", XenNetwork, pool)
    pool.pifs = _table(records, "pif", XenPif, pool)
    pool.tunnels = _table(records, "tunnel", XenTunnel, pool)
    pool.vms = _table(records, "vm", XenVm, pool)
    pool.vifs = _table(records, "vif", XenVif, pool)
    return pool


def _table(records: Mapping[str, Any], table: str, struct: type[S], pool: _Pool) -> dict[str, S]:
    found: dict[str, S] = {}
    for ref, record in sorted(records.get(table, {}).items(), key=lambda item: str(item[1].get("uuid"))):
        try:
            found[ref] = read_as(struct, record)
        except UnreadableRecord as error:
            pool.left_out.append(
                f"{table} {on_one_line(str(record.get('uuid')))}, whose record cannot be read: {error}"
            )
    return found


def _host(pool: _Pool, ref: str, uplinks: Iterable[str]) -> dict[str, Any]:
    """address: that of its management interface, which tunnels use."""
    bridges = {pool.networks[pif.network].bridge for pif in pool.pifs.values()
               if pif.host == ref and pif.network in pool.networks and pif.vlan < 0 and not (pif.tunnels and not pool.keeps_tunnels) and not pif.is_slave}  # fmt: skip
    address = next((pif.address for pif in pool.pifs.values() if pif.host == ref and pif.management), "")
    used = {bridge: {"bridge": bridge} for bridge in sorted(bridges & set(uplinks))}
    return {"address": address or pool.hosts[ref].address, **({"uplinks": used} if used else {})}


def _underlay(pool: _Pool) -> int:
    """The MTU of the network between the management interfaces, in bytes."""
    found = [
        pool.networks[pif.network].mtu for pif in pool.pifs.values() if pif.management and pif.network in pool.networks
    ]
    return min(found, default=1500)


def _names(pool: _Pool) -> dict[str, str]:
    """Networks' names in vnet by reference, from their labels; of several of one label each has the beginning of its uuid too."""
    stems = {ref: _word(network.name_label) for ref, network in pool.networks.items()}
    count: dict[str, int] = defaultdict(int)
    for stem in stems.values():
        count[stem] += 1
    return {
        ref: stem if stem and count[stem] == 1 else "-".join(filter(None, (stem or "network", pool.networks[ref].uuid[:8])))
        for ref, stem in stems.items()
    }  # fmt: skip


def _word(label: str) -> str:
    word = re.sub(r"[^a-z0-9.]+", "-", label.lower())[:50].strip("-.")
    return word if NAME.fullmatch(word) else ""


def _networks(pool: _Pool, names: Mapping[str, str]) -> tuple[dict[str, Any], set[str]]:
    """The networks in the document's words by name, and the bridges that carry them."""
    found: dict[str, Any] = {}
    uplinks: set[str] = set()
    underlay = _underlay(pool)
    for ref, network in pool.networks.items():
        reason = ""
        words: dict[str, Any] = {}
        pifs = pool.pifs_of(ref)
        if any(network.other_config.get(key) == "true" for key in OF_XAPI):
            reason = "it is xapi's own"
        elif "vnet-network" in network.other_config and not network.managed:
            reason = "it is published from vnet"
        elif pifs and all(pif.is_slave for pif in pifs):
            reason = "its NICs are a bond's"
        else:
            reason = _carried(pool, network, [pif for pif in pifs if not pif.is_slave], words)
        if reason:
            pool.left_out.append(f"network {_quoted(network)}: {reason}")
            continue
        if network.mtu <= (room := underlay - _overhead(pool, words["type"])):
            words["mtu"] = network.mtu
        else:
            pool.left_out.append(
                f"mtu {network.mtu} of network {_quoted(network)}: it is {room}, what fits into the underlay's {underlay}"
            )
        if "uplink" in words:
            uplinks.add(words["uplink"])
        found[names[ref]] = words
    return found, uplinks


def _overhead(pool: _Pool, network_type: str) -> int:
    """The bytes of the underlay's MTU that a network's frames take, between the hosts' management addresses."""
    carrier = NetworkType(network_type).carrier
    if carrier.way is not Way.TUNNEL or carrier.encapsulation is None:
        return 0
    return carrier.encapsulation.overhead("::" if any(":" in host.address for host in pool.hosts.values()) else None)


def _carried(pool: _Pool, network: XenNetwork, pifs: list[XenPif], words: dict[str, Any]) -> str:
    """How a network's frames travel, into `words`; or the reason why vnet cannot say it."""
    if not pifs:
        words["type"] = "internal"
        return ""
    hosts = sorted({pool.hosts[pif.host].name for pif in pifs if pif.host in pool.hosts})
    if len(hosts) < len(pool.hosts):
        words["hosts"] = hosts
    if any(pif.tunnels for pif in pifs) and pool.keeps_tunnels:
        words |= {"type": "vlan", "tag": "untagged", "uplink": network.bridge}
        return ""
    if any(pif.tunnels for pif in pifs):
        protocols = {pool.tunnels[ref].protocol for pif in pifs for ref in pif.tunnels if ref in pool.tunnels}
        key = network.other_config.get(VNI, "")
        if len(protocols) != 1 or not protocols <= {"gre", "vxlan"} or not key.isdecimal():
            return f"its tunnels are of {' and '.join(sorted(protocols)) or 'no protocol'}, with key {key or 'unknown'}"
        if network.other_config.get("xo:sdn-controller:encrypted") == "true":
            return "its tunnels are encrypted by IPsec"
        (words["type"],) = protocols
        words["vni" if words["type"] == "vxlan" else "key"] = int(key)
        return ""
    tags = {pif.vlan for pif in pifs}
    bridges = {_bridge_below(pool, pif) for pif in pifs}
    if len(tags) != 1 or len(bridges) != 1 or "" in bridges:
        return "it is another VLAN, or of other NICs, on some hosts than on others"
    (tag,), (bridge,) = tags, bridges
    words |= {"type": "vlan", "tag": tag if tag > 0 else "untagged", "uplink": bridge}
    return ""


def _bridge_below(pool: _Pool, pif: XenPif) -> str:
    """The bridge that has a PIF's NIC or bond: its own network's, or of a VLAN that of the PIF without a tag on the same device."""
    if pif.vlan < 0:
        return pool.networks[pif.network].bridge
    below = [
        pool.networks[other.network].bridge for other in pool.pifs.values()
        if other.host == pif.host and other.device == pif.device and other.vlan < 0 and not other.tunnels and other.network in pool.networks
    ]  # fmt: skip
    return below[0] if len(below) == 1 else ""


def _vms(pool: _Pool, networks: Mapping[str, str]) -> dict[str, Any]:
    of_vm: dict[str, list[XenVif]] = defaultdict(list)
    for vif in pool.vifs.values():
        if vif.network in networks:
            of_vm[vif.vm].append(vif)
    rates = sorted({int(vif.rate) for vifs in of_vm.values() for vif in vifs if vif.rate})
    vms = {
        vm.uuid: _vm(pool, vm, of_vm[ref], networks)
        for ref, vm in pool.vms.items()
        if vm.is_followed and of_vm[ref]
    }  # fmt: skip
    return (
        {"qos": {qos_name(rate): {"from-vm": f"{rate}kib/s"} for rate in rates}, "vms": vms} if rates else {"vms": vms}
    )


def _vm(pool: _Pool, vm: XenVm, vifs: list[XenVif], networks: Mapping[str, str]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    if (title := title_of(vm.name_label)) is not None:
        words["title"] = title
    if labels := labels_of(vm.tags):
        words["labels"] = labels
    if vm.live and vm.resident_on in pool.hosts:
        words["host"] = pool.hosts[vm.resident_on].name
    words["vifs"] = [_vif(pool, vif, networks[vif.network]) for vif in sorted(vifs, key=lambda vif: vif.device)]
    return words


def _vif(pool: _Pool, vif: XenVif, network: str) -> dict[str, Any]:
    mode = (
        vif.locking_mode if vif.locking_mode != "network_default" else pool.networks[vif.network].default_locking_mode
    )
    words: dict[str, Any] = {
        "id": vif.uuid,
        "network": network,
        "mac": vif.mac.lower(),
        "locking-mode": mode,
    }
    if mode == "locked":
        words["addresses"] = [*vif.ipv4_allowed, *vif.ipv6_allowed]
    if vif.trunks:
        words["trunk"] = sorted(vif.trunks)
    if vif.rate:
        words["qos"] = qos_name(int(vif.rate))
    if vif.groups:
        pool.left_out.append(
            f"security groups {', '.join(vif.groups)} of VIF {vif.uuid}, which xapi names and does not have"
        )
    return words


def _labels(pool: _Pool, names: Mapping[str, str], networks: Mapping[str, Any]) -> Iterator[str]:
    for ref, network in pool.networks.items():
        if names[ref] in networks:
            yield f"network {names[ref]}: {_quoted(network)}, bridge {network.bridge}"


def _quoted(network: XenNetwork) -> str:
    return f"'{on_one_line(network.name_label)}' ({network.uuid})"
