"""A XenServer pool that speaks XenAPI, for tests: XML-RPC and JSON-RPC, sessions, event.from with tokens, and the order in which xapi does things.

One rule: it refuses what xapi refuses, by xapi's codes, and drives the hosts of a lab with the calls of xapi's scripts. Read in xen-api e2ee48d6:
xapi_event.ml, xapi_network.ml, xapi_network_attach_helpers.ml, xapi_vif.ml, xapi_vm_migrate.ml, message_forwarding.ml, xenopsd/scripts/common.py.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xmlrpc.client import dumps, loads

from ovsctl.ovsdb import Tls
from tests.polling import wait_until
from tests.xenserver.scripts import add_tunnel_port, end_of, external_ids, move_device, plug_device, sync, unplug_device
from vnet.lab import Lab
from vnet.lab.names import NETNS_DIR, vm_netns
from vnet.objects import LockingMode, Vif

NULL = "OpaqueRef:NULL"
MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
USER, PASSWORD = "root", "its password"
RESERVED_BRIDGES = ("xen", "xapi", "vif", "tap", "eth")
PORT_S = 20.0  # the longest that a VM start waits for its ports, where a hook does


class Failure(Exception):
    """A call that xapi refuses: its code and what the code is about."""

    def __init__(self, *details: str) -> None:
        super().__init__(*details)
        self.details = list(details)


@dataclass
class Table:
    """The records of a class by reference, with the generation in which each came and changed, and those that went."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)


class XenPool:
    """The pool. hosts: names of the lab's hosts with the address that each answers at; the first is the master."""

    def __init__(self, lab: Lab, hosts: Mapping[str, str]) -> None:
        self.lab = lab
        self.tables: dict[str, Table] = {
            name: Table() for name in ("pool", "host", "network", "vif", "vm", "pif", "tunnel")
        }
        self.generation = 0
        self.sessions: set[str] = set()
        self.lost = False  # what a call of event.from answers next is not all
        self.password = PASSWORD
        self.refuses = (
            ""  # the code by which every call is refused, as of a host that still starts, or is in its emergency mode
        )
        self.drops_events = False  # whether the next call of event.from is told that events were dropped
        self._changed = threading.Condition(threading.RLock())
        self.addresses = dict(hosts)
        self._domains: dict[tuple[str, str], int] = {}  # domain ids by a VM's uuid and host, of each host from 1 on
        self.emulated: set[str] = set()  # VMs whose drivers have not started
        self._last_domain: dict[str, int] = dict.fromkeys(hosts, 0)
        self._hosts = {name: self._add("host", hostname=name, name_label=f"host {name}", address=address, other_config={}, enabled=True)
                       for name, address in hosts.items()}  # fmt: skip
        self.master = next(iter(hosts))
        self._pool = self._add("pool", name_label="pool", master=self._hosts[self.master], other_config={})
        self.management = self._add(
            "network", name_label="Pool-wide network associated with eth0", name_description="", MTU="1500", other_config={}, bridge="xenbr0",
            managed=True, tags=[], default_locking_mode="unlocked",
        )  # fmt: skip
        for n, ref in enumerate(self._hosts.values(), 1):
            self._add("pif", network=self.management, host=ref, device="eth0", VLAN="-1", management=True, IP=f"10.99.0.{n}", bond_slave_of=NULL,
                      tunnel_access_PIF_of=[])  # fmt: skip
        self._calls: Mapping[str, Callable[..., Any]] = {
            "network.create": self._network_create,
            "network.destroy": self._network_destroy,
            "VIF.create": self._vif_create,
            "PIF.db_introduce": self._pif_db_introduce,
            "PIF.db_forget": lambda pif: self._drop("pif", pif),
            "VIF.destroy": self._vif_destroy,
            "VIF.move": self.move_vif,
        }

    # The database

    def _add(self, table: str, **fields: Any) -> str:
        with self._changed:
            ref = f"OpaqueRef:{uuid.uuid4()}"
            self.generation += 1
            found = self.tables[table]
            found.rows[ref] = {"uuid": str(uuid.uuid4()), **fields}
            found.created[ref] = found.changed[ref] = self.generation
            self._changed.notify_all()
            return ref

    def write(self, table: str, ref: str, **fields: Any) -> None:
        """Fields of a record change, in one step."""
        with self._changed:
            self.generation += 1
            self.tables[table].rows[ref] |= fields
            self.tables[table].changed[ref] = self.generation
            self._changed.notify_all()

    def _drop(self, table: str, ref: str) -> None:
        with self._changed:
            self.generation += 1
            found = self.tables[table]
            del found.rows[ref], found.created[ref], found.changed[ref]
            found.deleted[ref] = self.generation
            self._changed.notify_all()

    def record(self, table: str, ref: str) -> dict[str, Any]:
        """A copy of a record."""
        with self._changed:
            if ref not in self.tables[table].rows:
                raise Failure("HANDLE_INVALID", table, ref)
            return json.loads(json.dumps(self.tables[table].rows[ref]))  # type: ignore[no-any-return]

    def ref(self, table: str, uuid: str) -> str:
        """The reference of a record."""
        return next(ref for ref, row in self.tables[table].rows.items() if row["uuid"] == uuid)

    # Calls

    def call(self, address: str, method: str, params: list[Any]) -> Any:
        """One call at a host's address. Raises Failure."""
        if address != self.addresses[self.master]:
            raise Failure("HOST_IS_SLAVE", self.addresses[self.master])
        if self.refuses:
            raise Failure(self.refuses)
        if method == "session.login_with_password":
            if params[:2] != [USER, self.password]:
                raise Failure("SESSION_AUTHENTICATION_FAILED", str(params[0]), "Authentication failure")
            session = f"OpaqueRef:{uuid.uuid4()}"
            self.sessions.add(session)
            return session
        if not params or params[0] not in self.sessions:
            raise Failure("SESSION_INVALID", str(params[:1]))
        session, *args = params
        if method == "session.logout":
            self.sessions.discard(session)
            return ""
        if method == "event.from":
            return self._events(session, *args)
        if method in self._calls:
            return self._calls[method](*args)
        table, _, name = method.partition(".")
        if name == "get_record":
            return self.record(table.lower(), args[0])
        if name == "get_all_records":
            with self._changed:
                return json.loads(json.dumps(self.tables[table.lower()].rows))
        if name.startswith("set_"):
            self.record(table.lower(), args[0])
            return self.write(table.lower(), args[0], **{name.removeprefix("set_"): args[1]})
        raise Failure("MESSAGE_METHOD_UNKNOWN", method)

    def _events(self, session: str, classes: list[str], token: str, timeout: float) -> dict[str, Any]:
        try:
            since = int(token.split(",", maxsplit=1)[0]) if token else 0
        except ValueError:
            raise Failure("EVENT_FROM_TOKEN_PARSE_FAILURE", token) from None
        tables = [name for name in self.tables if name in classes]
        if self.drops_events:
            self.drops_events = False
            raise Failure("EVENTS_LOST")
        with self._changed:
            self._changed.wait_for(lambda: session not in self.sessions or bool(self._since(tables, since)), timeout)
            if session not in self.sessions:
                raise Failure("SESSION_INVALID", session)
            events, self.lost = ([] if self.lost else self._since(tables, since)), False
            counts = {name: len(table.rows) for name, table in self.tables.items()}
            return {"events": events, "valid_ref_counts": counts, "token": f"{self.generation:020d},{0:020d}"}

    def _since(self, tables: list[str], since: int) -> list[dict[str, Any]]:
        """The events after a generation. xapi gives an object's last state, once, and of what came and went in between only the end."""
        found = []
        for name in tables:
            table = self.tables[name]
            for ref, changed in table.changed.items():
                if changed > since:
                    operation = "add" if table.created[ref] > since else "mod"
                    row = json.loads(json.dumps(table.rows[ref]))
                    found.append(
                        {
                            "id": str(changed),
                            "timestamp": "0.0",
                            "class": name,
                            "operation": operation,
                            "ref": ref,
                            "snapshot": row,
                        }
                    )
            found += [
                {"id": str(gone), "timestamp": "0.0", "class": name, "operation": "del", "ref": ref}
                for ref, gone in table.deleted.items()
                if gone > since > 0
            ]
        return found

    def _network_create(self, record: dict[str, Any]) -> str:
        bridges = [row["bridge"] for row in self.tables["network"].rows.values()]
        bridge = record.get("bridge", "")
        if bridge and (len(bridge) > 15 or bridge.startswith(RESERVED_BRIDGES)):
            raise Failure("INVALID_VALUE", "bridge", bridge)
        if bridge in bridges:
            raise Failure("BRIDGE_NAME_EXISTS", bridge)
        bridge = bridge or next(name for n in range(100) if (name := f"xapi{n}") not in bridges)
        return self._add(
            "network", name_label=record["name_label"], name_description=record["name_description"], MTU=str(record["MTU"]),
            other_config=dict(record["other_config"]), bridge=bridge, managed=record.get("managed", True), tags=list(record["tags"]),
            default_locking_mode="unlocked",
        )  # fmt: skip

    def _pif_db_introduce(self, *values: Any) -> str:
        names = (
            "device", "network", "host", "MAC", "MTU", "VLAN", "physical", "ip_configuration_mode", "IP", "netmask", "gateway", "DNS", "bond_slave_of",
            "VLAN_master_of", "management", "other_config", "disallow_unplug", "ipv6_configuration_mode", "IPv6", "ipv6_gateway",
            "primary_address_type", "managed", "properties",
        )  # fmt: skip
        record = dict(zip(names, values, strict=True))
        for table in ("network", "host"):
            self.record(table, record[table])
        return self._add("pif", **record, tunnel_access_PIF_of=[])

    def assert_agile(self, vm: str) -> None:
        """VM.assert_agile: each host has a PIF on its networks (agility.ml)."""
        for _, row in self.vifs(vm):
            there = {pif["host"] for pif in self.tables["pif"].rows.values() if pif["network"] == row["network"]}
            if not there >= set(self._hosts.values()):
                raise Failure("HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED", row["network"])

    def _network_destroy(self, ref: str) -> None:
        self.record("network", ref)
        attached = [
            vif for vif, row in self.tables["vif"].rows.items() if row["network"] == ref and row["currently_attached"]
        ]
        if attached:
            raise Failure("NETWORK_CONTAINS_VIF", *attached)
        if pifs := [pif for pif, row in self.tables["pif"].rows.items() if row["network"] == ref]:
            raise Failure("NETWORK_CONTAINS_PIF", *pifs)
        for vif in [vif for vif, row in self.tables["vif"].rows.items() if row["network"] == ref]:
            self._drop("vif", vif)
        self._drop("network", ref)

    def _vif_create(self, record: dict[str, Any]) -> str:
        vm = self.record("vm", record["VM"])
        self.record("network", record["network"])
        mac = record["MAC"].lower()
        if not MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
            raise Failure("MAC_INVALID", record["MAC"])
        if any(
            row["VM"] == record["VM"] and row["device"] == record["device"] for row in self.tables["vif"].rows.values()
        ):
            raise Failure("DEVICE_ALREADY_EXISTS", record["device"])
        del vm
        usual = {
            "locking_mode": "network_default", "ipv4_allowed": [], "ipv6_allowed": [], "other_config": {}, "qos_algorithm_type": "",
            "qos_algorithm_params": {}, "trunks": [],
        }  # fmt: skip
        return self._add("vif", **{**usual, **record, "MAC": mac, "currently_attached": False})

    def _vif_destroy(self, ref: str) -> None:
        vif = self.record("vif", ref)
        if vif["currently_attached"] and self.record("vm", vif["VM"])["power_state"] == "Running":
            raise Failure("OPERATION_NOT_ALLOWED", "VIF currently attached to a running VM")
        self._drop("vif", ref)

    def destroy_vm(self, vm: str) -> None:
        """VM.destroy: its VIFs go with it."""
        if self.record("vm", vm)["power_state"] != "Halted":
            raise Failure("VM_BAD_POWER_STATE", vm, "halted", "running")
        for vif, _ in self.vifs(vm):
            self._drop("vif", vif)
        self._drop("vm", vm)

    def lose_events(self) -> None:
        """The events of what happens until the next call are lost, as of a database that was restored."""
        self.lost = True

    def become_master(self, host: str) -> None:
        """Another host is the pool's master: sessions were the old one's."""
        with self._changed:
            self.master = host
            self.sessions.clear()
            self.write("pool", self._pool, master=self._hosts[host])

    def crash(self, vm: str) -> None:
        """The VM's host died, and its pool has found out: its devices stay where they are, and nobody looks after them."""
        self.lab.run(self.record("vm", vm)["uuid"], None)
        self.write("vm", vm, power_state="Halted", resident_on=NULL)

    # VMs, as people and xapi itself drive them

    def create_vm(self, label: str, emulated: bool = False) -> str:
        """emulated: a guest without drivers of its own, to which QEMU gives NICs."""
        vm = self._add(
            "vm", name_label=label, power_state="Halted", resident_on=NULL, scheduled_to_be_resident_on=NULL, is_a_template=False,
            is_a_snapshot=False, is_control_domain=False, current_operations={},
        )  # fmt: skip
        if emulated:
            self.emulated.add(vm)
        return vm

    def create_vlan(self, label: str, bridge: str, tag: int) -> str:
        """A network that is a VLAN of eth0 on each host (VLAN.create): its bridge is a fake one of eth0's (networkd)."""
        network = self._add(
            "network", name_label=label, name_description="", MTU="1500", other_config={}, bridge=bridge, managed=True, tags=[],
            default_locking_mode="unlocked",
        )  # fmt: skip
        for ref in self._hosts.values():
            self._add("pif", network=network, host=ref, device="eth0", VLAN=str(tag), management=False, IP="", bond_slave_of=NULL,
                      tunnel_access_PIF_of=[])  # fmt: skip
        return network

    def create_tunnels(self, label: str, bridge: str, encapsulation: str, key: int) -> str:
        """A network of Xen Orchestra's controller: tunnel.create on each host, and ports of its own to the first host, which is the centre."""
        network = self._add(
            "network", name_label=label, name_description="", MTU="1500", bridge=bridge, managed=True, tags=[], default_locking_mode="unlocked",
            other_config={"xo:sdn-controller:encapsulation": encapsulation, "xo:sdn-controller:vni": str(key), "xo:sdn-controller:private-network-uuid": "x"},
        )  # fmt: skip
        uuid = self.record("network", network)["uuid"]
        for n, (name, ref) in enumerate(self._hosts.items(), 1):
            tunnel = self._add("tunnel", protocol=encapsulation, access_PIF=NULL)
            pif = self._add("pif", network=network, host=ref, device=f"tunnel{n}", VLAN="-1", management=False, IP="", bond_slave_of=NULL,
                            tunnel_access_PIF_of=[tunnel])  # fmt: skip
            self.write("tunnel", tunnel, access_PIF=pif)
            ovs = self.lab.ovs(name)
            ovs.vsctl(
                "--may-exist",
                "add-br",
                bridge,
                "--",
                "set",
                "bridge",
                bridge,
                f"datapath_type={self.lab.spec.datapath_type}",
                f"external_ids:xs-network-uuids={uuid}",
            )
            for port in ovs.vsctl("list-ports", bridge).split():
                if port.endswith("-nic"):  # the lab's, where an uplink is a bridge
                    ovs.vsctl("del-port", port)
            for peer in range(2, len(self._hosts) + 1) if n == 1 else (1,):
                add_tunnel_port(self.lab, name, bridge, peer, encapsulation, key)
        return network

    def create_vif(self, vm: str, network: str, device: str, mac: str, **more: Any) -> str:
        return self._vif_create({"VM": vm, "network": network, "device": device, "MAC": mac, "MTU": "1500", **more})

    def vifs(self, vm: str) -> list[tuple[str, dict[str, Any]]]:
        with self._changed:
            return [(ref, dict(row)) for ref, row in self.tables["vif"].rows.items() if row["VM"] == vm]

    def lab_vif(self, row: Mapping[str, Any]) -> Vif:
        """A VIF as the lab's driver knows it. Its network there decides its device's MTU."""
        network = self.record("network", row["network"])["other_config"].get(
            "vnet-network", self.lab.spec.networks[0].name
        )
        vm = self.record("vm", row["VM"])["uuid"]
        return Vif(row["uuid"], network, row["MAC"], vm=vm, index=int(row["device"]), locking_mode=LockingMode.UNLOCKED)

    def start(self, vm: str, host: str) -> None:
        """VM.start_on: the host is reserved, networks are attached, devices are plugged, then it runs."""
        record = self.record("vm", vm)
        if record["power_state"] != "Halted":
            raise Failure("VM_BAD_POWER_STATE", vm, "halted", record["power_state"].lower())
        self.write("vm", vm, scheduled_to_be_resident_on=self._hosts[host])
        try:
            self._attach(vm, host)
            if not any(guest.name == record["uuid"] for guest in self.lab.spec.guests):
                self.lab.add_vm(record["uuid"], [self.lab_vif(row) for _, row in self.vifs(vm)], host)
            self._plug(vm, host)
            self._connect(vm, host)
            self.lab.run(record["uuid"], self._end(vm, host))
            sync(self.lab, host)  # at its leisure
            self.write("vm", vm, power_state="Running", resident_on=self._hosts[host])
        finally:
            self.write("vm", vm, scheduled_to_be_resident_on=NULL)

    def shutdown(self, vm: str) -> None:
        """VM.hard_shutdown."""
        record = self.record("vm", vm)
        self.lab.run(record["uuid"], None)
        for at in [at for name, at in self._domains if name == record["uuid"]]:  # also what a crash has left
            self._unplug(vm, at)
        self.lab.remove_vm(record["uuid"])
        self.write("vm", vm, power_state="Halted", resident_on=NULL)
        for vif, _ in self.vifs(vm):
            self.write("vif", vif, currently_attached=False)

    def migrate(self, vm: str, to: str, copied: Callable[[], None] = lambda: None, fails: bool = False) -> None:
        """VM.pool_migrate: reserved, networks attached, the devices of the destination plugged, the guest paused, moved and resumed there, then the
        devices of the source removed, and only then the records changed. copied: called while its memory is copied; fails: it goes on at its source."""
        try:
            self._leave(vm, to)
            copied()
            self._arrive(vm, to, fails)
        finally:
            self.write("vm", vm, scheduled_to_be_resident_on=NULL, current_operations={})

    def evacuate(self, host: str, to: str, copied: Callable[[list[str]], None]) -> None:
        """Host.evacuate: its VMs migrate in batches of 10 (xapi_host.ml)."""
        vms = [vm for vm, row in self.tables["vm"].rows.items() if row["resident_on"] == self._hosts[host]]
        for n in range(0, len(vms), 10):
            batch = vms[n : n + 10]
            for vm in batch:
                self._leave(vm, to)
            copied(batch)
            for vm in batch:
                self._arrive(vm, to)
                self.write("vm", vm, scheduled_to_be_resident_on=NULL, current_operations={})

    def _leave(self, vm: str, to: str) -> None:
        self.write("vm", vm, scheduled_to_be_resident_on=self._hosts[to], current_operations={"task": "pool_migrate"})
        self._attach(vm, to)
        self._plug(vm, to)
        self._connect(vm, to)

    def _arrive(self, vm: str, to: str, fails: bool = False) -> None:
        record = self.record("vm", vm)
        source = self._name(record["resident_on"])
        self.lab.pause(record["uuid"])
        if fails:
            self.lab.run(record["uuid"], self._end(vm, source), resume=True)
            self._unplug(vm, to)
            raise Failure("VM_MIGRATE_FAILED", vm, source, to, "it was told to")
        # Linux's netfront announces itself once it is connected.
        self.lab.run(record["uuid"], self._end(vm, to), announce=True, resume=True)
        sync(self.lab, to)
        self._unplug(vm, source)
        self.write("vm", vm, resident_on=self._hosts[to])

    def migrate_to_pool(self, vm: str, other: XenPool, network: str, to: str, copied: Callable[[str], None]) -> str:
        """VM.migrate_send to another pool: its records are made there first, of the same uuids, and are removed here at the end. Gives its reference there."""
        record = self.record("vm", vm)
        there = other._add("vm", **{**record, "power_state": "Halted", "resident_on": NULL})
        for _, row in self.vifs(vm):
            other._add("vif", **{**row, "VM": there, "network": network, "currently_attached": False})
        other.write("vm", there, scheduled_to_be_resident_on=other._hosts[to])
        other._attach(there, to)
        other._plug(there, to)
        other._connect(there, to)
        copied(there)
        self.lab.pause(record["uuid"])
        self.lab.run(record["uuid"], other._end(there, to), announce=True, resume=True)
        other.write("vm", there, power_state="Running", resident_on=other._hosts[to])
        self._unplug(vm, self._name(record["resident_on"]))
        for vif, _ in self.vifs(vm):
            self._drop("vif", vif)
        self._drop("vm", vm)
        other.write("vm", there, scheduled_to_be_resident_on=NULL)
        return there

    def reboot(self, vm: str) -> None:
        """VM.hard_reboot: another domain, with other devices, at the same place."""
        record = self.record("vm", vm)
        host = self._name(record["resident_on"])
        self.lab.run(record["uuid"], None)
        self._unplug(vm, host)
        self._plug(vm, host)
        self._connect(vm, host)
        self.lab.run(record["uuid"], self._end(vm, host))
        sync(self.lab, host)

    def suspend(self, vm: str) -> None:
        record = self.record("vm", vm)
        self.lab.run(record["uuid"], None)
        self._unplug(vm, self._name(record["resident_on"]))
        self.write("vm", vm, power_state="Suspended", resident_on=NULL)

    def resume(self, vm: str, host: str) -> None:
        """VM.resume_on."""
        self.write("vm", vm, scheduled_to_be_resident_on=self._hosts[host])
        self._attach(vm, host)
        self._plug(vm, host)
        self._connect(vm, host)
        self.lab.run(self.record("vm", vm)["uuid"], self._end(vm, host))
        self.write("vm", vm, power_state="Running", resident_on=self._hosts[host])
        self.write("vm", vm, scheduled_to_be_resident_on=NULL)

    def revert(self, vm: str) -> None:
        """VM.revert of a snapshot: its VIFs are made anew, of other uuids and the same MACs. It is halted then."""
        for vif, row in self.vifs(vm):
            self._drop("vif", vif)
            self._add("vif", **{key: value for key, value in row.items() if key != "uuid"})

    def move_vif(self, vif: str, network: str) -> None:
        """VIF.move: its record first, then its device."""
        self.write("vif", vif, network=network)
        row = self.record("vif", vif)
        record, found = self.record("vm", row["VM"]), self.record("network", network)
        if record["power_state"] == "Running":
            host, ids = (
                self._name(record["resident_on"]),
                external_ids(row["uuid"], record["uuid"], found["uuid"], row["MAC"]),
            )
            for device in self._devices(row["VM"], row, host):
                move_device(self.lab, host, device, found["bridge"], ids)
            self._connect(row["VM"], host)

    def plug_vif(self, vif: str) -> None:
        """VIF.plug, of a VM that runs."""
        row = self.record("vif", vif)
        record, found = self.record("vm", row["VM"]), self.lab_vif(row)
        host, spec = self._name(record["resident_on"]), self.lab.spec
        guest = spec.guest(record["uuid"])
        self.lab._respec(spec.with_guest(replace(guest, vifs=(*guest.vifs, found))))
        self.lab.wires.call(
            "guest", vif=found.id, netns=str(NETNS_DIR / vm_netns(spec.name, guest.name)), device=f"eth{found.index}"
        )
        self._plug_vif(row["VM"], vif, host)
        self._connect(row["VM"], host)
        self.lab.run(record["uuid"], self._end(row["VM"], host))

    def unplug_vif(self, vif: str) -> None:
        """VIF.unplug."""
        row = self.record("vif", vif)
        host = self._name(self.record("vm", row["VM"])["resident_on"])
        for device in self._devices(row["VM"], row, host):
            unplug_device(self.lab, self.lab_vif(row), host, device)
        self.write("vif", vif, currently_attached=False)

    def restart(self) -> None:
        """xapi of the master starts again: sessions are gone, records are not."""
        with self._changed:
            self.sessions.clear()
            self._changed.notify_all()

    def _end(self, vm: str, host: str) -> str:
        """Where the guest's frames go, as the lab's packet bridge knows it."""
        return end_of(host, "tap" if vm in self.emulated else "vif")

    def _name(self, host: str) -> str:
        return next(name for name, ref in self._hosts.items() if ref == host)

    def _attach(self, vm: str, host: str) -> None:
        """Network.attach of each VIF's network. An unmanaged one must have its bridge; a managed one gets one that forwards by MAC."""
        bridges = self.lab.ovs(host).vsctl("list-br").split()
        for _, row in self.vifs(vm):
            network = self.record("network", row["network"])
            pifs = {pif["host"] for pif in self.tables["pif"].rows.values() if pif["network"] == row["network"]}
            if pifs and self._hosts[host] not in pifs:
                raise Failure("VM_REQUIRES_NETWORK", vm, row["network"])
            if network["bridge"] in bridges:
                continue
            if not network["managed"]:
                raise Failure("BRIDGE_NOT_AVAILABLE", network["bridge"])
            (tag,) = [
                pif["VLAN"]
                for pif in self.tables["pif"].rows.values()
                if (pif["network"], pif["host"]) == (row["network"], self._hosts[host])
            ]
            self.lab.ovs(host).vsctl("--may-exist", "add-br", network["bridge"], "xenbr0", tag)

    def _plug(self, vm: str, host: str) -> None:
        """A domain with its devices."""
        self._last_domain[host] += 1
        self._domains[self.record("vm", vm)["uuid"], host] = self._last_domain[host]
        for vif, _ in self.vifs(vm):
            self._plug_vif(vm, vif, host)

    def _plug_vif(self, vm: str, vif: str, host: str) -> None:
        row, record = self.record("vif", vif), self.record("vm", vm)
        network = self.record("network", row["network"])
        ids = external_ids(row["uuid"], record["uuid"], network["uuid"], row["MAC"])
        for device in self._devices(vm, row, host):
            plug_device(self.lab, self.lab_vif(row), host, device, network["bridge"], ids)
        self.write("vif", vif, currently_attached=True)

    def _devices(self, vm: str, row: Mapping[str, Any], host: str) -> list[str]:
        """A VIF's devices on a host. The tap comes after the vif: QEMU starts after backends are there."""
        number = f"{self._domains[self.record('vm', vm)['uuid'], host]}.{row['device']}"
        return [f"vif{number}", *([f"tap{number}"] if vm in self.emulated else [])]

    def _connect(self, vm: str, host: str) -> None:
        """The lab's own part: frames go through a device once it is where it stays. A guest's frontend connects later than that."""
        for _, row in self.vifs(vm):
            config = self.record("network", row["network"])["other_config"]
            if config.get("vnet-network") and not config.get("vnet-take-over"):
                for device in self._devices(vm, row, host):
                    wait_until(lambda d=device: self.lab.ovs(host).vsctl("port-to-br", d).strip() == "br-int", device)  # type: ignore[misc]

    def _unplug(self, vm: str, host: str) -> None:
        for _, row in self.vifs(vm):
            for device in self._devices(vm, row, host):
                unplug_device(self.lab, self.lab_vif(row), host, device)
        del self._domains[self.record("vm", vm)["uuid"], host]

    def start_drivers(self, vm: str, gone: Callable[[], None]) -> None:
        """A guest's own drivers start: QEMU takes the emulated NICs away, udev their ports, ovs-xapi-sync says that the vifs are active, and the
        frontends connect. gone: called once the NICs are, before that."""
        record = self.record("vm", vm)
        host = self._name(record["resident_on"])
        for _, row in self.vifs(vm):
            unplug_device(self.lab, self.lab_vif(row), host, self._devices(vm, row, host)[1])
        gone()
        self.emulated.discard(vm)
        sync(self.lab, host)
        self.lab.run(record["uuid"], host)


class XapiServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a caller that does not trust it."""
        if not isinstance(sys.exception(), ssl.SSLError):
            super().handle_error(request, client_address)


@contextmanager
def serving(pool: XenPool, tls: Tls) -> Iterator[int]:
    """The pool's hosts answer by TLS, each at its own loopback address, all at one port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.private_key)
    servers: list[XapiServer] = []
    port = 0
    for address in pool.addresses.values():
        server = XapiServer((address, port), _handler(pool, address))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        port = server.server_port
        servers.append(server)
    pool.addresses |= {name: f"{address}:{port}" for name, address in pool.addresses.items()}
    for name, ref in pool._hosts.items():
        pool.write("host", ref, address=pool.addresses[name])
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield port
    finally:
        pool.sessions.clear()
        with pool._changed:
            pool._changed.notify_all()
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def _handler(pool: XenPool, address: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/jsonrpc":
                asked = json.loads(body)
                answer = self._answer(asked["method"], asked["params"])
                result = (
                    {"result": answer["Value"]}
                    if answer["Status"] == "Success"
                    else {"error": {"message": answer["ErrorDescription"]}}
                )
                data, media = (
                    json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), **result}).encode(),
                    "application/json",
                )
            else:
                params, method = loads(body.decode())
                data = dumps((self._answer(method or "", list(params)),), methodresponse=True, allow_none=True).encode()
                media = "text/xml"
            self.send_response(200)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _answer(self, method: str, params: list[Any]) -> dict[str, Any]:
            try:
                value = pool.call(f"{address}:{self.server.server_address[1]}", method, params)
            except Failure as failure:
                return {"Status": "Failure", "ErrorDescription": failure.details}
            return {"Status": "Success", "Value": "" if value is None else value}

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
