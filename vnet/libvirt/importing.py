"""The guests that run on hosts of libvirt, as a document: pure, from the pool's own document and the domains.

One rule: what the pool has already stays as it is there, so that nothing but guests that it does not know is new in the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.cyaml import CSafeLoader

from vnet.libvirt.domain import Domain, DomainInterface
from vnet.libvirt.hook import INTEGRATION_BRIDGE
from vnet.plan import export_document
from vnet.topology import load


@dataclass(slots=True)
class ImportedPool:
    """The document in the making, as YAML has it. theirs: names of VIFs, VMs and hosts that the toolstack made, which no document may name.

    left_out: what of the domains is not in it, each with the reason.
    """

    tree: dict[str, Any]
    theirs: Set[str]
    left_out: list[str] = field(default_factory=list)
    known: set[str | None] = field(init=False)  # the VIFs that are in it

    def __post_init__(self) -> None:
        self.known = {vif.get("id") for vm in self.tree.get("vms", {}).values() for vif in vm.get("vifs", ())}

    def add(self, host: str, domain: Domain) -> None:
        """The VIFs of a domain that runs on a host."""
        for interface in domain.interfaces:
            if interface.id in self.known or interface.id in self.theirs:
                continue
            network = self._network(host, interface) if domain.uuid not in self.theirs else None
            if network is None:
                reason = (
                    "its VM is the toolstack's"
                    if domain.uuid in self.theirs
                    else f"bridge {interface.bridge or '-'} says no network"
                )
                self.left_out.append(f"VIF {interface.id} of {domain.title or domain.uuid} on host {host}: {reason}")
                continue
            self.known.add(interface.id)
            title = {"title": domain.title} if domain.title is not None else {}
            vm = self.tree.setdefault("vms", {}).setdefault(domain.uuid, title)
            vif: dict[str, Any] = {"id": interface.id, "network": network, "mac": interface.mac, "addresses": []}
            vm.setdefault("vifs", []).append(vif | ({"trunk": list(interface.trunk)} if interface.trunk else {}))

    def _network(self, host: str, interface: DomainInterface) -> str | None:
        networks = self.tree.get("networks", {})
        if interface.profile in networks:
            return interface.profile
        if interface.bridge in self.tree.get("plug-bridges", {}):
            return str(self.tree["plug-bridges"][interface.bridge]["network"])
        if interface.bridge in ("", INTEGRATION_BRIDGE) or (uplink := self._uplink(host, interface.bridge)) is None:
            return None
        tag = interface.tag if interface.tag is not None else "untagged"
        for name, network in networks.items():
            if (network["type"], network.get("uplink"), network.get("tag")) == ("vlan", uplink, tag):
                if host not in network.get("hosts", [host]):
                    network["hosts"] = sorted([*network["hosts"], host])
                return str(name)
        name = f"{uplink}-{tag}"
        self.tree.setdefault("networks", {})[name] = {"type": "vlan", "uplink": uplink, "tag": tag, "hosts": [host]}
        return name

    def _uplink(self, host: str, bridge: str) -> str | None:
        """The uplink of a host that is this bridge, made if the host has none; None for a host that no document may name."""
        if host in self.theirs:
            return None
        uplinks = self.tree.setdefault("hosts", {}).setdefault(host, {}).setdefault("uplinks", {})
        for name, uplink in uplinks.items():
            if bridge in (uplink.get("bridge"), f"br-{name}"):
                return str(name)
        uplinks[bridge] = {"bridge": bridge}
        return bridge


def imported_document(
    exported: str, running: Mapping[str, Sequence[Domain]], theirs: Set[str]
) -> tuple[str, list[str]]:
    """The pool's document with the guests that run on hosts, by the hosts' names; and what is left out, with the reasons.

    theirs: names of the toolstack's VIFs, VMs and hosts. Raises TopologyErrors where the two do not go together.
    """
    pool = ImportedPool(yaml.load(exported, CSafeLoader), theirs)
    for host in sorted(running):
        for domain in sorted(running[host], key=lambda domain: domain.uuid):
            pool.add(host, domain)
    text = yaml.safe_dump(pool.tree, sort_keys=False)
    return "".join(_comments(pool)) + export_document(load(text.encode(), "imported document").state), pool.left_out


def _comments(pool: ImportedPool) -> Iterator[str]:
    for text in pool.left_out:
        yield f"# Left out: {text}.\n"
