"""The specification of a lab: hosts, networks, guests and a driver. Stored beside the lab, so that any process can join it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

import msgspec

from vnet.lab.errors import LabError, NoSuchLab, NotInLab
from vnet.lab.names import (
    base_dir,
    host_netns,
    lab_dir,
    underlay_netns,
    vif_device,
    vm_netns,
    vtep_prefix,
    wireguard_netns,
)
from vnet.objects import AddressSet, Host, Network, PoolState, SecurityGroup, Subnet, Vif

SPEC_FILE = "lab.json"
DEFAULT_UNDERLAY_MTU = 1500
DATAPATH_TYPE = "VNET_LAB_DATAPATH_TYPE"  # environment variable: of the hosts of labs in namespaces
MAX_FILE_BYTES = 64 * 1024 * 1024
T = TypeVar("T", Host, "Guest", Network)


class Driver(Enum):
    NETNS = "netns"  # network namespaces; root
    DUMMY = "dummy"  # ovs-vswitchd's dummy datapath; any user


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM of the lab: its VIFs in order, and the host that a start without a host takes."""

    name: str
    host: str | None
    vifs: tuple[Vif, ...]


@dataclass(frozen=True, slots=True)
class Spec:
    """A lab as it was asked for. `owner` is the process that called `up`, with its start time in clock ticks."""

    name: str
    driver: Driver
    underlay_mtu: int
    hosts: tuple[Host, ...]
    networks: tuple[Network, ...]
    subnets: tuple[Subnet, ...]
    guests: tuple[Guest, ...]
    groups: tuple[SecurityGroup, ...] = ()
    address_sets: tuple[AddressSet, ...] = ()
    daemons: bool = False
    document: str | None = None
    owner: tuple[int, int] = (0, 0)
    datapath_type: str = "netdev"  # of the hosts' bridges

    @classmethod
    def of(cls, pool: PoolState, name: str, driver: Driver) -> Spec:
        """The lab for a pool: its hosts and every VM's VIFs."""
        in_namespaces = os.environ.get(DATAPATH_TYPE, "netdev")
        vms = [*pool.vms, *(vif.vm for vif in pool.vifs.values() if vif.vm is not None and vif.vm not in pool.vms)]
        return cls(
            name=name,
            driver=driver,
            underlay_mtu=pool.pool.underlay_mtu if pool.pool else DEFAULT_UNDERLAY_MTU,
            hosts=tuple(pool.hosts[key] for key in sorted(pool.hosts)),
            networks=tuple(pool.networks.values()),
            subnets=tuple(pool.subnets.values()),
            guests=tuple(_guest(pool, vm) for vm in dict.fromkeys(vms)),
            groups=tuple(pool.groups.values()),
            address_sets=tuple(pool.address_sets.values()),
            datapath_type=in_namespaces if driver is Driver.NETNS else "dummy",
        )

    @property
    def dir(self) -> Path:
        return lab_dir(self.name)

    def host(self, name: str) -> Host:
        return _find("host", name, self.hosts)

    def guest(self, name: str) -> Guest:
        return _find("VM", name, self.guests)

    def network(self, name: str) -> Network:
        return _find("network", name, self.networks)

    def vif(self, vif_id: str) -> tuple[Guest, Vif]:
        """A VIF and its VM, by the VIF's id."""
        for guest in self.guests:
            for vif in guest.vifs:
                if vif.id == vif_id:
                    return guest, vif
        raise NotInLab("VIF", vif_id, [vif.id for guest in self.guests for vif in guest.vifs])

    def device(self, vif: Vif) -> str:
        """The name of the VIF's port on its host."""
        return vif_device(vif.vm or vif.id, vif.index)

    def host_dir(self, host: str) -> Path:
        """The directory of a host. Raises NotInLab."""
        return self.dir / f"h{self.hosts.index(self.host(host))}"

    def prefix(self, version: int) -> int:
        """The VTEPs' prefix length, for IP version 4 or 6."""
        return vtep_prefix([h.address for h in self.hosts if h.address], version)

    def guest_addresses(self, vif: Vif) -> tuple[str, ...]:
        """The VIF's addresses with their prefix lengths: the subnet's, or /24 and /64."""
        nets = [ip_network(subnet.cidr) for subnet in self.subnets if subnet.network == vif.network]
        found = []
        for text in vif.addresses:
            address = ip_address(text)
            net = next((net for net in nets if address in net), None)
            found.append(f"{text}/{net.prefixlen if net else (24 if address.version == 4 else 64)}")
        return tuple(found)

    def namespaces(self) -> list[str]:
        """Every network namespace of the lab; none for the dummy driver."""
        if self.driver is Driver.DUMMY:
            return []
        hosts = [host_netns(self.name, host.name) for host in self.hosts]
        if self.encrypted:
            hosts += [wireguard_netns(self.name, host.name) for host in self.hosts]
        return [underlay_netns(self.name), *hosts, *(vm_netns(self.name, guest.name) for guest in self.guests)]

    @property
    def encrypted(self) -> bool:
        """Whether the hosts have WireGuard."""
        return self.daemons and any(network.encryption is not None for network in self.networks)

    def with_host(self, host: Host) -> Spec:
        """With one more host. It comes last, since places and numbers of hosts follow their order."""
        return replace(self, hosts=(*self.hosts, host))

    def with_guest(self, guest: Guest) -> Spec:
        rest = tuple(g for g in self.guests if g.name != guest.name)
        return replace(self, guests=(*rest, guest))

    def without_guest(self, name: str) -> Spec:
        return replace(self, guests=tuple(g for g in self.guests if g.name != name))

    def write(self) -> None:
        """Write it where `read` finds it, whole or not at all."""
        file = self.dir / SPEC_FILE
        fresh = file.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(self))
        os.replace(fresh, file)

    @classmethod
    def read(cls, name: str) -> Spec:
        """The spec of a lab that is up (or half up). Raises NoSuchLab."""
        file = lab_dir(name) / SPEC_FILE
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise LabError(f"{file} is too big to be a lab's")
            return msgspec.json.decode(file.read_bytes(), type=cls)
        except FileNotFoundError:
            raise NoSuchLab(f"no lab {name!r} is up; 'vnet lab list' shows those that are") from None
        except msgspec.MsgspecError as error:
            raise LabError(f"{file} is damaged ({error}); 'vnet lab down --all' removes it") from error


def _guest(pool: PoolState, vm: str) -> Guest:
    vifs = sorted((vif for vif in pool.vifs.values() if vif.vm == vm), key=lambda vif: vif.index)
    host = pool.vms[vm].host if vm in pool.vms else None
    return Guest(vm, host or next((vif.host for vif in vifs if vif.host), None), tuple(vifs))


def _find(noun: str, name: str, among: tuple[T, ...]) -> T:
    for one in among:
        if one.name == name:
            return one
    raise NotInLab(noun, name, [item.name for item in among])


def labs() -> list[str]:
    """The names of this user's labs that are up or half up."""
    names = []
    for directory in sorted(base_dir().glob("*/")):
        try:
            names.append(msgspec.json.decode((directory / SPEC_FILE).read_bytes(), type=Spec).name)
        except (OSError, msgspec.MsgspecError):
            names.append(directory.name)
    return names
