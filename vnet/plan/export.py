"""A pool as a document: what, loaded and planned again, changes nothing. Only what the document made; the toolstack's stays anyway."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from vnet.objects import (
    BondHash,
    Host,
    LacpTime,
    LockingMode,
    Network,
    Owner,
    PoolState,
    Rule,
    SecurityGroup,
    Subnet,
    Uplink,
    Verdict,
    Vif,
    Vm,
    Way,
)
from vnet.plan.render import rule_dict
from vnet.topology import API_VERSION

# Plain text that every YAML reader takes for a string, inside brackets too: no number, boolean, null or sexagesimal.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*|\d{1,3}(\.\d{1,3}){3}(/\d{1,2})?")
_NOT_PLAIN = re.compile(r"(?i)true|false|yes|no|on|off|null|y|n|[.]?(inf|nan)")


T = TypeVar("T", Host, Network, Subnet, SecurityGroup, Vm)


class NothingToExport(ValueError):
    """A database where no document was ever applied: it has no pool to name."""


def export_document(state: PoolState) -> str:
    """The document, with every id that was allocated written out. Raises NothingToExport without a pool.

    Expectations are the document's alone and not in the pool, so they are not here.
    """
    if state.pool is None:
        raise NothingToExport("no document was ever applied to this pool")
    pool = state.pool
    lines = [f"apiVersion: {API_VERSION}", f"pool: {_text(pool.name)}"]
    if pool.locking_mode is not LockingMode.LOCKED:
        lines += ["", f"defaults: {{vif: {{locking-mode: {pool.locking_mode.value}}}}}"]
    lines += ["", f"underlay: {{mtu: {pool.underlay_mtu}}}"]
    lines += _section("hosts", (line for h in _ours(state.hosts.values()) for line in _host(h)))
    lines += _section("networks", (_network(n) for n in _ours(state.networks.values())))
    lines += _section("subnets", (_subnet(s) for s in _ours(state.subnets.values())))
    lines += _section("security-groups", (line for g in _ours(state.groups.values()) for line in _group(g)))
    vifs: dict[str | None, list[Vif]] = defaultdict(list)
    for vif in state.vifs.values():
        if vif.owner is Owner.DOCUMENT:
            vifs[vif.vm].append(vif)
    lines += _section(
        "vms", (line for vm in _ours(state.vms.values()) for line in _vm(vm, vifs[vm.name], pool.locking_mode))
    )
    return "\n".join(lines) + "\n"


def _ours(values: Iterable[T]) -> list[T]:
    return sorted((value for value in values if value.owner is Owner.DOCUMENT), key=lambda value: value.name)


def _section(name: str, lines: Iterable[str]) -> list[str]:
    found = list(lines)
    return ["", f"{name}:", *found] if found else []


def _host(host: Host) -> list[str]:
    name = _text(host.name)
    address = [] if host.address is None else [("address", _text(host.address))]
    if not host.uplinks:
        return [f"  {name}: {_flow(address)}"]
    lines = [f"  {name}:"]
    lines += [f"    {key}: {value}" for key, value in address]
    return [*lines, "    uplinks:", *(f"      {_text(uplink.name)}: {_uplink(uplink)}" for uplink in host.uplinks)]


def _uplink(uplink: Uplink) -> str:
    pairs = [("members", _list(map(_text, uplink.members)))]
    if uplink.mode is not None:
        pairs.append(("mode", uplink.mode.value))
    if uplink.lacp_time is not LacpTime.SLOW:
        pairs.append(("lacp-time", uplink.lacp_time.value))
    if uplink.hash is not BondHash.SOURCE_MAC:
        pairs.append(("hash", uplink.hash.value))
    if uplink.mtu is not None:
        pairs.append(("mtu", str(uplink.mtu)))
    return _flow(pairs)


def _network(network: Network) -> str:
    pairs = [("type", network.type.value)]
    if network.carrier.way is Way.UPLINK:
        pairs += [("tag", str(network.tag or "untagged")), ("uplink", _text(network.uplink or ""))]
    if network.carrier.document_key is not None:
        pairs.append((network.carrier.document_key, str(network.key)))
    if network.hosts:
        pairs.append(("hosts", _list(map(_text, sorted(network.hosts)))))
    pairs.append(("mtu", str(network.mtu)))
    return f"  {_text(network.name)}: {_flow(pairs)}"


def _subnet(subnet: Subnet) -> str:
    pairs = [("network", _text(subnet.network)), ("cidr", _text(subnet.cidr))]
    if subnet.gateway is not None:
        pairs.append(("gateway", _text(subnet.gateway)))
    return f"  {_text(subnet.name)}: {_flow(pairs)}"


def _group(group: SecurityGroup) -> list[str]:
    pairs = [("ingress", group.ingress.value)] if group.ingress is not Verdict.DROP else []
    pairs += [("egress", group.egress.value)] if group.egress is not Verdict.ALLOW else []
    name, default = _text(group.name), _flow(pairs)
    if not group.rules:
        return [f"  {name}: {_flow([('default', default)] if pairs else [])}"]
    lines = [f"  {name}:", *([f"    default: {default}"] if pairs else []), "    rules:"]
    return lines + [f"      - {_rule(rule)}" for rule in group.rules]


def _rule(rule: Rule) -> str:
    words = rule_dict(rule)
    ports = words.get("ports")
    if isinstance(ports, list):
        words["ports"] = _list(str(port) if isinstance(port, int) else json.dumps(port) for port in ports)
    return _flow((key, str(value) if key == "ports" else _value(value)) for key, value in words.items())


def _value(value: object) -> str:
    return str(value) if isinstance(value, int) else _text(str(value))


def _vm(vm: Vm, vifs: list[Vif], default_mode: LockingMode) -> list[str]:
    name = _text(vm.name)
    host = [] if vm.host is None else [("host", _text(vm.host))]
    if not vifs:
        return [f"  {name}: {_flow(host)}"]
    lines = [f"  {name}:", *(f"    {key}: {value}" for key, value in host), "    vifs:"]
    return lines + [f"      - {_vif(vif, default_mode)}" for vif in sorted(vifs, key=lambda vif: vif.index)]


def _vif(vif: Vif, default_mode: LockingMode) -> str:
    pairs = [("network", _text(vif.network))]
    if vif.id != f"{vif.vm}/{vif.index}":
        pairs.append(("id", _text(vif.id)))
    pairs += [("mac", _text(vif.mac)), ("addresses", _list(map(_text, vif.addresses)))]
    if vif.locking_mode is not default_mode:
        pairs.append(("locking-mode", vif.locking_mode.value))
    if vif.trunk is not None:
        pairs.append(("trunk", _list(map(str, vif.trunk.tags)) if vif.trunk.tags else "all"))
    if vif.groups:
        pairs.append(("security-groups", _list(map(_text, vif.groups))))
    return _flow(pairs)


def _flow(pairs: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"


def _list(items: Iterable[str]) -> str:
    return "[" + ", ".join(items) + "]"


def _text(text: str) -> str:
    """A name or address, in quotes where some YAML reader could take it for something else."""
    return text if _PLAIN.fullmatch(text) and not _NOT_PLAIN.fullmatch(text) else json.dumps(text)
