"""docs/topology.md, from the same fields as the loader and the JSON Schema. One rule: no meaning is written twice.

`python -m vnet.topology.reference` writes it and vnet.schema.json; a test says when either is old.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from enum import Enum
from pathlib import Path

from vnet.grammar.declare import Attr, Shape, Spelling
from vnet.grammar.value_types import ListOf, NotYet
from vnet.objects.limits import (
    LOGGED_OF_RULE,
    LOGGED_OF_VIF,
    MAX_ADDRESSES_OF_NETWORK,
    MAX_ADDRESSES_OF_SET,
    MAX_MONITORS_OF_VIF,
    MAX_REMOTE_GROUPS,
    REJECTIONS_OF_HOST,
    REJECTIONS_OF_VIF,
)
from vnet.topology.document import Children, root_shape
from vnet.topology.schema import declared_of, needed, schema_text, shape_in_document
from vnet.topology.yaml_tree import MAX_BYTES

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA_FILE = Path(__file__).with_name("vnet.schema.json")
REFERENCE_FILE = REPOSITORY / "docs" / "topology.md"

_HEAD = f"""\
# The topology document

<!-- Generated from the declarations in vnet/objects by `python -m vnet.topology.reference`. Change it there. -->

A file named `*.vnet.yaml` says what a pool is: hosts, networks, subnets, VMs, who may reach whom, and who should. `vnet validate`
checks it, `vnet plan` shows what applying it would change, `vnet apply` does it, `vnet export` writes a pool as one.

```yaml
# yaml-language-server: $schema=../vnet/topology/vnet.schema.json
apiVersion: vnet/v1
pool: office

hosts:
  xen1: {{address: 10.99.0.1, uplinks: {{trunk0: {{members: [eth1]}}}}}}
  xen2: {{address: 10.99.0.2, uplinks: {{trunk0: {{members: [eth7]}}}}}}  # NICs differ, the uplink's name does not

underlay: {{mtu: 1600}}

networks:
  staff:    {{type: vlan, tag: 120, uplink: trunk0}}
  tenant-a: {{type: vxlan}}  # a VNI is allocated and kept

subnets:
  tenant-a-v4: {{network: tenant-a, cidr: 10.1.0.0/24, gateway: 10.1.0.1}}

security-groups:
  web: {{rules: [{{name: http, direction: ingress, protocol: tcp, ports: [80, 443]}}]}}
  db:  {{rules: [{{name: from-web, direction: ingress, protocol: tcp, ports: [5432], remote: web}}]}}

vms:
  web1: {{host: xen1, vifs: [{{network: tenant-a, addresses: [10.1.0.10], security-groups: [web]}}]}}
  db1:  {{host: xen2, vifs: [{{network: tenant-a, security-groups: [db]}}]}}  # a MAC and an address are allocated and kept

expectations:
  - {{name: web reaches its database, from: web1/0, to: db1/0, protocol: tcp, port: 5432, expect: reachable}}
```

## How it is read

- **YAML 1.2**, UTF-8, one document, at most {MAX_BYTES // 2**20} MiB. A word is what its key wants it to be: no MAC becomes a number, `on` is
  a word, a number with a leading zero is refused. Quotes around a number make it a string, and are refused where a number is wanted.
- **Equal keys** in one map are an error. So are tags (`!!str`), merge keys (`<<`) and a second document.
- **Anchors and aliases** (`&a`, `*a`) repeat whole values. The repeated values count: an alias of aliases is soon too much.
- **Several files**: `include: [networks/*.vnet.yaml, vms.vnet.yaml]` adds the sections of other files, which state names of their own and include nothing. Problems say the file.
  `vnet plan`, `apply`, `check` and the others read them; a program says `vnet.topology.read_file(FILE)`. Together they have at most {MAX_BYTES // 2**20} MiB.
- **Ranges of names**: `web[001-200]: {{...}}` under `vms` stands for 200 VMs, web001 to web200, that are equal but for what is allocated.
- **Everything is a map keyed by name**; only VIFs and expectations, whose order or number matters, and rules are lists.
- **Names** have letters, digits, `.`, `_` and `-`, at most 63, a letter or digit at both ends. An uplink's has at most 12.
- **All errors come at once**, each with `file:line:column`, the line, and what to do, those of single values and those between objects alike. Only where a text is no YAML, or repeats an anchor that is not there, that comes alone. What only the running pool
  can tell, as that a toolstack has an address, `vnet plan` says. Nothing is changed then.
- **What is left out is allocated once and kept** for the object's life: VNIs, keys, MACs, addresses. Order in the document does
  not matter to it. Two objects swap nothing: an id that one gives up goes to no other in the same apply.
- **An object that the document no longer has goes away. An object that the toolstack made stays**, and the document cannot take its names, addresses
  or networks: that is refused, and says which object is in the way.
- **`vnet export` writes what a document may say**, with all numbers, MACs and addresses that were allocated, so that applying it changes nothing. It leaves out what the toolstack made, and says so in a comment; it knows no
  comments, anchors, included files and ranges of names of the document that was applied.

## In an editor, before a commit, in CI

`vnet schema` prints the JSON Schema that editors complete and check by; `vnet explain networks.*.mtu` says what a key means. `vnet fmt pool.vnet.yaml` lays a document out: keys in order, indentation, quotes; comments stay (`--check`, `--diff`, `-` for standard input). Hooks for [pre-commit](https://pre-commit.com) are `vnet-validate`, `vnet-fmt` and `vnet-check`.
`vnet validate FILE...` and `vnet check FILE` write what CI systems show: `--junit report.xml` for GitLab and Jenkins, `--annotate github` at the lines of a change.

## The keys
"""

_TAIL = (
    f"""
## What a VIF may send: locking modes

| `locking-mode` | may send |
|---|---|
| `locked`, with addresses | as its own MAC: ARP, IPv4, IPv6 and neighbour discovery with its own addresses, and RARP |
| `locked`, without addresses | anything as its own MAC |
| `unlocked` | anything but frames from group addresses and those that bridges do not forward (01:80:c2:00:00:0x) |
| `disabled` | nothing, and nothing reaches it |

What a guest sends before it has an address, a locked VIF may send all the same: DHCP requests from 0.0.0.0 and link-local addresses, duplicate address detection, router solicitations, reports of IGMP and MLD. It chooses a link-local
IPv6 address by itself, if nobody on the network has it ([why so](adr/0015-link-locals-are-chosen.md)). Router advertisements, redirects and answers of DHCP servers take `router` and `dhcp-server`; further MACs and virtual routers are
[identities](identities.md) of a VIF. A tagged frame is lost unless the VIF is a trunk.

## Who may talk to whom: security groups

- A VIF in no group is not filtered. A VIF in groups obeys the rules of all of them together; the order of rules means nothing.
- **Drop wins.** Where a rule that drops matches, the packet is dropped, whatever else matches. Else where one that rejects matches, it is
  rejected. Else where one that allows matches, it passes. Else each group's `default` is asked, in the same order.
- Rules are about who **begins**: the replies to what they allow pass, and so do the errors (ICMP) that belong to it. A connection
  that rules no longer allow ends when they change.
- What finds neighbours and addresses passes whatever rules say, as far as those protocols need it: ARP, neighbour discovery and MLD on the link, a DHCP client's
  messages to everyone, and the answers of servers.
- `remote: GROUP` is the members of the group on the VIF's own network, by the addresses that the pool knows of them, wherever they run.
- `remote` may be a list of address ranges and groups, of both IP versions: one of them is enough (`[10.0.0.0/8, "fd00::/8", ops]`).
- `remote` may also name an address set: `address-sets: {{offices: [10.20.0.0/16, "fd00:20::/32"]}}`. A set changes without any rule: each host that has VIFs whose rules name it gets its row once. A set
  has at most {MAX_ADDRESSES_OF_SET} ranges, all that the rules on one network name at most {MAX_ADDRESSES_OF_NETWORK}. No set is named like a group.
- `remote` may name a label: `remote: "label:app=shop"` is the VIFs on the same network that have it. `labels: {{app: shop}}` stand on VMs, VIFs and networks; a VIF has those of its network, of its VM and its own, and of
  one key the nearest to it holds. A label that comes or goes changes a flow or two of each of that VM's VIFs on each host, and no rule. A token with a scope gives no labels: rules of others let in who has them.
- `remote: "network:NAME"` is those with an address in one of the network's subnets, as they are at the time, wherever packets come from: its VIFs that come by a router, for one.
- `tier: pool` has a group judge every VIF, `tier: network` or `vm` those of the networks and VMs that name it (`networks: {{lan: {{security-groups: [base]}}}}`), and `selector: {{app: shop}}` those with labels. Its `mandatory` rules
  decide first, the pool's before the network's before the VM's; then the rules of the VIF's own groups; then its other rules, the VM's before the network's before the pool's; then the defaults of the VIF's groups. The first of
  these steps in which a rule matches decides, and drop wins within it. Such a group has no `default`, and is no `remote`. Trunk VIFs, and VIFs inside a service tag, it does not judge. Traces, `vnet show rules` and log lines say the tier
  ([how](adr/0029-tiers-are-steps.md), [an example](../topologies/tiers.vnet.yaml)). An agent of a version without tiers does not obey them: bring agents up to date first.
- `ports` are lists of numbers and ranges (`[80, "443-445"]`); ranges that touch or overlap are one.
- `icmp` names the messages that begin a conversation, as `[echo-request]`. Replies and errors pass with what they belong to.
- `stateful: false` has a group track no connections: each packet is judged by itself, in each direction by that direction's rules. So answers need a rule of their own, a TCP segment need not
  follow a SYN, and nothing of it counts towards a VIF's limit of connections. Rules may say `source-ports` besides `ports`, and any ICMP message, as `echo-reply` or `packet-too-big`. A later fragment of a packet says no ports, and with IPv6
  not even its protocol: it passes only where it would whatever these are. So what rules allow by ports passes in fragments only if another rule, or the default, allows all ports: networks with services that send larger packets need that, or a group that tracks.
  A VIF is in groups that track or in groups that do not. What `log` writes of such a group is each packet, within the same limits. A group that is to track again picks up TCP connections for 300 s, as after a move ([why so](adr/0034-stateless-groups.md)).
- `action: reject` drops a packet and tells its sender: by a TCP reset, or by ICMP that the port is unreachable (UDP) or that it is prohibited (the rest). A VIF answers at most
  {REJECTIONS_OF_VIF} of the packets that its rules reject a second, a host {REJECTIONS_OF_HOST}; the others are dropped in silence, and so are all while the host's agent is down. Never answered are resets, errors of ICMP, packets to or from groups
  or broadcast, and those whose source is another VIF's. A default may be `reject` as well.
- `log: true` has hosts write a line into their agent's log of what a rule forbids, and of what begins a connection that it allows: VIF, VM, group, rule, the rule's place in the document, and the packet's protocol,
  addresses and ports. A host writes at most {LOGGED_OF_RULE} lines a second about a rule, of at most {LOGGED_OF_VIF} packets a second of a VIF; a line says how many packets before it had none. What decides by default is not logged.
- `vnet show rules` counts the packets that each rule and each default has matched, answers included, since each host has it, summed over the hosts; one that does not
  answer is named. So do `vnet security-group counters NAME` and `GET /v1/security-groups/NAME/counters`. `vnet show rules --here` asks this host's agent alone. Where two
  rules match the same packets, the first by name counts them.
- `mode: monitor` has a group drop nothing: what it would drop or reject is counted and logged. A VIF obeys those of its groups that enforce, as if it were in no others; one whose groups are all in
  monitor mode is not filtered. Each monitoring group is judged by itself beside those that enforce, so what is seen is what changes if it alone is switched to `enforce`. After a switch what is allowed goes on, and what is not ends
  at once, both ways. `vnet policy show NAME` lists what it would have forbidden, per pair of VIFs, on all hosts; `vnet policy suggest NAME` writes the rules that would allow it, as YAML, and so does `GET /v1/security-groups/NAME/monitored`. Read
  them first: what was seen may be hostile. Hosts count each packet, and look at {LOGGED_OF_VIF} a second of a VIF that begin something ([how](adr/0020-a-group-may-only-watch.md)). At most {MAX_MONITORS_OF_VIF} groups of a VIF may be in monitor mode.
  An agent of a version without monitor mode enforces such a group: bring agents up to date first.
- The rules of all VIFs on one network may name {MAX_REMOTE_GROUPS} groups, labels, networks and address sets as `remote`.

"""
    + """\
## What fits: the MTU

`networks.*.mtu` is what a VM may use; `underlay.mtu` is what the physical network carries between hosts.

| type | over IPv4 | over IPv6 | because |
|---|---|---|---|
| `vxlan`, `geneve` | underlay - 50 | underlay - 70 | outer IP 20 or 40, UDP 8, VXLAN or Geneve 8, inner Ethernet 14 |
| `gre` | underlay - 42 | underlay - 62 | outer IP 20 or 40, GRE with a key 8, inner Ethernet 14 |
| encrypted | 80 less: `vxlan` underlay - 130 | 80 less: `vxlan` underlay - 150 | the tunnel is over IPv6, and WireGuard takes 60 over IPv4 or 80 over IPv6 |
| `vlan` | 1500, or the uplink's if less | the same | a tag does not count in the MTU; other stations expect 1500 |
| `internal` | 1500 | the same | no wire |

A larger one may be said as long as it fits: up to the sum above, to the uplink's `mtu` (where that is not said, `underlay.mtu`),
and to 9216 on an internal network. An MTU that does not fit is refused, with the sum.
"""
)


def reference_text() -> str:
    """The whole page."""
    root = root_shape()
    return _HEAD + _section("The document", root, ("apiVersion", "pool")) + "".join(_below(root, "")) + _TAIL


def _below(shape: Shape, path: str) -> Iterator[str]:
    """A section for each map inside a map, from the outside in."""
    for word, item in shape.words.items():
        if isinstance(item, Shape):
            yield _section(f"`{path}{word}`", item)
            yield from _below(item, f"{path}{word}.")
        elif (declared := declared_of(item[1].type)) is not None:
            listed = isinstance(item[1].type, Children | ListOf) or (hasattr(declared, "NOUN") and declared.NOUN.listed)
            inside = f"{path}{word}{'[]' if listed else '.*'}"
            shown = shape_in_document(declared)
            yield _section(f"`{inside}`", shown, needed(declared))
            yield from _below(shown, f"{inside}.")


def _section(title: str, shape: Shape, required: tuple[str, ...] = ()) -> str:
    lines = [f"\n### {title}\n", shape.doc + "\n", "| key | value | left out | meaning |", "|---|---|---|---|"]
    for word, item in shape.words.items():
        if isinstance(item, Shape):
            lines.append(f"| `{word}` | a map |  | {item.doc} |")
            continue
        found, spelling = item
        default = "**needed**" if word in required else left_out(found, spelling)
        value = "not supported yet" if isinstance(spelling.type, NotYet) else spelling.type.expected
        lines.append(f"| `{word}` | {value} | {default} | {spelling.doc} |")
    return "\n".join(lines) + "\n"


def left_out(found: Attr, spelling: Spelling) -> str:
    """What a field is that a document leaves out, as the reference has it; "" where nothing is to be said."""
    if spelling.only:
        types = " and ".join(f"`{word}`" for word in spelling.only)
        return f"needed for {types}" if spelling.needed else f"only for {types}"
    default = found.default
    if found.allocated or default is MISSING or default is None or isinstance(default, tuple | frozenset | dict):
        return ""
    return f"`{default.value if isinstance(default, Enum) else default}`"


def main() -> None:
    """Write both generated files."""
    SCHEMA_FILE.write_text(schema_text())
    REFERENCE_FILE.write_text(reference_text())


if __name__ == "__main__":
    main()
