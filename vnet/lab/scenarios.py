"""Pools with a fault, to learn with. One rule: a task is solved when packets say so, whichever way it was done.

Each begins with the same shop: two web servers and a database in tunnels, two desks on a VLAN.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vnet.client import Client
from vnet.lab.errors import CommandFailed, GuestPausedInLab, LabError, NotInLab, NotPluggedInLab
from vnet.lab.impairments import Impairment
from vnet.lab.lab import Lab
from vnet.lab.spec import Driver
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load

PROGRESS_FILE = "scenario.json"
SHOP = """\
apiVersion: vnet/v1
pool: shop

hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
  xen3: {address: 10.99.0.3, uplinks: {trunk0: {members: [eth1]}}}

underlay: {mtu: 1600}

networks:
  shop:  {type: vxlan}
  staff: {type: vlan, tag: 120, uplink: trunk0}

subnets:
  shop-v4:  {network: shop, cidr: 10.1.0.0/24}
  staff-v4: {network: staff, cidr: 192.168.120.0/24}

security-groups:
  web: {rules: [{name: http, direction: ingress, protocol: tcp, ports: [80, 443]}, {name: ping, direction: ingress, protocol: icmp}]}
  db:  {rules: [{name: ping, direction: ingress, protocol: icmp}, {name: from-web, direction: ingress, protocol: tcp, ports: [5432], remote: web}]}

vms:
  web1:  {host: xen1, vifs: [{network: shop, addresses: [10.1.0.10], security-groups: [web]}]}
  web2:  {host: xen2, vifs: [{network: shop, addresses: [10.1.0.11], security-groups: [web]}]}
  db1:   {host: xen3, vifs: [{network: shop, addresses: [10.1.0.20], security-groups: [db]}]}
  desk1: {host: xen1, vifs: [{network: staff, addresses: [192.168.120.10]}]}
  desk2: {host: xen3, vifs: [{network: staff, addresses: [192.168.120.11]}]}

expectations:
  - {name: web1 reaches the database, from: web1/0, to: db1/0, protocol: tcp, port: 5432, expect: reachable}
  - {name: web2 reaches the database, from: web2/0, to: db1/0, protocol: tcp, port: 5432, expect: reachable}
  - {name: nobody else does, from: desk1/0, to: db1/0, protocol: tcp, port: 5432, expect: unreachable}
"""
NO_EXPECTATIONS = SHOP[: SHOP.index("\nexpectations:")]
TYPO = NO_EXPECTATIONS.replace("ports: [5432]", "ports: [5423]")
CHANGES = (
    ("the shop has its own QoS class", "\nqos: {shop: {from-vm: 500mbit}}\n"),
    ("web servers are reached by ssh", "{name: ssh, direction: ingress, protocol: tcp, ports: [22], remote: web}, "),
)
Open = Iterator[str]  # what does not work yet, a sentence each


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault to find and to mend. task: what people see, and what is to be done. hints: from the first look to the answer.
    solution: commands that mend it, FILE being the document. fault: breaks a lab that works. open: what does not work yet."""

    name: str
    title: str
    task: str
    hints: tuple[str, ...]
    solution: tuple[str, ...]
    fault: Callable[[Lab], None]
    open: Callable[[Lab], Open]
    document: str = SHOP


def _arrives(lab: Lab, source: str, target: str, tcp: int | None = None) -> bool:
    try:
        return lab.connect(source, target, tcp=tcp).reached
    except (GuestPausedInLab, NotPluggedInLab):
        return False


def _shop_works(lab: Lab) -> Open:
    for web in ("web1", "web2"):
        if not _arrives(lab, web, "db1", tcp=5432):
            yield f"{web} does not reach db1 on TCP port 5432."
    if _arrives(lab, "web1", "db1", tcp=22):
        yield "web1 reaches db1 on TCP port 22: more is open than the shop needs."


def _desks_work(lab: Lab) -> Open:
    for a, b in (("desk1", "desk2"), ("desk2", "desk1")):
        if not _arrives(lab, a, b):
            yield f"{a} does not reach {b}."


def _large_packets_arrive(lab: Lab) -> Open:
    from scapy.layers.inet import ICMP, IP  # noqa: PLC0415 - takes a while to load
    from scapy.layers.l2 import Ether  # noqa: PLC0415

    with Client(f"unix:{lab.daemons.controller_socket}") as client:
        mtu = client.network("shop").mtu
    for a, b in (("web1", "web2"), ("web2", "web1")):
        source, target = lab.vif(a), lab.vif(b)
        header = IP(src=source.addresses[0], dst=target.addresses[0]) / ICMP()
        packet = Ether(src=source.mac, dst=target.mac) / header / bytes(mtu - len(header))
        if lab.send(f"{a}/0", packet).to != [f"{b}/0"]:
            yield f"A packet of {mtu} bytes, which VMs on network shop may send, does not get from {a} to {b}."


def _web2_runs(lab: Lab) -> Open:
    host = lab.location("web2")
    if host in (None, "xen2"):
        yield "web2 runs nowhere." if host is None else "web2 runs on xen2, which is still broken."
    else:
        yield from _shop_works(lab)


def _web1_pings(lab: Lab) -> Open:
    try:
        lab.run_in_vm("web1", "ping", "-c", "1", "-W", "2", "10.1.0.11")
    except CommandFailed:
        yield "ping in web1 gets no answer of web2 (10.1.0.11)."


def _readdress(lab: Lab) -> None:
    lab.run_in_vm("web1", "ip", "address", "del", "10.1.0.10/24", "dev", "eth0")
    lab.run_in_vm("web1", "ip", "address", "add", "10.1.0.12/24", "dev", "eth0")


def _experiment(lab: Lab) -> None:
    lab.ovs("xen2").ofctl("add-flow", "br-int", "priority=40000,ip,nw_dst=10.1.0.11,actions=drop")


def _change_often(lab: Lab) -> None:
    """Three revisions, of which the second has an error that its message does not tell."""
    qos, ssh = (text for _, text in CHANGES)
    first = NO_EXPECTATIONS.replace("\nvms:", f"{qos}\nvms:")
    second = first.replace("{name: ping", f"{ssh}{{name: ping", 1).replace("remote: web}]}\n", "remote: db}]}\n")
    third = second.replace("500mbit", "800mbit")
    for text, message in ((first, CHANGES[0][0]), (second, CHANGES[1][0]), (third, "800 Mbit/s are paid for")):
        with Client(f"unix:{lab.daemons.controller_socket}", reason=message) as client:
            client.apply(text.encode(), "shop.vnet.yaml")


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "missing-vlan",
            "A VLAN is missing on a port of the physical switch.",
            "desk1 (on xen1) and desk2 (on xen3) share the VLAN 120, and do not reach each other. vnet's document is right. Find the cable at whose end the VLAN is missing, and mend it.",
            (
                "Does vnet say that it should work? 'vnet trace desk1 desk2' asks the twin.",
                "'vnet trace desk1 desk2 --live' asks the hosts' switches as well, and sends packets: it says between which hosts they are lost.",
                "The frames leave xen1 and never get to xen3. In this lab the cables are those of 'vnet lab impair'.",
            ),
            ("vnet lab impair xen3:eth1",),
            lambda lab: lab.impair("xen3:eth1", Impairment(without_vlans=(120,))),
            _desks_work,
        ),
        Scenario(
            "small-mtu",
            "Small packets pass, large ones do not.",
            "web1 and web2 ping each other, and every download between them stands still. The document says that the underlay carries 1600 bytes. Find the link that does not, and mend it, or have the document say what is true.",
            (
                "Compare 'vnet lab exec web1 -- ping -c 1 -M do -s 1400 10.1.0.11' with '-s 1522': a VM may send 1550 bytes, 28 of them are headers.",
                "Between the hosts tunnels add 50 bytes. Ping from host to host: 'vnet lab host xen1 -- ping -c 1 -M do -s 1572 10.99.0.2', then to 10.99.0.3.",
                "Hosts look for themselves: half a minute after the fault came 'vnet doctor --pool' says which host's tunnels are narrow, and by how much.",
                "xen2's link to the other hosts carries 1500. Mend it with 'vnet lab impair', or write 'underlay: {mtu: 1500}' and apply.",
            ),
            ("vnet lab impair xen2:underlay",),
            lambda lab: lab.impair("xen2:underlay", Impairment(mtu=1500)),
            _large_packets_arrive,
        ),
        Scenario(
            "dead-host",
            "A host lost power, and a VM with it.",
            "xen2 is dead, and it does not come back today. Start its VM web2 on xen1, with its address and its policy.",
            (
                "'vnet status' counts a host as down 15 s after it was last heard of.",
                "A toolstack starts the guest elsewhere: 'vnet lab start web2 --on xen1'. 'vnet vif get web2/0' says why that is not enough.",
                "The VIF still belongs to xen2, which might only be cut off. You know that it is dead: 'vnet vm migrate web2 --to xen1 --activate'.",
            ),
            ("vnet lab start web2 --on xen1", "vnet vm migrate web2 --to xen1 --activate"),
            lambda lab: lab.lose_power("xen2"),
            _web2_runs,
        ),
        Scenario(
            "broken-policy",
            "A rule does not say what was meant.",
            "The shop is down since its policy was rolled out: web1 and web2 do not reach PostgreSQL on db1. Mend the rule in FILE and apply it; nothing else is to be opened.",
            (
                "'vnet trace web1 db1 --tcp 5432' ends with the table and the group that drops it.",
                "'vnet show rules' counts what each rule has matched. Which port does PostgreSQL have?",
                "The rule from-web allows 5423. Write 5432, then 'vnet plan FILE' and 'vnet apply FILE'. An expectation would have caught it.",
            ),
            ("sed -i s/5423/5432/ FILE", "vnet apply --yes FILE"),
            lambda _lab: None,
            _shop_works,
            TYPO,
        ),
        Scenario(
            "wrong-address",
            "A guest took another address than its own.",
            "Somebody logged in to web1 and changed its network. Since then it reaches nobody. Let it reach web2 again.",
            (
                "'vnet vif get web1/0' says which addresses it may use; 'vnet lab exec web1 -- ip -brief address' which it does use.",
                "'vnet show flows --vif web1/0', on its host with 'vnet lab host xen1 --', counts what the table GUARD has dropped.",
                "Give the guest its own address again, 10.1.0.10/24 on eth0; or give the VIF the new one in FILE, and apply it.",
            ),
            (
                "vnet lab exec web1 -- ip address del 10.1.0.12/24 dev eth0",
                "vnet lab exec web1 -- ip address add 10.1.0.10/24 dev eth0",
            ),
            _readdress,
            _web1_pings,
        ),
        Scenario(
            "bad-change",
            "One of many changes broke the shop.",
            "Three changes were made today, by three people, and the shop is down. Find the one that did it, and take it back; the others were right.",
            (
                "'vnet history' lists the changes with their reasons.",
                "'vnet bisect web1 db1 --tcp 5432' asks the twin of each revision, and names the change.",
                "'vnet export --at' the revision before it is a document of the pool then; what came after it is to be kept. The rule from-web of the group db lets in the group db now, in place of web.",
            ),
            (
                "vnet export >FILE",
                "sed -i 's/remote: db/remote: web/' FILE",
                "vnet apply --yes FILE",
            ),
            _change_often,
            _shop_works,
            NO_EXPECTATIONS,
        ),
        Scenario(
            "foreign-flow",
            "Somebody else wrote flows.",
            "Since an experiment with ovs-ofctl web2 gets nothing any more. Find what is not vnet's, and take it away.",
            (
                "'vnet status' names what it found on the hosts and did not make. It is left alone, always.",
                "'vnet lab host xen2 -- ovs-ofctl dump-flows br-int' lists all; those of vnet have cookies that begin with 0x766e.",
                "It is the one with priority 40000: 'ovs-ofctl --strict del-flows' takes the match of one flow.",
            ),
            ("vnet lab host xen2 -- ovs-ofctl --strict del-flows br-int priority=40000,ip,nw_dst=10.1.0.11",),
            _experiment,
            _web1_pings,
        ),
    )
}  # fmt: skip


@dataclass(slots=True)
class Lesson:
    """A scenario that is up in a lab, the document's file of who learns, and how many hints were given."""

    lab: Lab
    scenario: Scenario
    file: Path
    hints: int = 0

    @classmethod
    def start(cls, scenario: Scenario, lab_name: str, file: Path) -> Lesson:
        """Build the scenario's lab, write its document to `file`, and break it. Raises LabError, also where the file is there already."""
        text = scenario.document
        pool = desired_state(load(text.encode(), file.name), PoolState())
        try:
            with file.open("x") as written:
                written.write(text)
        except OSError as error:
            raise LabError(
                f"{file}: {error.strerror}; it would be the scenario's document: name another with --to"
            ) from None
        lab = Lab.up(pool, name=lab_name, driver=Driver.NETNS, daemons=True, document=str(file.resolve()))
        try:
            lab.start_all()
            scenario.fault(lab)
            lesson = cls(lab, scenario, file.resolve())
            lesson.write()
        except BaseException:
            lab.down()
            raise
        return lesson

    @classmethod
    def of(cls, lab: Lab) -> Lesson:
        """The scenario of a lab. Raises LabError if it is none."""
        try:
            found = json.loads((lab.spec.dir / PROGRESS_FILE).read_bytes())
        except FileNotFoundError:
            raise LabError(f"lab {lab.spec.name} is no scenario: 'vnet lab scenario start NAME' starts one") from None
        return cls(lab, scenario_named(found["scenario"]), Path(found["file"]), found["hints"])

    def write(self) -> None:
        """Keep how far it is, beside the lab."""
        progress = {"scenario": self.scenario.name, "file": str(self.file), "hints": self.hints}
        (self.lab.spec.dir / PROGRESS_FILE).write_text(json.dumps(progress))

    def hint(self) -> str | None:
        """The next hint, and once all were given the commands that mend it; then None."""
        given, hints = self.hints, self.scenario.hints
        if given > len(hints):
            return None
        self.hints += 1
        self.write()
        return hints[given].replace("FILE", str(self.file)) if given < len(hints) else "\n".join(self.solution())

    def solution(self) -> list[str]:
        """The commands that mend it."""
        return [command.replace("FILE", str(self.file)) for command in self.scenario.solution]

    def open(self) -> list[str]:
        """What does not work yet, a sentence each; none is solved."""
        return list(self.scenario.open(self.lab))


def scenario_named(name: str) -> Scenario:
    """Raises NotInLab with the nearest."""
    if name not in SCENARIOS:
        raise NotInLab("scenario", name, list(SCENARIOS))
    return SCENARIOS[name]
