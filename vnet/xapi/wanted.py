"""What vnet is to have for a XenServer pool: pure, from the records of xapi.

One rule: a VM's objects are named by their uuid, which ports carry; its label is for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from vnet.objects.labels import is_label
from vnet.objects.limits import MAX_LABELS
from vnet.objects.words import title_of
from vnet.xapi.inventory import Inventory
from vnet.xapi.records import NULL, XenVm


@dataclass(frozen=True, slots=True)
class WantedVif:
    """A VIF of xapi as vnet is to have it. addresses: those that its locking mode allows. rate: kibibytes a second from the VM."""

    id: str
    network: str
    index: int
    mac: str
    locking_mode: str
    addresses: tuple[str, ...]
    trunk: tuple[int, ...]
    groups: tuple[str, ...]
    rate: int | None

    @property
    def qos(self) -> str | None:
        """The QoS class that it is in."""
        return qos_name(self.rate) if self.rate is not None else None


@dataclass(frozen=True, slots=True)
class WantedVm:
    """labels: its tags. host: where it runs or is about to start, None for nowhere. destination: where it is migrating to. live: whether it has a domain."""

    name: str
    title: str | None
    labels: dict[str, str]
    host: str | None
    destination: str | None
    live: bool
    vifs: tuple[WantedVif, ...]


def qos_name(rate: int) -> str:
    return f"xapi-{rate}kib"


def wanted_vm(inventory: Inventory, ref: str, pool: str, known: Set[str] = frozenset()) -> WantedVm | None:
    """A VM as vnet is to have it, with its VIFs on published networks; None if it has none of those, or is no VM that runs. known: its VIFs that vnet has, which of a
    network that is being taken over are all that it is to have."""
    vm = inventory.vms[ref]
    found = tuple(_vifs(inventory, ref, pool, known)) if vm.is_followed else ()
    if not found:
        return None
    host, destination = _places(inventory, vm)
    return WantedVm(vm.uuid, title_of(vm.name_label), labels_of(vm.tags), host, destination, vm.live, found)


def labels_of(tags: Iterable[str]) -> dict[str, str]:
    """Tags of xapi as labels, the first 16 in order: `app=shop` as it stands, `web` as web=true. No label is a tag with other characters, and of several values
    of one key none is."""
    pairs = sorted({tag if "=" in tag else f"{tag}=true" for tag in tags})
    keys = Counter(pair.partition("=")[0] for pair in pairs)
    found = [pair.partition("=") for pair in pairs if is_label(pair)]
    return {key: value for key, _, value in [one for one in found if keys[one[0]] == 1][:MAX_LABELS]}


def _places(inventory: Inventory, vm: XenVm) -> tuple[str | None, str | None]:
    """Where a VM is, and where it goes. Of one that starts xapi says only where it is about to be."""
    here, there = (
        _host(inventory, ref) for ref in (vm.resident_on if vm.live else NULL, vm.scheduled_to_be_resident_on)
    )
    if here is None:
        return there, None
    return here, there if there != here else None


def _host(inventory: Inventory, ref: str) -> str | None:
    known = inventory.hosts.get(ref)
    return known.name if known is not None else None


def _vifs(inventory: Inventory, vm: str, pool: str, known: Set[str]) -> Iterator[WantedVif]:
    for vif in inventory.vifs_of(vm):
        network = inventory.networks.get(vif.network)
        name = network.published_from(pool) if network is not None else ""
        if network is None or not name or (network.is_going and vif.uuid not in known):
            continue
        stated = vif.locking_mode if vif.locking_mode != "network_default" else network.default_locking_mode
        addresses = (*vif.ipv4_allowed, *vif.ipv6_allowed) if stated == "locked" else ()
        rate = int(vif.rate) if vif.rate else None
        yield WantedVif(
            vif.uuid, name, vif.device, vif.mac.lower(), stated, addresses, tuple(sorted(vif.trunks)), vif.groups, rate
        )
