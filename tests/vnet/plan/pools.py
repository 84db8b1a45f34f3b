"""Documents and pools for the tests of planning: a small one to change, and random ones."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from hypothesis import strategies as st

from vnet.objects import Binding, Owner, PoolState, Vif
from vnet.plan import desired_state
from vnet.topology import Document, TopologyErrors, load

BASE = """\
apiVersion: vnet/v1
pool: lab
hosts:
  xen1: {address: 10.99.0.1, uplinks: {bond0: {mode: lacp, members: [eth1, eth2]}}}
  xen2: {address: 10.99.0.2, uplinks: {bond0: {members: [eth1]}}}
underlay: {mtu: 1600}
networks:
  prod:     {type: vlan, tag: 120, uplink: bond0}
  wire:     {type: vlan, tag: untagged, uplink: bond0}
  tenant-a: {type: vxlan}
  spare:    {type: gre}
subnets:
  tenant-a-v4: {network: tenant-a, cidr: 10.1.0.0/24, gateway: 10.1.0.1}
vms:
  web1: {host: xen1, vifs: [{network: tenant-a}, {network: prod}]}
  web2: {host: xen2, vifs: [{network: tenant-a}]}
  fw1:  {host: xen2, vifs: [{network: wire, trunk: [10, 20]}]}
"""


@lru_cache(maxsize=8)  # an example of a property applies a document several times
def loaded(text: str) -> Document:
    return load(text.encode(), "lab.vnet.yaml")


def apply(text: str, current: PoolState | None = None) -> PoolState:
    """The pool after a document."""
    return desired_state(loaded(text), current or PoolState())


def plugged(state: PoolState) -> PoolState:
    """The same pool with every VIF plugged where its VM is."""
    bindings = {}
    for vif in state.vifs.values():
        host = (state.vms[vif.vm].host if vif.vm else vif.host) or "xen1"
        bindings[vif.id, host] = Binding(vif.id, host, vif.network, vif.mac, epoch=1, ready=True)
    return replace(state, bindings=bindings)


def as_stored(state: PoolState) -> PoolState:
    """The database has no order of rules."""
    groups = {
        name: replace(group, rules=tuple(sorted(group.rules, key=lambda rule: rule.name)))
        for name, group in state.groups.items()
    }
    return replace(state, groups=groups)


def with_toolstack_vif(state: PoolState, vif: Vif) -> PoolState:
    """The same pool with a VIF that the toolstack made."""
    return replace(state, vifs={**state.vifs, vif.id: replace(vif, owner=Owner.TOOLSTACK)})


DEFAULTS = ["", "default: {egress: drop}, ", "default: {ingress: allow}, "]
SPANS = ["80", "443-445", "1-9, 10, 7-20", "0-65535"]


@st.composite
def rules(draw: st.DrawFn, groups: list[str]) -> str:
    """The rules of a group, each under a name of few."""
    found = []
    for name in draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True)):
        protocol = draw(st.sampled_from(["", "protocol: tcp", "protocol: icmp", "protocol: 47"]))
        words = [f"name: {name}", f"direction: {draw(st.sampled_from(['ingress', 'egress']))}", protocol]
        if protocol == "protocol: tcp":
            words.append(draw(st.sampled_from(["", *(f"ports: [{span}]" for span in SPANS)])))
        words.append(
            draw(st.sampled_from(["", "remote: 10.0.0.0/8", "remote: 'fd00::/8'", *(f"remote: {g}" for g in groups)]))
        )
        words.append(draw(st.sampled_from(["", "action: drop"])))
        found.append(f"{{{', '.join(filter(None, words))}}}")
    return ", ".join(found)


KINDS = ["vxlan", "geneve", "gre", "internal"]


ISOLATIONS = [f", isolation: '{word}'" for word in ("isolated", "community:red", "promiscuous")]


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A valid document of few names, so that two of them overlap; sections in any order."""
    hosts = draw(st.lists(st.sampled_from(["h1", "h2", "h10"]), unique=True, min_size=1))
    networks = draw(st.lists(st.sampled_from(["a", "b", "c", "d10", "d9"]), unique=True))
    groups = draw(st.lists(st.sampled_from(["web", "db", "g10", "g9"]), unique=True))
    lines: dict[str, list[str]] = {"hosts": [], "networks": [], "subnets": [], "security-groups": [], "vms": []}
    for name in groups:
        lines["security-groups"].append(
            f"  {name}: {{{draw(st.sampled_from(DEFAULTS))}rules: [{draw(rules(groups))}]}}"
        )
    for host in hosts:
        lines["hosts"].append(f"  {host}: {{address: 10.99.0.{host[1:]}, uplinks: {{u: {{members: [eth0]}}}}}}")
    for at, name in enumerate(networks):
        kind = draw(st.sampled_from([*KINDS, "vlan"]))
        extra = f", tag: {draw(st.integers(1, 900)) * 4 + at % 4 + at // 4 * 400}, uplink: u" if kind == "vlan" else ""
        if draw(st.booleans()):
            extra += f", mtu: {draw(st.sampled_from([1300, 1400]))}"
        lines["networks"].append(f"  {name}: {{type: {kind}{extra}}}")
        if draw(st.booleans()):
            lines["subnets"].append(f"  {name}-v4: {{network: {name}, cidr: 10.{at}.0.0/24, gateway: 10.{at}.0.1}}")
        if draw(st.booleans()):
            lines["subnets"].append(f"  {name}-v6: {{network: {name}, cidr: 'fd00:{at}::/64'}}")
    for vm in draw(st.lists(st.sampled_from(["v1", "v2", "v3", "v10"]), unique=True)) if networks else []:
        vifs = []
        for _ in range(draw(st.integers(0, 3))):
            mode = draw(st.sampled_from(["", ", locking-mode: unlocked", ", addresses: []", *ISOLATIONS]))
            if member := draw(st.lists(st.sampled_from(groups), unique=True, max_size=2)) if groups else []:
                mode += f", security-groups: [{', '.join(member)}]"
            vifs.append(f"{{network: {draw(st.sampled_from(networks))}{mode}}}")
        lines["vms"].append(f"  {vm}: {{host: {draw(st.sampled_from(hosts))}, vifs: [{', '.join(vifs)}]}}")
    text = "apiVersion: vnet/v1\npool: lab\n"
    for section in draw(st.permutations(list(lines))):
        text += "\n".join([f"{section}:", *draw(st.permutations(lines[section]))]) + "\n"
    try:
        loaded(text)
    except TopologyErrors as errors:
        raise AssertionError(f"the strategy drew what is no document:\n{errors}") from errors
    return text
