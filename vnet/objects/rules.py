"""The invariants of a pool: one list for every door. One rule: a rule looks at the objects that change and those they touch.

Each rule yields the faults of a proposal. A document's door adds the line to a fault, the REST API's the field of the body.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice, pairwise
from typing import Any

from vnet.grammar.declare import Declared, names_in, references_of
from vnet.grammar.noun import Noun
from vnet.objects.carriers import Encapsulation, Way
from vnet.objects.encryption import wireguard_bytes
from vnet.objects.enums import LockingMode, Owner
from vnet.objects.expectation import OUTSIDE
from vnet.objects.host import Host
from vnet.objects.identity import Identity, macs_of, virtual_router
from vnet.objects.isolation import PROMISCUOUS, isolation_of
from vnet.objects.labels import LABEL, NETWORK, labels_of
from vnet.objects.limits import (
    ANY,
    MAX_ADDRESSES_OF_NETWORK,
    MAX_GROUPS_OF_VIF,
    MAX_MATCHES_OF_GROUP,
    MAX_MATCHES_OF_RULE,
    MAX_MATCHES_OF_VIF,
    MAX_MONITORS_OF_VIF,
    MAX_REMOTE_GROUPS,
    MIN_IPV6_MTU,
    MIN_MTU,
)
from vnet.objects.mirror import MAX_MIRRORS, TRANSPORT, FrameMirror, TargetType
from vnet.objects.mtu import TAG_BYTES, default_mtu, mtu_arithmetic, mtu_capacity
from vnet.objects.network import Network
from vnet.objects.proposal import Fault, Proposal, Ref
from vnet.objects.retired import wire_numbers
from vnet.objects.security import Direction, SecurityGroup, Verdict
from vnet.objects.state import CONFIGURED, NOUNS, PoolState, passed_on
from vnet.objects.subnet import Range
from vnet.objects.tiers import Tier
from vnet.objects.vif import Vif
from vnet.objects.vif_sources import GROUP
from vnet.objects.words import address_number, ip_version, is_never
from vnet.util.suggest import LISTED_MAX, listing

Faults = Iterator[Fault]
_EVERYBODY = ("all", "anyone", "anywhere", "everybody", "everyone", "everywhere", "internet", "world")


def faults(proposal: Proposal) -> Faults:
    """Every fault of a proposal, flaws of its objects included."""
    for rule in RULES:
        yield from rule(proposal)


def missing(noun: str, name: str, field: str, refers: tuple[str, str], among: Collection[str], **more: Any) -> Fault:
    """A reference to an object that is not there."""
    word, target = refers
    text = NOUNS[word].text if word in NOUNS else word
    return Fault(f"unknown-{word}", noun, name, field, f"unknown {text} '{target}'", refers=refers, among=among, **more)


# --- all objects -----------------------------------------------------------------------------------


def _flaws(p: Proposal) -> Faults:
    for declared in CONFIGURED:
        for name, value in p.changed(declared.NOUN.state).items():
            for flaw in value.flaws():
                relies_on = tuple((declared.NOUN.word, name, field) for field in flaw.relies_on)
                yield Fault(
                    flaw.code, declared.NOUN.word, name, flaw.field, flaw.message, flaw.hint, flaw.path, relies_on=relies_on
                )  # fmt: skip


def _owners(p: Proposal) -> Faults:
    """An object is changed, and removed, by the side that made it."""
    for declared in CONFIGURED:
        noun = declared.NOUN
        before, gone = getattr(p.before, noun.state), p.removed(noun.state)
        for name in (*p.changed(noun.state), *gone):
            old = before.get(name)
            if old is None or old.owner is p.actor or passed_on(old, getattr(p.after, noun.state).get(name)):
                continue
            if old.owner is Owner.TOOLSTACK:
                message = f"{noun.text} {name} is there already, made by the toolstack"
                hint = "another name; or delete it in the toolstack first"
                yield Fault("owned-by-toolstack", noun.word, name, "", message, hint)
            else:
                message = f"{noun.text} {name} is the document's"
                hint = "remove it from the document" if name in gone else "change it in the document"
                yield Fault("owned-by-document", noun.word, name, "", message, hint)


def _removals(p: Proposal) -> Faults:
    """An object does not go while others name it."""
    for declared in CONFIGURED:
        noun = declared.NOUN
        if gone := set(p.removed(noun.state)):
            users = _users(p, noun.word, gone)
            for name in sorted(users):
                yield from _in_use(p, noun, name, sorted(set(users[name])))


def _users(p: Proposal, noun: str, gone: set[str]) -> Mapping[str, list[str]]:
    """The objects of the pool after that name objects of a noun, by those objects' names."""
    users: dict[str, list[str]] = defaultdict(list)
    for declared in reversed(CONFIGURED):
        for field, refers in references_of(declared, runtime=True):
            if refers != noun:
                continue
            for name, user in _naming(p, declared, field, gone):
                users[name].append(f"{declared.NOUN.text} {getattr(user, declared.NOUN.key)}")
    if noun == "security-group":
        for group in p.after.groups.values():
            for name in group.remotes() & gone:
                users[name].append(f"a rule of security group {group.name}")
    elif noun == "network":
        for group in p.after.groups.values():
            for name in group.networks() & gone:
                users[name].append(f"a rule of security group {group.name}")
    elif noun == "host":
        # A document's VIFs run where they run; their host goes with its bindings.
        for vif, host in p.before.bindings:
            found = p.after.vifs.get(vif) if host in gone else None
            if found is not None and (p.actor is Owner.TOOLSTACK or found.owner is Owner.TOOLSTACK):
                users[host].append(f"VIF {vif}")
    return users


def _naming(p: Proposal, declared: type[Declared], field: str, names: set[str]) -> Iterator[tuple[str, Declared]]:
    """The objects whose field holds one of these names, each with the name."""
    if declared is Vif:
        yield from ((name, vif) for name in sorted(names) for vif in p.vifs_naming(field, name))
        return
    for value in getattr(p.after, declared.NOUN.state).values():
        yield from ((name, value) for name in names_in(value, field) if name in names)


def _in_use(p: Proposal, noun: Noun, name: str, users: list[str]) -> Faults:
    if p.actor is Owner.DOCUMENT:
        message = (
            f"{noun.text} {name} is not in the document, and cannot go: the toolstack still has {listing(users)} there"
        )
        yield Fault(
            "in-use", noun.word, name, "", message, "delete or move those first, or put it back into the document"
        )
    else:
        message = f"{noun.text} {name} cannot go: it still has {listing(users)}"
        yield Fault("in-use", noun.word, name, "", message, "delete or move those first")


def _references(p: Proposal) -> Faults:
    """An object names objects that are there. The host of a VIF is judged with its network."""
    for declared in CONFIGURED:
        for field, refers in references_of(declared):
            if (declared, field) == (Vif, "host"):
                continue
            among, changed = getattr(p.after, NOUNS[refers].state), p.changed(declared.NOUN.state)
            targets = {target for value in changed.values() for target in names_in(value, field)}
            unknown = {target for target in targets if target not in among}
            for name, value in changed.items() if unknown else ():
                for target in names_in(value, field):
                    if target in unknown:
                        path = () if isinstance(getattr(value, field), str) else (target,)
                        yield missing(declared.NOUN.word, name, field, (refers, target), among, path=path)


# --- hosts -----------------------------------------------------------------------------------------


def _host_addresses(p: Proposal) -> Faults:
    changed = p.changed("hosts")
    if not changed:
        return
    holders: dict[str, Host] = {}
    families: Counter[int] = Counter()
    stay = [host for name, host in p.after.hosts.items() if name not in changed]
    for host in (*stay, *changed.values()):
        if host.address is None:
            continue
        families[ip_version(host.address)] += 1
        other = holders.setdefault(host.address, host)
        if other is not host:
            message = f"host {host.name} has the address of host {other.name}"
            ref: Ref = ("host", other.name, "address")
            yield Fault(
                "duplicate-address",
                "host",
                host.name,
                "address",
                message,
                "a tunnel endpoint is one host's",
                other=ref,
                clash=True,
            )
    if len(families) > 1:
        yield from _mixed_families(p, families.most_common(1)[0][0])


def _mixed_families(p: Proposal, usual: int) -> Faults:
    hosts = [host for host in p.after.hosts.values() if host.address is not None]
    example = next(host for host in hosts if ip_version(host.address or "") == usual)
    for host in hosts:
        if ip_version(host.address or "") != usual:
            message = f"host {host.name} has an IPv{10 - usual} address, host {example.name} an IPv{usual} one"
            hint = "a tunnel has one family at both ends: choose one for the pool"
            yield Fault(
                "mixed-families", "host", host.name, "address", message, hint, other=("host", example.name, "address")
            )


# --- networks --------------------------------------------------------------------------------------


def _networks(p: Proposal) -> list[Network]:
    """The networks that a proposal touches: all of them, where a host or the underlay's MTU changes."""
    if "hosts" in p.changes or "pool" in p.changes:
        return list(p.after.networks.values())
    return list(p.changed("networks").values())


def _keys_and_tags(p: Proposal) -> Faults:
    changed = p.changed("networks")
    if not changed:
        return
    keys: dict[tuple[Encapsulation, int], Network] = {}
    tags: dict[tuple[str, int], Network] = {}
    stay = [network for name, network in p.after.networks.items() if name not in changed]
    for net in (*stay, *changed.values()):
        encapsulation = net.carrier.encapsulation
        if encapsulation is not None and net.key is not None:
            other = keys.setdefault((encapsulation, net.key), net)
            if other is not net:
                word = "VNI" if net.carrier.key_word == "vni" else f"{encapsulation.name.upper()} key"
                message = f"{word} {net.key} is that of network {other.name}"
                hint = f"each {net.type.value} network has its own; leave it out and one is allocated"
                yield Fault(
                    "duplicate-key-or-vni",
                    "network",
                    net.name,
                    "key",
                    message,
                    hint,
                    other=("network", other.name, "key"),
                    clash=True,
                )
        if net.uplink is not None and net.tag is not None:
            other = tags.setdefault((net.uplink, net.tag), net)
            if other is not net:
                tag = f"tag {net.tag}" if net.tag else "untagged"
                message = f"{tag} on uplink {net.uplink} is network {other.name}"
                hint = "one VLAN of an uplink is one network: another tag, another uplink, or use that network"
                yield Fault(
                    "duplicate-tag",
                    "network",
                    net.name,
                    "tag",
                    message,
                    hint,
                    other=("network", other.name, "tag"),
                    clash=True,
                )


def _retired_numbers(p: Proposal) -> Faults:
    """A network takes no number that was another one's as long as a host may still use it for that one."""
    changed: list[Network | FrameMirror] = [*p.changed("networks").values(), *p.changed("mirrors").values()]
    if not changed or p.before.pool is None:
        return
    generation = p.before.pool.generation
    former = {key: (found.network, found.generation) for key, found in p.before.retired.items()}
    users: list[Network | FrameMirror] = [*p.before.networks.values(), *p.before.mirrors.values()]
    former |= {key: (old.name, generation + 1) for old in users for key in wire_numbers(old)}
    staying = {
        key for name, net in p.after.networks.items() if name not in p.changed("networks") for key in wire_numbers(net)
    }
    staying |= {
        key for name, it in p.after.mirrors.items() if name not in p.changed("mirrors") for key in wire_numbers(it)
    }
    for net in changed:
        for medium, number in wire_numbers(net):
            name, since = former.get((medium, number), (net.name, 0))
            hosts = p.after.lagging(since) if name != net.name and (medium, number) not in staying else []
            if hosts:
                tag = medium.startswith("uplink ")
                field = ("to" if tag else "key") if isinstance(net, FrameMirror) else "tag" if tag else "key"
                number_text = f"tag {number} on {medium}" if tag else f"{medium} key {number}"
                many = len(hosts) > 1
                message = (
                    f"{number_text} was {name}'s, and {'hosts' if many else 'host'} {_some(hosts)} may still use it"
                )
                hint = (
                    "another number; or this one once those hosts have acknowledged that it is given up: `vnet status` says which "
                    "do not report. A host that is gone for good can be removed from the pool"
                )
                yield Fault("number-still-used", net.NOUN.word, net.name, field, message, hint, clash=True)


def _uplinks(p: Proposal) -> Faults:
    """Each host that a VLAN network may be on has its uplink."""
    for net in _networks(p):
        if net.uplink is None:
            continue
        having = p.uplink_mtus.get(net.uplink, {})
        if not having and net.name in p.changed("networks") and p.after.hosts:
            if not p.incomplete("host"):  # else a host that could not be read may have it
                relies = tuple(("host", name, "uplinks") for name in p.after.hosts)
                yield missing("network", net.name, "uplink", ("uplink", net.uplink), p.uplink_mtus, relies_on=relies)
            continue
        if not net.hosts and len(having) == len(p.after.hosts):
            continue
        lacking = [host.name for host in p.hosts_of(net) if host.name not in having]
        if lacking:
            many = len(lacking) > 1
            message = (
                f"network {net.name} may be on {'hosts' if many else 'host'} {_some(lacking)}, "
                f"which {'have' if many else 'has'} no uplink {net.uplink}"
            )
            hint = f"give it to {'those hosts' if many else 'that host'}, or list in 'hosts' where the network may be"
            relies = tuple(("host", name, "uplinks") for name in lacking)
            yield Fault("no-uplink", "network", net.name, "uplink", message, hint, other=relies[0], relies_on=relies)


def _endpoints(p: Proposal) -> Faults:
    """Each host that a tunnel network may be on has a tunnel endpoint."""
    without = {host.name for host in p.after.hosts.values() if host.address is None}
    if not without or not ("hosts" in p.changes or "networks" in p.changes):
        return
    tunnels = [net for net in p.after.networks.values() if net.carrier.way is Way.TUNNEL]
    everywhere = [net.name for net in tunnels if not net.hosts]
    limited: dict[str, list[str]] = defaultdict(list)
    for net in tunnels:
        for name in net.hosts & without:
            limited[name].append(net.name)
    changed = p.changed("networks")
    for name in sorted(without):
        if nets := everywhere + limited[name]:
            blamed = next((net for net in nets if net in changed), nets[0])
            message = f"host {name} has no 'address', and tunnel networks may be on it: {_some(nets)}"
            hint = "give it the address that its tunnels end at, or list in the networks' 'hosts' where they may be"
            yield Fault("no-address", "host", name, "address", message, hint, other=("network", blamed, "hosts"))


def _underlay(p: Proposal) -> Faults:
    """Tunnels over IPv6 need what every IPv6 link carries."""
    if p.underlay_mtu >= MIN_IPV6_MTU or not ("pool" in p.changes or "hosts" in p.changes):
        return
    if p.vtep is not None and ip_version(p.vtep) == 6:
        holder = next(host.name for host in p.after.hosts.values() if host.address == p.vtep)
        message = f"underlay.mtu {p.underlay_mtu} is too small for tunnels over IPv6, as host {holder}'s"
        hint = f"IPv6 needs at least {MIN_IPV6_MTU} (RFC 8200 §5)"
        yield Fault("mtu", "pool", "", "underlay_mtu", message, hint, other=("host", holder, "address"))


def _encrypted(p: Proposal) -> Faults:
    """Encrypted tunnels are of IPv6 inside WireGuard, which leaves them what every IPv6 link carries."""
    least = MIN_IPV6_MTU + wireguard_bytes(p.vtep)
    if p.underlay_mtu >= least or not {"pool", "hosts", "networks"} & p.changes.keys():
        return
    for net in p.after.networks.values():
        if net.encryption is not None:
            message = f"underlay.mtu {p.underlay_mtu} is too small for encrypted tunnels, as network {net.name}'s"
            yield Fault("mtu", "pool", "", "underlay_mtu", message, f"at least {least}", other=("network", net.name, "encryption"))  # fmt: skip
            return


def _mtus(p: Proposal) -> Faults:
    """The MTU of a network fits its carrier."""
    for net in _networks(p):
        mtus = p.mtus_of(net.type, net.uplink, net.hosts)
        encrypted = net.encryption is not None
        capacity = mtu_capacity(net.type, p.underlay_mtu, p.vtep, mtus, encrypted=encrypted, service=net.is_service)
        arithmetic = mtu_arithmetic(net.type, p.underlay_mtu, p.vtep, encrypted=encrypted)
        if default_mtu(net.type, capacity) < MIN_MTU:
            message = f"nothing is left of the MTU for network {net.name}: {arithmetic}"
            yield Fault("mtu", "pool", "", "underlay_mtu", message, f"a network has at least {MIN_MTU}", other=("network", net.name, "mtu"))  # fmt: skip
        elif net.mtu > capacity:
            message = f"mtu {net.mtu} of network {net.name} does not fit"
            if net.carrier.way is Way.UPLINK:
                carried = capacity + TAG_BYTES * net.is_service
                source = "its own mtu" if carried in mtus else "underlay.mtu"
                message += f": uplink {net.uplink} carries {carried} ({source})"
                message += f", {TAG_BYTES} of them a guest's tag inside the service tag" if net.is_service else ""
            else:
                message += f": {arithmetic}"
            hint = f"at most {capacity}; or leave 'mtu' out and it is computed"
            yield Fault("mtu", "network", net.name, "mtu", message, hint, other=("pool", "", "underlay_mtu"))
        elif net.mtu < MIN_IPV6_MTU and any(r.version == 6 for r in p.ranges.get(net.name, ())):
            message = f"mtu {net.mtu} of network {net.name} is too small for its IPv6 subnet"
            hint = f"IPv6 needs at least {MIN_IPV6_MTU} (RFC 8200 §5)"
            yield Fault("mtu", "network", net.name, "mtu", message, hint, other=("pool", "", "underlay_mtu"))


def place_fault(state: PoolState, network: Network, host: str) -> tuple[str, str] | None:
    """Why a network cannot be on a host, as code and sentence; None if it can."""
    found = state.hosts.get(host)
    if found is None:
        return "unknown-host", f"host {host} is not in the pool"
    if not network.on(host):
        return "not-on-host", f"network {network.name} is not on host {host}"
    if network.uplink is not None and found.uplink(network.uplink) is None:
        return "no-uplink", f"host {host} lacks uplink {network.uplink}, which network {network.name} needs"
    if network.carrier.way is Way.TUNNEL and found.address is None:
        return "no-address", f"host {host} has no tunnel address, which network {network.name} needs"
    return None


def _leaving_hosts(p: Proposal) -> Faults:
    """A network does not leave a host where VIFs of the other side are, and stays what their trunks need."""
    for net in p.changed("networks").values():
        if net.name not in p.before.networks:
            continue
        users: dict[str, list[str]] = defaultdict(list)
        for vif in p.vifs_naming("network", net.name):
            places = {host for host in (vif.host, vif.incoming) if host is not None}
            if vif.owner is Owner.DOCUMENT and p.actor is Owner.DOCUMENT:
                # A document's own VIFs are judged where they are written, but both ends of a migration stay.
                users |= {h: [*users[h], f"VIF {vif.id}"] for h in places if vif.incoming is not None and not net.on(h)}
                continue
            places |= {host for host in p.before.hosts if net.hosts and (vif.id, host) in p.before.bindings}
            for host in places:
                if not net.on(host):
                    theirs = "the toolstack's " if p.actor is Owner.DOCUMENT else ""
                    users[host].append(f"{theirs}VIF {vif.id}")
            if vif.trunk is not None and net.tag != 0:
                message = f"network {net.name} has the toolstack's trunk VIF {vif.id}, so it stays VLAN and untagged"
                yield Fault("in-use", "network", net.name, "type", message, "unplug and delete that VIF first")
        for host in sorted(users):
            message = f"network {net.name} cannot leave host {host}: {listing(users[host])} there"
            yield Fault("in-use", "network", net.name, "hosts", message, "migrate or delete those first")


# --- subnets ---------------------------------------------------------------------------------------


def _subnets(p: Proposal) -> Faults:
    changed = p.changed("subnets")
    for network in dict.fromkeys(subnet.network for subnet in changed.values()):
        for low, high in pairwise(p.ranges.get(network, ())):
            if low.version == high.version and high.first <= low.last:
                blamed, other = (high, low) if high.subnet.name in changed else (low, high)
                message = f"{blamed.subnet.cidr} overlaps {other.subnet.cidr} of subnet {other.subnet.name} on network {network}"
                hint = "an address belongs to one subnet of its network"
                ref: Ref = ("subnet", other.subnet.name, "cidr")
                yield Fault("overlap", "subnet", blamed.subnet.name, "cidr", message, hint, other=ref, clash=True)


# --- security groups -------------------------------------------------------------------------------


def _remotes(p: Proposal) -> Faults:
    for group in p.changed("groups").values():
        for rule in group.rules:
            for remote in rule.groups:
                if (there := p.after.groups.get(remote)) is not None and there.tier is not Tier.VIF:
                    message = f"rule {rule.name} names security group {remote} of tier {there.tier.value}, whose members no VIF states"
                    hint = f"name those on the network that have a label, as '{LABEL}app=shop', or a network"
                    path, ref = (rule.name, "remote", remote), ("security-group", remote, "tier")
                    yield Fault("tier", "security-group", group.name, "rules", message, hint, path, other=ref)
                if remote in p.after.groups or remote in p.after.address_sets or remote.startswith(LABEL):
                    continue
                if remote.startswith(NETWORK):
                    yield from _remote_network(p, group, rule.name, remote)
                    continue
                hint = f"did you mean '{ANY}'?" if remote.casefold() in _EVERYBODY else ""
                refers, path = ("security-group", remote), (rule.name, "remote", remote)
                yield missing(
                    "security-group",
                    group.name,
                    "rules",
                    refers,
                    (*p.after.groups, *p.after.address_sets, ANY),
                    path=path,
                    hint=hint,
                )


def _remote_network(p: Proposal, group: SecurityGroup, rule: str, remote: str) -> Faults:
    """A rule names networks that are there, and have subnets: it is about their addresses."""
    name, path = remote.removeprefix(NETWORK), (rule, "remote", remote)
    if name not in p.after.networks:
        yield missing("security-group", group.name, "rules", ("network", name), p.after.networks, path=path)
    elif not p.ranges.get(name):
        message = f"rule {rule} of security group {group.name} names network {name}, which has no subnet"
        yield Fault(
            "no-subnet",
            "security-group",
            group.name,
            "rules",
            message,
            "it has addresses once it has a subnet; or name a range",
            path,
        )


def _address_sets(p: Proposal) -> Faults:
    """A name in a rule is a group's or a set's, and the sets that rules on a network name are of a bounded size."""
    sets, groups = p.after.address_sets, p.after.groups
    for name in sorted({*p.changed("address_sets"), *p.changed("groups")}):
        if name in sets and name in groups:
            yield Fault(
                "twice",
                "address-set",
                name,
                "",
                f"{name} is both an address set and a security group",
                "rename one of them",
            )
    if not p.changed("address_sets") and not p.changed("groups") and not p.changed("vifs"):
        return
    if sum(len(each.addresses) for each in sets.values()) <= MAX_ADDRESSES_OF_NETWORK:
        return
    remotes = {name: group.named() & sets.keys() for name, group in groups.items()}
    named: dict[str, set[str]] = defaultdict(set)
    for vif in p.after.vifs.values():
        for group in p.obeyed(vif):
            named[vif.network] |= remotes.get(group, frozenset())
    for network, found in sorted(named.items()):
        if (count := sum(len(sets[each].addresses) for each in found)) > MAX_ADDRESSES_OF_NETWORK:
            message = f"the address sets that rules of VIFs on network {network} name have {count} ranges"
            yield Fault(
                "too-many",
                "network",
                network,
                "",
                message,
                f"at most {MAX_ADDRESSES_OF_NETWORK}: merge neighbouring ranges",
            )


def _futile(p: Proposal) -> Faults:
    """A rule allows packets that a network can carry. One that drops others does no harm."""
    for group in p.changed("groups").values():
        for rule in group.rules:
            ingress = rule.direction is Direction.INGRESS
            for cidr in rule.cidrs if rule.action is Verdict.ALLOW else ():
                if is_never(cidr, source=ingress):
                    message = f"a network carries no packet {'from' if ingress else 'to'} an address of {cidr}"
                    path = (rule.name, "remote", cidr)
                    yield Fault("wrong-address", "security-group", group.name, "rules", message, path=path)


def _large(p: Proposal) -> Faults:
    """Rules, groups and the groups of a VIF come to a bounded number of flows."""
    changed = p.changed("groups")
    sizes: dict[str, int] = {}

    def size(name: str) -> int:
        if name not in sizes:
            group = p.after.groups.get(name)
            sizes[name] = sum(rule.match_count for rule in group.rules) if group is not None else 0
        return sizes[name]

    hint = "write ports as ranges, or leave them out; neighbouring and evenly spaced ones take few matches"
    for group in changed.values():
        for rule in group.rules:
            if (count := rule.match_count) > MAX_MATCHES_OF_RULE:
                of = "ports, for each other side," if len(rule.remote) > 1 else "ports"
                message = f"the {of} of rule {rule.name} take {count} matches: at most {MAX_MATCHES_OF_RULE}"
                path = (rule.name, "ports")
                yield Fault("too-many", "security-group", group.name, "rules", message, hint, path)
        if size(group.name) > MAX_MATCHES_OF_GROUP:
            message = f"the rules of security group {group.name} take {size(group.name)} matches: at most {MAX_MATCHES_OF_GROUP}"
            yield Fault("too-many", "security-group", group.name, "rules", message, hint)
    seen: set[tuple[str, ...]] = set()
    for vif in p.rejudged:
        names = p.obeyed(vif)
        count = sum(map(size, names)) if names not in seen else 0
        seen.add(names)
        if len(names) > MAX_GROUPS_OF_VIF:
            message = f"{len(names)} security groups judge VIF {vif.id}, those of its VM, network and pool among them: at most {MAX_GROUPS_OF_VIF}"
            yield Fault("too-many", "vif", vif.id, "groups", message, "put rules of several into one")
        if count > MAX_MATCHES_OF_VIF:
            message = f"the security groups of VIF {vif.id} take {count} matches: at most {MAX_MATCHES_OF_VIF}"
            yield Fault("too-many", "vif", vif.id, "groups", message, hint)


def _tiers(p: Proposal) -> Faults:
    """VMs and networks name groups of tiers above the VIF's, and networks whose VIFs can be judged."""
    for noun, state in (("vm", "vms"), ("network", "networks")):
        touched = p.changed(state)
        if changed := p.changed("groups"):
            touched = touched | {
                n: v for n, v in getattr(p.after, state).items() if not changed.keys().isdisjoint(v.groups)
            }
        for name, value in touched.items():
            for group in (p.after.groups[each] for each in value.groups if each in p.after.groups):
                if group.tier is Tier.VIF:
                    message = f"security group {group.name} is of tier vif: {NOUNS[noun].text} {name} cannot name it"
                    hint = f"say 'tier: {noun}' there, or name it with each VIF"
                    ref: Ref = ("security-group", group.name, "tier")
                    yield Fault("tier", noun, name, "groups", message, hint, (group.name,), other=ref)
    for network in p.changed("networks").values():
        if network.groups and network.is_service:
            message = f"network {network.name} has a service tag: its VIFs cannot be in security groups"
            hint = "its guests' tags are networks of their own; filter where they end"
            yield Fault("service-tag", "network", network.name, "groups", message, hint)
    for vif in _touched_vifs(p):
        if vif.trunk is not None and (net := p.after.networks.get(vif.network)) is not None and net.groups:
            message = f"VIF {vif.id} is a trunk, and network {net.name} has security groups"
            hint = "a trunk's tags are networks of their own; filter where they end"
            yield Fault("trunk", "vif", vif.id, "trunk", message, hint, other=("network", net.name, "groups"))


def _watched(p: Proposal) -> Faults:
    """A VIF is in a few groups in monitor mode: each takes look-ups of each packet."""
    monitors = {name for name, group in p.after.groups.items() if not group.enforces}
    if len(monitors) <= MAX_MONITORS_OF_VIF:
        return
    for vif in p.rejudged:
        if (count := len(monitors.intersection(p.obeyed(vif)))) > MAX_MONITORS_OF_VIF:
            message = f"VIF {vif.id} is in {count} security groups in monitor mode: at most {MAX_MONITORS_OF_VIF}"
            yield Fault(
                "too-many",
                "vif",
                vif.id,
                "groups",
                message,
                "switch some to 'mode: enforce', or put their rules into one",
            )


def _mixed(p: Proposal) -> Faults:
    """The connections of a VIF are tracked, or they are not."""
    stateless = {name for name, group in p.after.groups.items() if not group.stateful}
    if not stateless:
        return
    for vif in p.rejudged:
        names = p.obeyed(vif)
        tracking = [name for name in names if name in p.after.groups and name not in stateless]
        if tracking and (without := sorted(stateless.intersection(names))):
            message = f"VIF {vif.id} is in {tracking[0]}, which tracks connections, and in {without[0]}, which does not"
            hint = "put it into groups that all say 'stateful: false', or none of which does"
            yield Fault("mixed", "vif", vif.id, "groups", message, hint)


def _crowded(p: Proposal) -> Faults:
    """The rules of all VIFs on one network name few enough groups."""
    touched = {vif.network for vif in p.rejudged if p.obeyed(vif)}
    if not touched:
        return
    remotes = {name: group.named() for name, group in p.after.groups.items()}
    if sum(map(len, remotes.values())) <= MAX_REMOTE_GROUPS:
        return
    for network in sorted(touched):
        names = {name for vif in p.vifs_naming("network", network) for name in p.obeyed(vif)}
        count = len(frozenset().union(*(remotes.get(name, frozenset()) for name in names)))
        if count > MAX_REMOTE_GROUPS:
            message = (
                f"the rules of VIFs on network {network} name {count} security groups and address sets as 'remote'"
            )
            hint = f"at most {MAX_REMOTE_GROUPS}: put VIFs of one kind into one group"
            yield Fault("too-many", "network", network, "", message, hint)


# --- QoS classes -----------------------------------------------------------------------------------


def _qos(p: Proposal) -> Faults:
    """A network names an aggregate for itself, and another class for its VIFs, as a VIF does."""
    limited: list[tuple[str, Network | Vif, str]] = []
    for net in p.changed("networks").values():
        limited += [("network", net, "qos"), ("network", net, "vif_qos")]
    limited += [("vif", vif, "qos") for vif in p.changed("vifs").values()]
    if changed := p.changed("qos"):
        for field in ("qos", "vif_qos"):
            limited += [("network", net, field) for net in p.after.networks.values() if getattr(net, field) in changed]
        limited += [("vif", vif, "qos") for name in changed for vif in p.vifs_naming("qos", name)]
    seen: set[tuple[str, str, str]] = set()
    for noun, value, field in limited:
        name = getattr(value, field)
        if name is None or (noun, value.name, field) in seen:
            continue
        seen.add((noun, value.name, field))
        found, together = p.after.qos.get(name), (noun, field) == ("network", "qos")
        if found is not None and found.aggregate is not together:
            aggregate: Ref = ("qos-class", found.name, "aggregate")
            if found.aggregate:
                owner = "the VIFs of network" if noun == "network" else "VIF"
                message = f"QoS class {found.name} is an aggregate, for networks: {owner} {value.name} cannot have it"
                hint = "as 'qos' a network may name it; for each VIF a class without 'aggregate'"
            else:
                message = f"QoS class {found.name} is for VIFs one by one: network {value.name} cannot have it"
                hint = "a class with 'aggregate: true' limits all VIFs of a network together; 'vif-qos' gives this one to each"
            yield Fault("wrong-qos", noun, value.name, field, message, hint, other=aggregate)


# --- VMs and VIFs ----------------------------------------------------------------------------------


def _touched_vifs(p: Proposal) -> Iterator[Vif]:
    """The VIFs that come or change, and those whose network, subnets or VM do."""
    yield from p.changed("vifs").values()
    networks = {*p.changed("networks"), *(s.network for s in p.changed("subnets").values())}
    networks |= {p.before.subnets[name].network for name in p.removed("subnets") if name in p.before.subnets}
    seen: set[str] = set()
    sources = [p.unchanged_vifs_naming("network", network) for network in sorted(networks)]
    sources += [p.unchanged_vifs_naming("vm", vm) for vm in p.changed("vms")]
    for source in sources:
        for vif in source:
            if vif.id not in seen:
                seen.add(vif.id)
                yield vif


def _vifs(p: Proposal) -> Faults:
    for vif in _touched_vifs(p):
        net = p.after.networks.get(vif.network)
        if net is None:
            continue
        yield from _placed(p, vif, net)
        if vif.trunk is not None and (net.carrier.way is not Way.UPLINK or net.tag):
            kind = (
                f"a network of type {net.type.value}"
                if net.carrier.way is not Way.UPLINK
                else f"which is tag {net.tag} itself"
            )
            message = f"a trunk on {net.name}, {kind}"
            hint = f"a trunk VIF is on a VLAN network with 'tag: untagged'; {net.name} is not"
            yield Fault("trunk", "vif", vif.id, "trunk", message, hint, other=("network", net.name, "type"))
        yield from _isolation(vif, net)
        if vif.groups and net.is_service:
            message = f"VIF {vif.id} is on {net.name}, whose tag is a service tag: it cannot be in security groups"
            hint = "its guest's tags are networks of their own; filter where they end"
            yield Fault("service-tag", "vif", vif.id, "groups", message, hint, other=("network", net.name, "tpid"))
        if virtual_router(vif.mac) is not None and vif.id in p.changed("vifs"):
            message = f"{vif.mac} is a virtual MAC, which several VIFs may have"
            yield Fault("vrrp", "vif", vif.id, "mac", message, "leave 'mac' out and one is allocated, and say 'vrrp'")
        if vif.learn and net.carrier.way is Way.UPLINK:
            message = f"VIF {vif.id} is on VLAN network {net.name}, where the physical switches learn MACs"
            hint = "leave 'learn' out; it is for tunnel and internal networks"
            yield Fault("learn", "vif", vif.id, "learn", message, hint, other=("network", net.name, "type"))
        yield from _addresses(p, vif, vif.addresses)
        for identity in vif.also:
            yield from _addresses(p, vif, identity.addresses, identity.mac)


def _isolation(vif: Vif, net: Network) -> Faults:
    """A VIF that is kept apart from others is known by its MAC on one network, so it can have no other MAC, and no other networks."""
    isolation = isolation_of(vif.isolation, net.isolation)
    if isolation == PROMISCUOUS:
        return
    if vif.trunk is not None:
        word, hint = "a trunk", "a trunk is on networks of its own on each tag: no trunk"
    elif vif.locking_mode is LockingMode.UNLOCKED:
        word, hint = "unlocked", "other hosts know it by its MAC, which it could change: lock it"
    elif vif.vrrp:
        word, hint = "a virtual router", "other hosts know it by its MAC, and a virtual MAC is several VIFs': no 'vrrp'"
    else:
        return
    message = f"VIF {vif.id} is {isolation} and {word}"
    source = "" if vif.isolation is not None else f", as network {net.name} says"
    hint += f", or 'isolation: {PROMISCUOUS}'"
    yield Fault(
        "isolation", "vif", vif.id, "isolation", message + source, hint, other=("network", net.name, "isolation")
    )


def _moving(p: Proposal) -> Faults:
    """A VIF stays on its network while it migrates: its destination would be prepared for another one. Where it runs its new one may be."""
    for vif in p.changed("vifs").values():
        old = p.before.vifs.get(vif.id)
        if old is None or old.network == vif.network:
            continue
        if old.incoming is not None and vif.incoming is not None:
            message = f"VIF {vif.id} is migrating to host {vif.incoming}, so it stays on network {old.network}"
            yield Fault("migrating", "vif", vif.id, "network", message, "finish or abort the migration first")
        net = p.after.networks.get(vif.network)
        for host in p.before.hosts if net is not None and net.hosts else ():
            if net is not None and not net.on(host) and (vif.id, host) in p.before.bindings and vif.host != host:
                message = f"VIF {vif.id} runs on host {host}, and network {net.name} is not"
                hint = f"the network is on {_some(sorted(net.hosts))}: migrate the VIF there first, or let the network be on {host}"
                other: Ref = ("network", net.name, "hosts")
                yield Fault("not-on-host", "vif", vif.id, "network", message, hint, other=other)


def _placed(p: Proposal, vif: Vif, net: Network) -> Faults:
    """The network may be where the VIF is wanted, or its VM starts."""
    if vif.host is not None:
        if vif.id not in p.changed("vifs"):
            return  # its network leaves the host, which is judged there
        if (found := place_fault(p.after, net, vif.host)) is not None:
            other: Ref = ("network", net.name, "hosts")
            refers = ("host", vif.host) if found[0] == "unknown-host" else None
            yield Fault(found[0], "vif", vif.id, "host", found[1], other=other, refers=refers, among=p.after.hosts)
        return
    vm = p.after.vms.get(vif.vm or "")
    if vm is not None and vm.host is not None and vm.host in p.after.hosts and not net.on(vm.host):
        message = f"VM {vm.name} is on host {vm.host}, and network {net.name} is not"
        hint = f"the network is on {', '.join(sorted(net.hosts)[:LISTED_MAX])}"
        yield Fault("not-on-host", "vif", vif.id, "network", message, hint, other=("network", net.name, "hosts"))


def _unique(p: Proposal) -> Faults:
    """No two VIFs of one network have one MAC or one address."""
    order = {name: at for at, name in enumerate(p.changed("vifs"))}
    shared_macs, shared_addresses = p.shared("by_mac"), p.shared("by_address")
    for vif in p.changed("vifs").values():
        for mac in macs_of(vif):
            for other in p.vifs_with_mac(vif.network, mac) if mac in shared_macs else ():
                if other.id != vif.id and order.get(other.id, -1) < order[vif.id]:
                    message = f"MAC {mac} is that of VIF {other.id} on the same network"
                    hint = "leave 'mac' out and one is allocated" if mac == vif.mac else ""
                    field, path = ("mac", ()) if mac == vif.mac else ("also", (mac,))
                    there: Ref = ("vif", other.id, "mac" if mac == other.mac else "also")
                    yield Fault("duplicate-mac", "vif", vif.id, field, message, hint, path, other=there, clash=True)
                    break
        for identity in (Identity(vif.mac, vif.addresses), *vif.also):
            field, path = ("addresses", ()) if identity.mac == vif.mac else ("also", (identity.mac,))
            for address in identity.addresses:
                for other in (
                    p.vifs_with_address(vif.network, address) if (vif.network, address) in shared_addresses else ()
                ):
                    if (
                        other.id != vif.id
                        and order.get(other.id, -1) < order[vif.id]
                        and not _shared(identity.mac, address, other)
                    ):
                        message = f"address {address} on network {vif.network} is taken by VIF {other.id}"
                        hint = "leave 'addresses' out and a free one is taken" if field == "addresses" else ""
                        place = (address,) if field == "addresses" else path
                        ref: Ref = ("vif", other.id, "addresses" if address in other.addresses else "also")
                        yield Fault("address-taken", "vif", vif.id, field, message, hint, place, other=ref, clash=True)
                        break


def _shared(mac: str, address: str, other: Vif) -> bool:
    """Whether an address goes with a virtual MAC that another VIF has with the same address."""
    return virtual_router(mac) is not None and any(i.mac == mac and address in i.addresses for i in other.also)


def range_of(ranges: list[Range], version: int, address: int) -> Range | None:
    """The range, of ranges in order, that an address is in."""
    at = bisect_right(ranges, (version, address), key=lambda r: (r.version, r.first)) - 1
    found = ranges[at] if at >= 0 else None
    return found if found is not None and found.version == version and address <= found.last else None


def _addresses(p: Proposal, vif: Vif, addresses: tuple[str, ...], also: str = "") -> Faults:
    """also: the MAC of the identity that they are of. A virtual router's may be the gateway."""
    ranges = p.ranges.get(vif.network)
    field = "also" if also else "addresses"
    for address in addresses if ranges else ():
        path = (also or address,)
        number = address_number(address)
        found = range_of(ranges or [], ip_version(address), number)
        ref: Ref = ("subnet", (found or (ranges or [])[0]).subnet.name, "cidr")
        if found is None and also:
            continue  # it may forward for others
        if found is None:
            there = ", ".join(f"{r.subnet.cidr} ({r.subnet.name})" for r in (ranges or [])[:LISTED_MAX])
            message = f"address {address} of VIF {vif.id} is in no subnet of network {vif.network}"
            yield Fault("outside-subnet", "vif", vif.id, field, message, f"there is: {there}", path, other=ref)
        elif found.gateway == number:
            if not also or virtual_router(also) is None:
                yield _gateway(p, vif, found, address, field, path)
        elif why_not := found.reserved(number):
            message = f"address {address} of VIF {vif.id} is {why_not} ({found.subnet.cidr} of {found.subnet.name})"
            yield Fault(
                "reserved-address",
                "vif",
                vif.id,
                field,
                message,
                "any other address of it",
                path,
                other=ref,
            )


def _gateway(p: Proposal, vif: Vif, found: Range, address: str, field: str, path: tuple[str]) -> Fault:
    """An address that a VIF and a router would share, at fault where it changes."""
    own: Ref = ("vif", vif.id, field)
    routers: Ref = ("subnet", found.subnet.name, "gateway")
    hint = "another gateway, or another address"
    if vif.id in p.changed("vifs"):
        message = f"address {address} of VIF {vif.id} is the gateway of subnet {found.subnet.name}"
        return Fault("address-taken", *own, message, hint, path, other=routers, clash=True)
    message = f"gateway {address} of subnet {found.subnet.name} is taken by VIF {vif.id}"
    return Fault("address-taken", *routers, message, hint, other=own, clash=True)


# --- expectations ----------------------------------------------------------------------------------


def _expectations(p: Proposal) -> Faults:
    """Ends of expectations name one thing each."""
    changed = p.changed("expectations")
    if not changed:
        return
    positions = {f"{vif.vm}/{vif.index}" for vif in p.after.vifs.values() if vif.vm is not None}
    sorts = {"a VM": p.after.vms, "a network": p.after.networks, "a security group": p.after.groups}
    nouns = {"a VM": "vm", "a network": "network", "a security group": "security-group"}
    for name, spec in changed.items():
        for field, word in (("from_", spec.from_), ("to", spec.to)):
            if word == OUTSIDE or word in p.after.vifs or word in positions:
                continue
            found = [sort for sort, names in sorts.items() if word in names or word in p.refused.get(nouns[sort], ())]
            if len(found) > 1:
                message = f"'{word}' is {'both ' * (len(found) == 2)}{' and '.join(found)}"
                vm = f"say {word}/0 for the VM's first VIF, or " if word in p.after.vms else ""
                yield Fault("ambiguous", "expectation", name, field, message, f"{vm}rename one of them")
            elif not found:
                among = {OUTSIDE}.union(p.after.vifs, positions, *sorts.values())
                message = f"unknown VIF, VM, network or security group '{word}'"
                refers = ("vif", word)
                yield Fault("unknown-vif", "expectation", name, field, message, refers=refers, among=among)


# --- mirrors and flow collectors ---------------------------------------------------------------------------------------


def _mirrors(p: Proposal) -> Faults:
    """Mirrors name what is there, and what they carry is taken for no frame of a network."""
    for mirror in p.changed("mirrors").values():
        for source in mirror.from_:
            yield from _vifs_of(p, "mirror", mirror.name, "from_", source)
        if mirror.target is not None and mirror.target not in p.after.vifs:
            yield missing("mirror", mirror.name, "to", ("vif", mirror.target), p.after.vifs)
        if mirror.to.type is TargetType.VLAN and mirror.to.name not in p.uplink_mtus and not p.incomplete("host"):
            yield missing("mirror", mirror.name, "to", ("uplink", mirror.to.name), p.uplink_mtus)
    if len(p.after.mirrors) > MAX_MIRRORS and (changed := p.changed("mirrors")):
        name = sorted(changed)[-1]
        message = f"{len(p.after.mirrors)} mirrors: at most {MAX_MIRRORS} in a pool"
        yield Fault("too-many", "mirror", name, "", message, "name several sources in one of them")
    if {"mirrors", "hosts"} & p.changes.keys() and not p.incomplete("host"):
        yield from _mirror_ways(p)
    if {"mirrors", "networks", "vifs"} & p.changes.keys():
        yield from _mirror_numbers(p)
    if {"mirrors", "networks", "vifs", "vms"} & p.changes.keys():
        yield from _mirrored_in_clear(p)


def _vifs_of(p: Proposal, noun: str, name: str, field: str, source: str) -> Faults:
    prefix, colon, named = source.partition(":")
    of = {GROUP: ("security-group", p.after.groups), NETWORK: ("network", p.after.networks)}
    word, among = of.get(prefix + colon, ("vif", p.after.vifs))
    target = named if prefix + colon in of else source
    if not source.startswith(LABEL) and target not in among:
        yield missing(noun, name, field, (word, target), among, path=(source,))


def _flow_collectors(p: Proposal) -> Faults:
    """Flow collectors name what is there."""
    for collector in p.changed("flow_collectors").values():
        for source in collector.of:
            yield from _vifs_of(p, "flow-collector", collector.name, "of", source)


def _mirror_ways(p: Proposal) -> Faults:
    """Copies for a VIF reach it from each host: a VIF may come to any."""
    lacking = sorted(name for name, host in p.after.hosts.items() if host.address is None)
    for mirror in p.after.mirrors.values() if lacking and len(p.after.hosts) > 1 else ():
        if mirror.target is not None:
            message = (
                f"host {_some(lacking)} has no tunnel address, by which copies of mirror {mirror.name} go between hosts"
            )
            hint = "give each host an 'address'; or mirror to a VLAN of an uplink"
            yield Fault("no-address", "mirror", mirror.name, "to", message, hint, other=("host", lacking[0], "address"))


def _mirror_numbers(p: Proposal) -> Faults:
    """A VLAN that copies go to is no network's, nor a trunk's: they would come back as its frames."""
    tagged = {
        (mirror.to.name, mirror.to.id): mirror
        for mirror in p.after.mirrors.values()
        if mirror.to.type is TargetType.VLAN
    }
    keys = {mirror.key: mirror for mirror in p.after.mirrors.values()}
    everything = "mirrors" in p.changes
    for net in (p.after.networks if everything else p.changed("networks")).values():
        if net.carrier.encapsulation is TRANSPORT and net.key in keys:
            mirror = keys[net.key]
            message = f"{TRANSPORT.name} key {net.key} is that of mirror {mirror.name}"
            yield Fault("duplicate-key-or-vni", "network", net.name, "key", message, "another one", other=("mirror", mirror.name, "to"), clash=True)  # fmt: skip
        if net.uplink is not None and (sender := tagged.get((net.uplink, net.tag or 0))) is not None:
            message = f"tag {net.tag} on uplink {net.uplink} is network {net.name}'s and mirror {sender.name}'s"
            hint = "copies need a VLAN for themselves: they would be frames of the network"
            yield Fault("duplicate-tag", "mirror", sender.name, "to", message, hint, other=("network", net.name, "tag"), clash=True)  # fmt: skip
    for vif in (p.after.vifs if everything else p.changed("vifs")).values() if tagged else ():
        uplink = net.uplink if vif.trunk and (net := p.after.networks.get(vif.network)) is not None else None
        for tag in vif.trunk.tags if vif.trunk is not None and uplink is not None else ():
            if (sender := tagged.get((uplink or "", tag))) is not None:
                message = f"trunk VIF {vif.id} carries tag {tag}, to which mirror {sender.name} sends"
                yield Fault("duplicate-tag", "mirror", sender.name, "to", message, "copies need a VLAN for themselves", other=("vif", vif.id, "trunk"), clash=True)  # fmt: skip


def _mirrored_in_clear(p: Proposal) -> Faults:
    """Frames of an encrypted network leave their hosts in no mirror that is in clear. Those for a VIF are encrypted as the network is."""
    clear = [mirror for mirror in p.after.mirrors.values() if mirror.target is None]
    encrypted = {net.name: net for net in p.after.networks.values() if net.encryption is not None}
    if not clear or not encrypted:
        return
    changed = p.changed("mirrors")
    for mirror in clear:
        if mirror.name in changed:
            vifs = [vif for name in sorted(encrypted) for vif in p.vifs_naming("network", name)]
        else:
            newly = [name for name in sorted(encrypted) if name in p.changed("networks")]
            moved = [vif for vif in p.changed("vifs").values() if vif.network in encrypted]
            vifs = [*moved, *(vif for name in newly for vif in p.vifs_naming("network", name))]
        named = next((name for name in sorted(encrypted) if NETWORK + name in mirror.from_), None)
        taken = next((v for v in vifs if mirror.selects(v.id, v.network, p.obeyed(v), labels_of(v, encrypted[v.network].labels))), None)  # fmt: skip
        if named is not None and (mirror.name in changed or named in p.changed("networks")):
            subject, network = f"network {named}, which is encrypted", named
        elif taken is not None:
            subject, network = f"VIF {taken.id}, whose network {taken.network} is encrypted", taken.network
        else:
            continue
        message = f"mirror {mirror.name} would carry frames of {subject}, to {mirror.to} in clear"
        hint = "to a VIF they go encrypted; or mirror others"
        yield Fault("in-clear", "mirror", mirror.name, "to", message, hint, other=("network", network, "encryption"))


def _some(names: list[str]) -> str:
    """The first names, without sorting thousands."""
    shown = ", ".join(islice(names, LISTED_MAX))
    return shown if len(names) <= LISTED_MAX else f"{shown} and {len(names) - LISTED_MAX} more"


RULES: tuple[Callable[[Proposal], Faults], ...] = (
    *(_flaws, _owners, _removals, _references),
    *(
        _host_addresses,
        _keys_and_tags,
        _retired_numbers,
        _uplinks,
        _endpoints,
        _underlay,
        _encrypted,
        _mtus,
        _leaving_hosts,
    ),
    *(_subnets, _qos, _remotes, _address_sets, _futile, _large, _watched, _tiers, _mixed, _crowded),
    *(_vifs, _moving, _unique, _mirrors, _flow_collectors, _expectations),
)
