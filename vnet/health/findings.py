"""The network between the hosts, by what all of them state: which tunnels bring nothing, or too little, and whose clock is off.

One rule: findings are a function of what hosts have heard. A host that does not report, or sends no hellos, is no finding here: it says nothing of the network.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache

from vnet.db.health import HostHealth, StatedTunnel, StatedUplink
from vnet.db.view import PoolView
from vnet.objects import Event, Way
from vnet.objects.carriers import ENCAPSULATIONS
from vnet.objects.identity import macs_of
from vnet.util.frames import SERVICE_VLAN

MAX_FINDINGS = 200
OVERHEADS = {encapsulation.name: encapsulation for encapsulation in ENCAPSULATIONS}
Links = dict[tuple[str, str], str]  # by host and NIC the NIC, with the switch port that it is at where that is known
_decoded = lru_cache(maxsize=1024)(HostHealth.decode)


@dataclass(frozen=True, slots=True, order=True)
class NetworkFinding:
    """Something that is wrong with the network between hosts. code: for programs. subject: it is about the same as long as this is the same. remedy: what to do."""

    code: str
    subject: str
    text: str
    remedy: str
    hosts: tuple[str, ...] = ()


def stated(view: PoolView) -> dict[str, HostHealth]:
    """What the hosts that are alive have stated last, of those that look at all."""
    hosts = sorted(view.live & view.state.hosts.keys())
    return {name: health for name in hosts if (health := stated_by(view, name)).looks}


def stated_by(view: PoolView, host: str) -> HostHealth:
    """What a host has stated last; of one that is not alive nothing."""
    agent = view.state.agents.get(host)
    return _decoded(agent.health) if agent is not None and host in view.live else HostHealth()


def findings(view: PoolView, statements: Mapping[str, HostHealth]) -> list[NetworkFinding]:
    """What is wrong by these statements, the most telling first of what is of the same sort."""
    found = [
        *_broken(view, statements),
        *_narrow(view, statements),
        *_clocks(view, statements),
        *_uplinks(statements),
        *_macs(statements),
        *_addresses(view, statements),
        *_idle(statements),
    ]
    return found[:MAX_FINDINGS]


def health_events(
    before: Mapping[str, NetworkFinding], now: Mapping[str, NetworkFinding], at_ms: int
) -> Iterator[Event]:
    """What to tell of findings that came, and of those that went. Both by what makes a finding the same."""
    for key in sorted(now.keys() - before.keys()):
        yield Event(at_ms, "health", now[key].text, host=now[key].hosts[0] if now[key].hosts else "")
    for key in sorted(before.keys() - now.keys()):
        was = before[key]
        yield Event(at_ms, "health-good", f"no more: {was.text}", host=was.hosts[0] if was.hosts else "")


def by_subject(found: list[NetworkFinding]) -> dict[str, NetworkFinding]:
    return {f"{it.code} {it.subject}": it for it in found}


def tunnels_of(statements: Mapping[str, HostHealth]) -> Iterator[tuple[str, StatedTunnel]]:
    """Each statement about a tunnel to a host that states something as well, with its host."""
    for name, health in statements.items():
        for tunnel in health.tunnels:
            if tunnel.peer in statements and tunnel.peer != name:
                yield name, tunnel


def peers_of(view: PoolView, statements: Mapping[str, HostHealth]) -> dict[str, set[str]]:
    """By host the others that it shares tunnel networks with, of those that state something."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, members in view.members.items():
        network = view.state.networks.get(name)
        if network is not None and network.carrier.way is Way.TUNNEL:
            here = statements.keys() & members
            for host in here:
                found[host] |= here - {host}
    return found


def _broken(view: PoolView, statements: Mapping[str, HostHealth]) -> Iterator[NetworkFinding]:
    lost: set[tuple[str, str, str]] = set()
    for name, it in tunnels_of(statements):
        if it.hears is False:
            lost.add((it.peer, name, it.via))
        if it.heard is False:
            lost.add((name, it.peer, it.via))
    dead = {(source, to, via) for source, to, via in lost if (to, source, via) in lost}
    cut: Counter[tuple[str, str]] = Counter((source, via) for source, _, via in dead)
    peers = peers_of(view, statements) if cut else {}
    alone = {(host, via) for (host, via), count in cut.items() if count >= max(2, len(peers[host]))}
    if len({host for host, _ in alone}) == len(statements):
        alone = set()  # nobody reaches anybody: no host is the one
    for host, via in sorted(alone):
        text = f"host {host}: no frame passes through {via} tunnels between it and any of {cut[host, via]} other hosts"
        remedy = f"on {host}: cable, NIC and switch port of its address, and a firewall: 'vnet doctor' there"
        yield NetworkFinding("tunnels-cut", f"{host} {via}", text, remedy, (host,))
    for source, to, via in sorted(lost):
        if (source, via) in alone or (to, via) in alone:
            continue
        if (source, to, via) not in dead:
            text = (
                f"{via} tunnel from host {source} to host {to} brings nothing, and the way back works: it is asymmetric"
            )
            remedy = f"what drops {source}'s tunnel packets on the way to {to}? a firewall on {to}, an address that two machines have; 'vnet doctor' on both"
            yield NetworkFinding("tunnel-one-way", f"{source} {to} {via}", text, remedy, (source, to))
        elif source < to:
            text = f"{via} tunnel between host {source} and host {to}: no frame passes either way"
            remedy = f"{_port_hint(via)}; 'vnet doctor' on {source} pings {to}"
            yield NetworkFinding("tunnel-cut", f"{source} {to} {via}", text, remedy, (source, to))


def _port_hint(via: str) -> str:
    """What a firewall between hosts must let through."""
    ports = {"vxlan": "UDP port 4789", "geneve": "UDP port 6081", "gre": "IP protocol 47"}
    name = via.split(" ", maxsplit=1)[0]
    wanted = "WireGuard's UDP ports 51840 and 51841" if " " in via else ports.get(name, name)
    return f"does a firewall between them let {wanted} through?"


def _narrow(view: PoolView, statements: Mapping[str, HostHealth]) -> Iterator[NetworkFinding]:
    """Of a host whose tunnels are all too narrow it is that host's way; of all hosts it is what the pool states of the underlay."""
    found = [(name, it, it.mtu) for name, it in tunnels_of(statements) if it.mtu is not None and it.mtu < it.needs]
    if not found:
        return
    narrow: dict[str, set[str]] = defaultdict(set)
    for name, it, _ in found:
        narrow[name].add(it.peer)
        narrow[it.peer].add(name)
    peers = peers_of(view, statements)
    alone = {host for host, others in narrow.items() if len(others) >= max(2, len(peers[host]))}
    groups: dict[tuple[str, ...], list[tuple[str, StatedTunnel, int]]] = defaultdict(list)
    for name, it, mtu in found:
        both = tuple(sorted({name, it.peer} & alone))
        groups[both if len(both) == 1 else ("pool",) if both else (name, it.peer)].append((name, it, mtu))
    for hosts, tunnels in sorted(groups.items()):
        name, it, mtu = min(tunnels, key=lambda each: (each[2], each[0], each[1].peer))
        encapsulation, host = OVERHEADS.get(it.via.split(" ", maxsplit=1)[0]), view.state.hosts.get(name)
        overhead = (
            encapsulation.overhead(host.address if host is not None else None) if encapsulation is not None else 0
        )
        of = {1: f"tunnels of host {hosts[0]}", 2: f"{it.via} tunnel from host {name} to host {it.peer}"}[len(hosts)]
        of = "tunnels of all hosts" if hosts == ("pool",) else of
        text = f"{of}: packets of up to {mtu} bytes arrive, and networks have an MTU of {it.needs}"
        remedy = f"raise the MTU of NICs and switches on the way to {it.needs + overhead}, or state 'underlay: {{mtu: {mtu + overhead}}}'"
        yield NetworkFinding("tunnel-mtu", " ".join(hosts), text, remedy, () if hosts == ("pool",) else hosts)


def _macs(statements: Mapping[str, HostHealth]) -> Iterator[NetworkFinding]:
    """MACs that two stations have, and those that keep moving."""
    for host, health in statements.items():
        for it in health.macs:
            at, remedy = (
                f"{_vlan(it.tag)} of uplink {it.uplink}",
                f"where do the switches' tables have {it.mac}? a machine of that MAC, or a loop",
            )
            if it.vif:
                text = f"MAC {it.mac} of VIF {it.vif} on host {host} comes from outside too, {at}: two stations have it"
                yield NetworkFinding("mac-twice", f"{it.mac} {it.tag}", text, remedy, (host,))
            else:
                text = f"MAC {it.mac} keeps moving between ports of host {host}, {at}"
                yield NetworkFinding("mac-flaps", f"{it.mac} {it.tag} {host}", text, remedy, (host,))


def _addresses(view: PoolView, statements: Mapping[str, HostHealth]) -> Iterator[NetworkFinding]:
    """Addresses that two stations have. A station that is a VIF of the pool is named."""
    if not any(health.addresses for health in statements.values()):
        return
    vifs = {mac: vif.id for vif in view.state.vifs.values() for mac in macs_of(vif)}
    for host, health in statements.items():
        for it in health.addresses:
            macs = " and by ".join(f"{mac} (VIF {vifs[mac]})" if mac in vifs else mac for mac in it.macs[-2:])
            at = f"{_vlan(it.tag)} of uplink {it.uplink}"
            if it.vif:
                text = f"address {it.address} of VIF {it.vif} on host {host} is claimed by {macs}, {at}"
            else:
                mine = view.state.hosts[host].address == it.address
                text = f"{f'address {it.address} of host {host}' if mine else f'gateway {it.address}'} is claimed by {macs} at the same time, {at}"
            remedy = f"find {it.macs[-1]} in the switches' tables, and give that station another address"
            yield NetworkFinding("address-twice", f"{host} {it.address} {it.tag} {it.uplink}", text, remedy, (host,))


def _places(health: HostHealth) -> dict[tuple[str, str], str]:
    """By uplink and NIC of a host the switch port that it is at, where just one station says that it is there."""
    count = Counter((it.uplink, it.nic) for it in health.neighbours)
    alone = (it for it in health.neighbours if count[it.uplink, it.nic] == 1)
    return {(it.uplink, it.nic): it.place for it in alone}


def _idle(statements: Mapping[str, HostHealth]) -> Iterator[NetworkFinding]:
    for host, health in statements.items():
        places = _places(health)
        for uplink, nic, reason in health.idle:
            at = f", at {places[uplink, nic]}," if (uplink, nic) in places else ""
            text = f"{nic} of uplink {uplink} on host {host}{at} {reason}"
            yield NetworkFinding("nic-idle", f"{host} {nic}", text, f"the cable and the switch port of {nic}", (host,))


def _uplinks(statements: Mapping[str, HostHealth]) -> Iterator[NetworkFinding]:
    """What the physical network does not carry, of hosts that looked at the VLANs of an uplink at once."""
    of: dict[str, dict[str, StatedUplink]] = defaultdict(dict)
    names: dict[str, Links] = defaultdict(dict)
    for host, health in statements.items():
        places = _places(health)
        for it in health.uplinks:
            of[it.uplink][host] = it
            for nic in it.links:
                place = places.get((it.uplink, nic))
                names[it.uplink][host, nic] = f"{nic} at {place}" if place else nic
    for uplink, rows in sorted(of.items()):
        if len(rows) >= 2:
            yield from _of_uplink(uplink, rows, names[uplink])


def _nics(host: str, names: Links) -> str:
    return " and ".join(name for (of, _), name in names.items() if of == host)


def _of_uplink(uplink: str, rows: Mapping[str, StatedUplink], names: Links) -> Iterator[NetworkFinding]:
    tags = sorted({tag for row in rows.values() for tag in row.tags})
    heard = {tag: {host: _heard(row, tag) for host, row in rows.items() if tag in row.tags} for tag in tags}
    cut = {tag: _cut(by_host) for tag, by_host in heard.items() if len(by_host) >= 2}
    dead = {host for host in rows if len(tags) > 1 and all(host in cut.get(tag, ()) for tag in rows[host].tags)}
    if len(dead) == len(rows):
        text = f"uplink {uplink}: no frame passes between any of {len(rows)} hosts on any VLAN"
        yield NetworkFinding("uplink-cut", uplink, text, f"the switch of {uplink}: are its ports up, are they trunks?")
        return
    for host in sorted(dead):
        text = f"uplink {uplink} of host {host} brings nothing to other hosts, on no VLAN"
        remedy = f"cable, NIC and switch port of {_nics(host, names)} on {host}; is the port a trunk?"
        yield NetworkFinding("uplink-cut", f"{uplink} {host}", text, remedy, (host,))
    for tag, by_host in heard.items():
        alive = {host: it for host, it in by_host.items() if host not in dead}
        yield from _of_vlan(HeardVlan.of(uplink, tag, alive, rows, names))
    strange = ((host, *entry) for host, row in rows.items() for entry in row.strange)
    for (sender, sent, came), receivers in sorted(_grouped(strange).items()):
        text = f"uplink {uplink}: frames that host {sender} sends {_vlan(sent)} come {_vlan(came)} to {_few(receivers)}"
        remedy = "the native (untagged) VLAN of their switch ports: it must not be one that networks tag"
        yield NetworkFinding("vlan-changed", f"{uplink} {sender} {sent} {came}", text, remedy, (sender,))


def _grouped(strange: Iterable[tuple[str, str, str, int, int]]) -> dict[tuple[str, int, int], list[str]]:
    found: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for receiver, sender, _, sent, came in strange:
        found[sender, sent, came].append(receiver)
    return found


def _heard(row: StatedUplink, tag: int) -> set[tuple[str, str]]:
    """The senders, hosts with NICs, that a host heard on a VLAN."""
    missing = row.missing.get(tag, ())
    return {sender for at, sender in enumerate(row.senders) if at not in missing}


def _cut(by_host: Mapping[str, set[tuple[str, str]]]) -> set[str]:
    """The hosts that hear no other one of these and are heard by none."""
    hears = {host: {sender for sender, _ in heard} & by_host.keys() for host, heard in by_host.items()}
    return {host for host in by_host if not hears[host] and not any(host in others for others in hears.values())}


def _vlan(tag: int) -> str:
    return f"on {_name(tag)}" if tag else "without a tag"


def _name(tag: int) -> str:
    if not tag:
        return "the untagged VLAN"
    return f"service VLAN {tag & ~SERVICE_VLAN}" if tag & SERVICE_VLAN else f"VLAN {tag}"


def _few(hosts: Iterable[str]) -> str:
    ordered = sorted(hosts)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


@dataclass(frozen=True, slots=True)
class HeardVlan:
    """Who heard whom on a VLAN of an uplink. by_host: of each host the senders, hosts with NICs. rows: all that hosts stated of the uplink. cut: hosts that hear
    nobody and are heard by nobody. mute: of the rest those that nobody hears."""

    uplink: str
    tag: int
    by_host: Mapping[str, set[tuple[str, str]]]
    rows: Mapping[str, StatedUplink]
    names: Links
    cut: Set[str]
    mute: Set[str]

    @classmethod
    def of(
        cls,
        uplink: str,
        tag: int,
        by_host: Mapping[str, set[tuple[str, str]]],
        rows: Mapping[str, StatedUplink],
        names: Links,
    ) -> HeardVlan:
        cut = _cut(by_host)
        heard = {sender for host, senders in by_host.items() for sender, _ in senders if sender != host}
        return cls(uplink, tag, by_host, rows, names, cut, by_host.keys() - cut - heard)

    @property
    def vlan(self) -> str:
        return _name(self.tag)

    @property
    def rest(self) -> Set[str]:
        return self.by_host.keys() - self.cut

    @property
    def remedy(self) -> str:
        return f"add {self.vlan} to the switch port" if self.tag else "let the switch port carry untagged frames"

    def hears(self, host: str) -> set[str]:
        """The others that a host hears."""
        return {sender for sender, _ in self.by_host[host]} & self.rest - {host}

    def at(self, host: str) -> str:
        return f"{host}'s switch port (uplink {self.uplink}, {_nics(host, self.names)})"

    def finding(self, code: str, text: str, remedy: str, hosts: Iterable[str], *subject: str) -> NetworkFinding:
        """subject: what it is about besides the VLAN."""
        return NetworkFinding(code, " ".join((self.uplink, str(self.tag), *subject)), text, remedy, tuple(hosts))


def _of_vlan(it: HeardVlan) -> Iterator[NetworkFinding]:
    """Whose switch port a VLAN is missing on, by the majority."""
    if len(it.by_host) < 2:
        return
    if it.rest:
        for each in (_missing, _one_way, _apart, _missing_on_members, _too_small):
            yield from each(it)
        return
    text = f"{it.vlan} of uplink {it.uplink}: no frame passes between {_few(it.by_host)}"
    remedy = f"{it.remedy}s of these hosts, or on the way between their switches"
    yield it.finding("vlan-missing", text, remedy, sorted(it.by_host))


def _missing(it: HeardVlan) -> Iterator[NetworkFinding]:
    remedy = f"{it.remedy}; {_few(it.rest)} hear each other on it"
    for host in sorted(it.cut):
        yield it.finding("vlan-missing", f"{it.vlan} is missing on {it.at(host)}", remedy, [host], host)


def _one_way(it: HeardVlan) -> Iterator[NetworkFinding]:
    remedy = "is the VLAN tagged there, both in and out? port security, an access list"
    for host in sorted(host for host in it.rest if host in it.mute or not it.hears(host)):
        mute = host in it.mute
        way = "leaves it to no other host, though frames come" if mute else "comes to it, though its own reach others"
        yield it.finding("vlan-one-way", f"{it.vlan} at {it.at(host)}: nothing {way}", remedy, [host], host)


def _apart(it: HeardVlan) -> Iterator[NetworkFinding]:
    """Hosts that hear some and are heard by some."""
    hears = {host: it.hears(host) for host in it.rest}
    apart = sorted((a, b) for a in it.rest - it.mute for b in it.rest if hears[b] and a not in hears[b] | {b})
    if not apart:
        return
    pairs = "; ".join(f"{b} does not hear {a}" for a, b in apart[:5])
    more = f"; and {len(apart) - 5} more" if len(apart) > 5 else ""
    text = f"{it.vlan} of uplink {it.uplink} does not reach from each host to each: {pairs}{more}"
    remedy = f"is {it.vlan} on every trunk between the switches of these hosts?"
    yield it.finding("vlan-apart", text, remedy, sorted({a for a, _ in apart}))


def _missing_on_members(it: HeardVlan) -> Iterator[NetworkFinding]:
    """NICs of an uplink by which a host is not heard, though it is by another one."""
    for host in sorted(it.rest - it.mute):
        heard = {link for other in it.rest - {host} for sender, link in it.by_host[other] if sender == host}
        for link in sorted(set(it.rows[host].links) - heard):
            text = f"{it.vlan} is missing on the switch port of {host}'s {it.names[host, link]}, a member of uplink {it.uplink}"
            yield it.finding("vlan-missing", text, f"{it.remedy}; has {link} a link?", [host], host, link)


def _too_small(it: HeardVlan) -> Iterator[NetworkFinding]:
    """Hosts of which small frames come, and none as large as the MTU."""
    narrow = [
        (sender, host)
        for host in it.rest
        for at in it.rows[host].narrow.get(it.tag, ())
        for sender, _ in it.rows[host].senders[at : at + 1]
    ]
    if not narrow:
        return
    short, receivers = sorted({sender for sender, _ in narrow}), {host for _, host in narrow}
    text = f"{it.vlan} of uplink {it.uplink}: frames as large as its MTU do not come from {_few(short)} to {_few(receivers)}; small ones do"
    remedy = "raise the MTU of the NICs ('mtu' of the uplink) and of the switch ports, or lower the network's"
    yield it.finding("vlan-mtu", text, remedy, short)


def _clocks(view: PoolView, statements: Mapping[str, HostHealth]) -> Iterator[NetworkFinding]:
    """Of a host that is off to most of its peers it is the clock that is; else nobody knows whose of two."""
    ahead: dict[tuple[str, str], int] = {}  # of the second by the first
    for name, it in tunnels_of(statements):
        if it.ahead_ms is not None and abs(it.ahead_ms) >= 1000:
            ahead.setdefault((name, it.peer), it.ahead_ms)
            ahead.setdefault((it.peer, name), -it.ahead_ms)
    if not ahead:
        return
    peers, off = peers_of(view, statements), Counter(host for _, host in ahead)
    wrong = {host for host, count in off.items() if count >= 2 and count * 2 > len(peers[host])}
    remedy = "'timedatectl' there: is NTP on, does it reach its servers?"
    for host in sorted(wrong):
        most = sorted(ms for (_, of), ms in ahead.items() if of == host)[off[host] // 2]
        text = f"the clock of host {host} is {_by(most)} those of {off[host]} others"
        yield NetworkFinding("clock", host, text, remedy, (host,))
    for (name, peer), ms in sorted(ahead.items()):
        if name < peer and not {name, peer} & wrong:
            text = f"the clock of host {peer} is {_by(ms)} that of host {name}"
            yield NetworkFinding("clock", f"{name} {peer}", text, remedy.replace("there", "on both"), (name, peer))


def _by(ms: int) -> str:
    return f"{abs(ms) / 1000:.0f} s {'ahead of' if ms > 0 else 'behind'}"
