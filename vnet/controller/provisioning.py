"""Making and removing objects for a toolstack, as decisions: from what a call asks and the pool as it is, the rows to write.

One rule: asking for what is there already is no error and changes nothing; asking for something else under its name is one,
and says which field differs.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import ip_address
from typing import TypeVar

from vnet import api
from vnet.controller.admission import Outcome, checked, reference
from vnet.controller.errors import Conflict, Invalid
from vnet.controller.security_groups import check_groups
from vnet.controller.vif_status import place_problem
from vnet.db.changes import Delete, Insert
from vnet.db.view import PoolView
from vnet.objects import (
    BondHash,
    BondMode,
    Host,
    LacpTime,
    LockingMode,
    Network,
    NetworkType,
    Owner,
    PoolState,
    Trunk,
    Uplink,
    Vif,
    Vm,
    Way,
    default_mtu,
    mtu_arithmetic,
    mtu_capacity,
)
from vnet.objects.allocate import Exhausted, Ids
from vnet.objects.values import MIN_MTU
from vnet.topology.view import Range
from vnet.util.suggest import listing

T = TypeVar("T")
Asked = list[tuple[str, object, object]]  # (field, what the call says or None, what is)


def _same(kind: str, name: str, asked: Asked) -> None:
    """Refuse when a field that the call names, `(field, asked, is)`, is not what it is; None stands for not named."""
    for field, wanted, have in asked:
        if wanted is not None and wanted != have:
            message = f"{kind} {name} exists with {field} {_spelled(have)}, not {_spelled(wanted)}"
            raise Conflict(f"{kind}-exists", message, field)


def _spelled(value: object) -> str:
    """A value as a call would spell it."""
    if value is None:
        return "none"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Trunk):
        return _spelled(value.tags) if value.tags else "all"
    if isinstance(value, Uplink):
        mode = f" ({value.mode.value})" if value.mode is not None else ""
        return f"{value.name}: {' '.join(value.members)}{mode}"
    if isinstance(value, (tuple, frozenset)):
        return ", ".join(map(_spelled, value if isinstance(value, tuple) else sorted(value))) or "none"
    return str(value)


# --- VIFs -----------------------------------------------------------------------------------------


def make_vif(view: PoolView, id: str | None, spec: api.VifSpec) -> Outcome:
    """The rows of a new VIF, and of its VM if there is none. Raises Invalid, Conflict."""
    state = view.state
    id = _vif_id(id, spec)
    trunk = None if spec.trunk is None else checked(lambda: Trunk(_tags(spec.trunk)))
    addresses = None if spec.addresses is None else tuple(sorted(set(spec.addresses)))
    groups = None if spec.security_groups is None else tuple(sorted(set(spec.security_groups)))
    mac = spec.mac.lower().replace("-", ":") if spec.mac is not None else None
    have = state.vifs.get(id)
    if have is not None:
        mode = LockingMode(spec.locking_mode) if spec.locking_mode is not None else None
        asked: Asked = [("network", spec.network, have.network), ("mac", mac, have.mac), ("vm", spec.vm, have.vm)]
        asked += [("addresses", addresses, have.addresses), ("locking_mode", mode, have.locking_mode)]
        asked += [("index", spec.index, have.index), ("trunk", trunk, have.trunk)]
        _same("vif", id, [*asked, ("security_groups", groups, have.groups)])
        return Outcome(id)
    network = reference("network", "network", spec.network, state.networks)
    default = state.pool.locking_mode if state.pool is not None else LockingMode.LOCKED
    vif = checked(
        lambda: Vif(
            id=id,
            network=network.name,
            mac=mac or free_mac(state, id),
            vm=spec.vm,
            index=_index(view, spec),
            addresses=addresses or (),
            locking_mode=LockingMode(spec.locking_mode) if spec.locking_mode is not None else default,
            trunk=trunk,
            host=spec.host or _vm_host(state, spec.vm),
            owner=Owner.TOOLSTACK,
            groups=groups or (),
            awaited=spec.awaited,
        )
    )
    if vif.awaited and vif.host is None:
        raise Invalid("awaited", "awaited: a VIF is awaited where it is wanted: say on which host", "host")
    _check_vif(view, vif, network)
    new_vm = vif.vm is not None and vif.vm not in state.vms
    vm = (Insert(checked(lambda: Vm(vif.vm or "", spec.host, Owner.TOOLSTACK))),) if new_vm else ()
    return Outcome(id, (*vm, Insert(vif)))


def drop_vif(view: PoolView, id: str) -> Outcome:
    """The rows to delete for a VIF to be gone; none if it is."""
    vif = view.state.vifs.get(id)
    return Outcome(id, (Delete(vif),) if vif is not None else ())


def free_mac(state: PoolState, id: str) -> str:
    """A MAC address for a VIF that names none."""
    ids = Ids(state.pool.name if state.pool is not None else "")
    ids.macs.update(vif.mac for vif in state.vifs.values())
    return ids.mac(id)


def _vif_id(id: str | None, spec: api.VifSpec) -> str:
    """The id, which the caller chooses one way or the other: else a repeated call would make a second VIF."""
    if id is not None:
        return id
    if spec.vm is None or spec.index is None:
        raise Invalid("no-id", "a VIF needs an id, or a VM and an index, which make one", "id")
    return f"{spec.vm}/{spec.index}"


def _index(view: PoolView, spec: api.VifSpec) -> int:
    if spec.index is not None or spec.vm is None:
        return spec.index or 0
    taken = {vif.index for vif in view.vifs(spec.vm)}
    return next(index for index in range(len(taken) + 1) if index not in taken)


def _vm_host(state: PoolState, vm: str | None) -> str | None:
    found = state.vms.get(vm) if vm is not None else None
    return found.host if found is not None else None


def _tags(trunk: list[int] | api.Rest | None) -> tuple[int, ...]:
    if trunk == "all" or trunk is None:
        return ()
    if not trunk:
        raise Invalid("empty-trunk", "trunk: an empty list carries nothing; leave it out, or say all", "trunk")
    return tuple(sorted(set(trunk)))


def _check_vif(view: PoolView, vif: Vif, network: Network) -> None:
    state = view.state
    if vif.trunk is not None and (network.tag != 0):
        raise Invalid("trunk", f"trunk: only on an untagged VLAN network, and {network.name} is not one", "trunk")
    if vif.host is not None:
        reference("host", "host", vif.host, state.hosts)
        reason = place_problem(view, vif, vif.host)
        if reason is not None:
            raise Invalid(reason.code, f"host: {reason.text}", "host")
    check_groups(state, vif)
    _check_addresses(state, vif)
    for other in state.vifs.values():
        if other.network != network.name:
            continue
        if other.mac == vif.mac:
            raise Conflict("mac-taken", f"VIF {other.id} has {vif.mac} on network {network.name}", "mac")
        taken = set(vif.addresses) & set(other.addresses)
        if taken:
            raise Conflict("address-taken", f"VIF {other.id} has {min(taken)} on network {network.name}", "addresses")


def _check_addresses(state: PoolState, vif: Vif) -> None:
    """A VIF may have each of its addresses, in the subnets that its network has."""
    there = [subnet for subnet in state.subnets.values() if subnet.network == vif.network]
    ranges = [Range.of(subnet.name, subnet.cidr, subnet.gateway, None) for subnet in there]
    for address in vif.addresses if ranges else ():
        parsed = ip_address(address)
        number = int(parsed)
        found = next((r for r in ranges if r.version == parsed.version and r.first <= number <= r.last), None)
        if found is None:
            listed = ", ".join(subnet.cidr for subnet in there)
            message = f"addresses: {address} is in no subnet of {vif.network} ({listed})"
            raise Invalid("address-outside", message, "addresses")
        if found.gateway == number:
            raise Conflict("address-taken", f"{address} is the gateway of subnet {found.name}", "addresses")
        if why := found.reserved(number):
            raise Invalid("address-reserved", f"addresses: {address} is {why} ({found.cidr})", "addresses")


# --- networks -------------------------------------------------------------------------------------


def make_network(view: PoolView, name: str, spec: api.NetworkSpec) -> Outcome:
    """The row of a new network; what the call leaves out is allocated or computed. Raises Invalid, Conflict."""
    state = view.state
    kind = NetworkType(spec.type)
    hosts = frozenset(reference("host", "hosts", host, state.hosts).name for host in spec.hosts)
    tag = 0 if spec.tag == "untagged" else spec.tag
    have = state.networks.get(name)
    if have is not None:
        asked: Asked = [("type", kind, have.type), ("tag", tag, have.tag), ("uplink", spec.uplink, have.uplink)]
        key = None if kind.carrier.way is Way.UPLINK else spec.key
        _same(
            "network", name, [*asked, ("key", key, have.key), ("hosts", hosts, have.hosts), ("mtu", spec.mtu, have.mtu)]
        )
        return Outcome(name)
    if spec.key is not None and kind.carrier.way is not Way.TUNNEL:
        raise Invalid("key", f"key: a network of type {spec.type} has none", "key")
    ids = Ids.of(state.pool.name if state.pool is not None else "", state)
    try:
        number, key = ids.number(), spec.key if spec.key is not None else ids.key(kind)
    except Exhausted as error:
        raise Conflict("exhausted", str(error)) from None
    mtu = _mtu(state, kind, spec, hosts)
    network = checked(lambda: Network(name, kind, number, mtu, key, tag, spec.uplink, hosts, Owner.TOOLSTACK))
    _check_network(state, network)
    return Outcome(name, (Insert(network),))


def drop_network(view: PoolView, name: str) -> Outcome:
    """The row to delete for a network to be gone. Raises Conflict while it has VIFs or subnets, and names them."""
    network = view.state.networks.get(name)
    if network is None:
        return Outcome(name)
    vifs = [vif.id for vif in view.state.vifs.values() if vif.network == name]
    if vifs:
        raise Conflict("in-use", f"network {name} still has VIFs: {listing(vifs)}", name)
    subnets = [subnet.name for subnet in view.state.subnets.values() if subnet.network == name]
    if subnets:
        raise Conflict("in-use", f"network {name} still has subnets: {listing(subnets)}", name)
    return Outcome(name, (Delete(network),))


def _mtu(state: PoolState, kind: NetworkType, spec: api.NetworkSpec, on: frozenset[str]) -> int:
    underlay = state.pool.underlay_mtu if state.pool is not None else 1500
    vtep = next((host.address for host in state.hosts.values() if host.address is not None), None)
    hosts = [host for host in state.hosts.values() if not on or host.name in on]
    uplinks = [found.mtu for host in hosts if (found := host.uplink(spec.uplink or "")) is not None]
    capacity = mtu_capacity(kind, underlay, vtep, uplinks)
    mtu = spec.mtu if spec.mtu is not None else default_mtu(kind, capacity)
    if mtu > capacity or mtu < MIN_MTU:
        sum = (
            f": {mtu_arithmetic(kind, underlay, vtep)}"
            if kind.carrier.way is Way.TUNNEL
            else f": uplink {spec.uplink} carries {capacity}"
        )
        raise Invalid("mtu", f"mtu: {mtu} does not fit{sum if mtu > capacity else f' (at least {MIN_MTU})'}", "mtu")
    return mtu


def _check_network(state: PoolState, network: Network) -> None:
    for other in state.networks.values():
        one_space = other.carrier.encapsulation is network.carrier.encapsulation
        if network.key is not None and one_space and other.key == network.key:
            raise Conflict("key-taken", f"network {other.name} has the key {network.key}", "key")
        if network.tag is not None and (other.uplink, other.tag) == (network.uplink, network.tag):
            raise Conflict("tag-taken", f"network {other.name} has tag {network.tag} on uplink {network.uplink}", "tag")
    for host in state.hosts.values():
        if not network.on(host.name):
            continue
        if network.uplink is not None and host.uplink(network.uplink) is None:
            raise Invalid("no-uplink", f"uplink: host {host.name} has no uplink {network.uplink}", "uplink")
        if network.carrier.way is Way.TUNNEL and host.address is None:
            raise Invalid("no-address", f"hosts: host {host.name} has no tunnel address", "hosts")


# --- VMs ------------------------------------------------------------------------------------------


def make_vm(view: PoolView, name: str, spec: api.VmSpec) -> Outcome:
    """The row of a new VM."""
    have = view.state.vms.get(name)
    if have is not None:
        _same("vm", name, [("host", spec.host, have.host)])
        return Outcome(name)
    if spec.host is not None:
        reference("host", "host", spec.host, view.state.hosts)
    return Outcome(name, (Insert(checked(lambda: Vm(name, spec.host, Owner.TOOLSTACK))),))


def drop_vm(view: PoolView, name: str) -> Outcome:
    """The rows to delete for a VM and all its VIFs to be gone."""
    vm = view.state.vms.get(name)
    if vm is None:
        return Outcome(name)
    return Outcome(name, (*(Delete(vif) for vif in view.vifs(name)), Delete(vm)))


# --- hosts ----------------------------------------------------------------------------------------


def _uplink(spec: api.Uplink) -> Uplink:
    mode = BondMode(spec.mode) if spec.mode is not None else None
    members = tuple(sorted(spec.members))
    return checked(lambda: Uplink(spec.name, members, mode, LacpTime(spec.lacp_time), BondHash(spec.hash), spec.mtu))


def make_host(view: PoolView, name: str, spec: api.HostSpec) -> Outcome:
    """The rows of a new host."""
    uplinks = tuple(sorted((_uplink(uplink) for uplink in spec.uplinks), key=lambda uplink: uplink.name))
    host = checked(lambda: Host(name, spec.address, uplinks, Owner.TOOLSTACK))
    names = [uplink.name for uplink in uplinks]
    if len(set(names)) < len(names):
        raise Invalid("uplink-twice", "uplinks: a name stands there twice", "uplinks")
    have = view.state.hosts.get(name)
    if have is not None:
        _same("host", name, [("address", host.address, have.address), ("uplinks", host.uplinks, have.uplinks)])
        return Outcome(name)
    for other in view.state.hosts.values():
        if host.address is not None and other.address == host.address:
            raise Conflict("address-taken", f"host {other.name} has the address {host.address}", "address")
    _check_host(view.state, host)
    return Outcome(name, (Insert(host),))


def _check_host(state: PoolState, host: Host) -> None:
    """The host can take part in the tunnels of the pool, and has what the networks that may be on it need."""
    version = ip_address(host.address).version if host.address is not None else None
    for other in state.hosts.values():
        if None not in (version, other.address) and ip_address(other.address or "").version != version:
            message = (
                f"address: IPv{version}, and host {other.name} has {other.address}: a pool's tunnels are of one family"
            )
            raise Invalid("mixed-families", message, "address")
    for network in state.networks.values():
        if not network.on(host.name):
            continue
        if network.carrier.way is Way.TUNNEL and host.address is None:
            raise Invalid("no-address", f"address: network {network.name} may be on it and needs one", "address")
        if network.uplink is None:
            continue
        uplink = host.uplink(network.uplink)
        if uplink is None:
            message = f"uplinks: network {network.name} may be on it and needs uplink {network.uplink}"
            raise Invalid("no-uplink", message, "uplinks")
        if uplink.mtu is not None and uplink.mtu < network.mtu:
            message = f"uplinks: network {network.name} has an MTU of {network.mtu}: uplink {uplink.name} carries {uplink.mtu}"
            raise Invalid("mtu", message, "uplinks")


def drop_host(view: PoolView, name: str) -> Outcome:
    """The rows to delete for a host to be gone. Raises Conflict while VIFs run on it or want to."""
    host = view.state.hosts.get(name)
    if host is None:
        return Outcome(name)
    here = sorted(vif for vif, bindings in view.bindings_of.items() if name in bindings)
    wanted = sorted(vif.id for vif in view.state.vifs.values() if name in (vif.host, vif.incoming))
    users = list(dict.fromkeys([*here, *wanted]))
    if users:
        raise Conflict("in-use", f"host {name} still has VIFs: {listing(users)}", name)
    named = sorted(network.name for network in view.state.networks.values() if name in network.hosts)
    if named:
        raise Conflict("in-use", f"host {name} is named by networks: {listing(named)}", name)
    return Outcome(name, (Delete(host),))
