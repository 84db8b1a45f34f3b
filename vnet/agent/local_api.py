"""The agent's local socket: a toolstack on this host plugs and moves VIFs, one JSON object per line each way.

{"method": "plug", "params": {"vif": "web1/0", "port": "tap3"}} -> {"result": {...}} or {"error": {"code", "message"}}.
HTTP's GET of /metrics, /healthz and /readyz is answered as well (http_door.py).
One rule: plugging here ends the same way as adding the port with its external_ids by hand.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from ovsctl.openflow.errors import OpenFlowError
from ovsctl.ovsdb import Delete, Insert, Mutate, NamedUuid, OvsdbError, Row, by_uuid
from vnet.agent.agent import Agent
from vnet.agent.flow_listing import listed
from vnet.agent.http_door import HttpDoor
from vnet.agent.local_ports import IFACE_ID, read_ports, vif_of
from vnet.agent.ovs_config_reconciler import OWNER
from vnet.compile import (
    OF_FIRST,
    OF_FLOODED,
    OF_HEARD,
    OF_LOG,
    OF_NETWORK,
    OF_REJECT,
    OF_REPORTS,
    OF_RUNNING,
    OF_VIF,
    WATCHED,
    Flooded,
    HostView,
    Limit,
)
from vnet.objects import BindingState
from vnet.objects.limits import DEVICE_NAME_MAX, VIF_ID

MAX_LINE_BYTES = 64 * 1024
HTTP = b"GET "  # how a request begins that is no JSON: of metrics and of health
SOCKET_MODE = 0o660
VSWITCHD_POLL_S, VSWITCHD_POLLS = 0.002, 1000  # how long a plug waits for ovs-vswitchd


def _limits(view: HostView) -> dict[int, tuple[str, str]]:
    """The numbers of the meters that a host may have, each with its owner and with what it limits."""
    ways = {limit: "to-vm" if limit in (Limit.TO_VM, Limit.PACKETS_TO_VM) else "from-vm" for limit in Limit}
    found: dict[int, tuple[str, str]] = {}
    for vif, ofport in view.ports.items():
        owner = f"vif {vif}"
        found |= {OF_VIF | ofport << 2 | limit: (owner, way) for limit, way in ways.items()}
        found |= {OF_FLOODED | ofport << 2 | flooded: (owner, flooded.name.lower()) for flooded in Flooded}
        found |= {
            base | ofport: (owner, "to-agent")
            for base in (WATCHED, OF_REJECT, OF_LOG, OF_FIRST, OF_RUNNING, OF_HEARD, OF_REPORTS)
        }
    for name, network in view.networks.items():
        found |= {OF_NETWORK | network.number << 2 | limit: (f"network {name}", way) for limit, way in ways.items()}
    return found


class Request(msgspec.Struct, forbid_unknown_fields=True):
    method: str
    params: dict[str, str] = {}


class RequestRefused(Exception):
    """A request that cannot be met. code: invalid, missing, conflict or failed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code: Final = code


class LocalSocket:
    """Serves the agent's socket at `path`."""

    def __init__(self, agent: Agent, path: str, pki_dir: Path | None = None) -> None:
        """pki_dir: where this host's certificates are."""
        self._agent: Final = agent
        self._path: Final = path
        self._door: Final = HttpDoor(agent, pki_dir)
        self._methods: Final[Mapping[str, Callable[[dict[str, str]], Awaitable[object]]]] = {
            "plug": self._plug,
            "unplug": self._unplug,
            "switch": self._switch,
            "activate": self._activate,
            "flows": self._flows,
            "rates": self._rates,
            "rules": self._rules,
            "status": self._status,
            "surroundings": self._surroundings,
            "leave": self._leave,
        }

    async def run(self) -> None:
        """Listens until cancelled; the socket is only for its owner and group."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_LINE_BYTES)
        finally:
            os.umask(before)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                if line.startswith(HTTP):
                    await self._door.answer(line, reader, writer)
                    break
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the peer went, or its line is longer than the limit: no answer reaches it
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line, type=Request)
            method = self._methods.get(request.method)
            if method is None:
                raise RequestRefused(
                    "invalid", f"no method {request.method!r}: there are {', '.join(sorted(self._methods))}"
                )
            return {"result": await method(request.params)}
        except msgspec.DecodeError as error:
            return {"error": {"code": "invalid", "message": f"not a request: {error}"}}
        except RequestRefused as error:
            return {"error": {"code": error.code, "message": str(error)}}
        except (OpenFlowError, OvsdbError) as error:
            return {"error": {"code": "failed", "message": f"Open vSwitch: {error}"}}

    async def _plug(self, params: dict[str, str]) -> object:
        vif, device = _vif(params), params.get("port", "")
        if not 0 < len(device) <= DEVICE_NAME_MAX or "/" in device:
            raise RequestRefused("invalid", f"{device!r} is no device name")
        bridge = self._agent.options.switch.bridge
        rows = [row for row in self._agent.ovs["Bridge"].values() if row["name"] == bridge]
        if not rows:
            raise RequestRefused("failed", f"bridge {bridge} is not there yet: is ovs-vswitchd running?")
        other = self._agent.bindings.ports.vifs.get(vif)
        if other is not None and other.name != device and other.ofport is not None:
            raise RequestRefused("conflict", f"VIF {vif} has port {other.name} here already: unplug it first")
        if present := self._present(device, vif):
            change = Mutate("Interface", by_uuid(present.uuid), (("external_ids", "insert", {IFACE_ID: vif}),))
            await self._agent.ovs_client.transact(change)
        else:
            interface: dict[str, object] = {"name": device, "external_ids": {IFACE_ID: vif}}
            if (ofport := self._agent.bindings.awaited_ofport(vif)) is not None:
                interface["ofport_request"] = ofport
            await self._agent.ovs_client.transact(
                Insert("Interface", interface, "iface"),
                Insert("Port", {"name": device, "interfaces": frozenset({NamedUuid("iface")})}, "port"),
                Mutate("Bridge", by_uuid(rows[0].uuid), (("ports", "insert", frozenset({NamedUuid("port")})),)),
                Mutate("Open_vSwitch", (), (("next_cfg", "+=", 1),)),
            )
        if error := await self._error_of(device):
            if not present:
                await self._remove_port(device)
            raise RequestRefused("failed", f"port {device}: {error}")
        return {"vif": vif, "port": device}

    def _present(self, device: str, vif: str) -> Row | None:
        """The interface of that name, None if there is none; RequestRefused if it is not for the VIF to have."""
        bridge, ovs = self._agent.options.switch.bridge, self._agent.ovs
        row = next((row for row in ovs["Interface"].values() if row["name"] == device), None)
        if row is None:
            return None
        if vif_of(row["external_ids"]) not in (None, vif):
            raise RequestRefused("conflict", f"port {device} is that of VIF {vif_of(row['external_ids'])}")
        if OWNER.owns(row):
            raise RequestRefused("conflict", f"port {device} is one that the agent made")
        if device not in {port.name for port in read_ports(ovs, bridge)}:
            raise RequestRefused("conflict", f"device {device} is a port of another bridge than {bridge}")
        return row

    async def _error_of(self, device: str) -> str | None:
        """The error of an interface, once ovs-vswitchd has looked at it; None if there is none, or ovs-vswitchd does not run."""
        for _ in range(VSWITCHD_POLLS):
            found = read_ports(self._agent.ovs, self._agent.options.switch.bridge)
            port = next((port for port in found if port.name == device), None)
            if port is not None and (port.error or port.ofport):
                return port.error
            await asyncio.sleep(VSWITCHD_POLL_S)
        return None

    async def _unplug(self, params: dict[str, str]) -> object:
        vif = _vif(params)
        port = self._agent.bindings.ports.vifs.get(vif)
        if port is None:
            return {"vif": vif, "port": None}
        await self._remove_port(port.name)
        return {"vif": vif, "port": port.name}

    async def _remove_port(self, name: str) -> None:
        ovs, bridge = self._agent.ovs, self._agent.options.switch.bridge
        found = [row for row in ovs["Port"].values() if row["name"] == name]
        holders = [row for row in ovs["Bridge"].values() if row["name"] == bridge]
        for row in found:
            await self._agent.ovs_client.transact(
                Mutate("Bridge", by_uuid(holders[0].uuid), (("ports", "delete", frozenset({row.uuid})),)),
                Delete("Port", by_uuid(row.uuid)),
                Mutate("Open_vSwitch", (), (("next_cfg", "+=", 1),)),
            )

    async def _switch(self, params: dict[str, str]) -> object:
        return await self._open(params, BindingState.RECEIVING)

    async def _activate(self, params: dict[str, str]) -> object:
        return await self._open(params, BindingState.ACTIVE)

    async def _open(self, params: dict[str, str], state: BindingState) -> object:
        """For one VIF, or for all of a VM that are here."""
        vifs = (
            [vif.id for vif in self._agent.compiler.view.vifs.values() if vif.vm == params["vm"]]
            if "vm" in params
            else [_vif(params)]
        )
        if not (found := await self._agent.open(vifs, state)):
            unit = f"VM {params['vm']}" if "vm" in params else f"VIF {vifs[0]}"
            raise RequestRefused("missing", f"{unit} is neither here nor on its way to host {self._agent.me}")
        return {"vifs": sorted(found), "state": state.value}

    async def _flows(self, params: dict[str, str]) -> object:
        """The flows of a VIF in the switch, with counts and what they are for; without `vif` all of ours."""
        return await listed(self._agent, _vif(params) if "vif" in params else None)

    async def _rates(self, params: dict[str, str]) -> object:
        """The meters of VIFs and networks here, with what has come to each and what it dropped."""
        limits = _limits(self._agent.compiler.view)
        wanted = f"vif {_vif(params)}" if "vif" in params else None
        found = []
        for meter, stats in await self._agent.flows.metered():
            owner, direction = limits.get(meter.meter_id, ("", ""))
            dropped = stats.bands[0]
            if owner and wanted in (None, owner):
                found.append(
                    {
                        "of": owner,
                        "direction": direction,
                        "limit": meter.bands[0].rate,
                        "unit": "packets/s" if meter.packets else "kbit/s",
                        "burst": meter.bands[0].burst,
                        "packets": stats.n_packets,
                        "bytes": stats.n_bytes,
                        "dropped_packets": dropped.n_packets,
                        "dropped_bytes": dropped.n_bytes,
                    }
                )
        return sorted(found, key=lambda row: (row["of"], row["direction"], row["unit"]))

    async def _rules(self, params: dict[str, str]) -> object:
        """The rules and defaults of the groups here, each with the packets that its flows have matched on this host."""
        groups, wanted = self._agent.compiler.view.groups, params.get("group")
        if wanted is not None and wanted not in groups:
            raise RequestRefused("missing", f"no VIF here is in security group {wanted!r}: there are {_names(groups)}")
        found = [groups[name] for name in sorted(groups if wanted is None else [wanted])]
        counters = await self._agent.rule_counters.read(found)
        return [
            {
                "group": group.name,
                "rule": counter.rule,
                "tier": group.step_of(counter.rule),
                "direction": counter.direction.value,
                "action": group.action(counter.rule, counter.direction).value,
                "packets": counter.packets,
                "bytes": counter.bytes,
            }
            for group in found
            for counter in counters[group.name]
        ]

    async def _leave(self, params: dict[str, str]) -> object:
        """This host belongs to no pool any more: the agent follows the database that it is pointed at."""
        return {"pool": await self._agent.identity.leave()}

    async def _surroundings(self, params: dict[str, str]) -> object:
        """What `vnet doctor` tries out: where this agent expects its databases, its switch and its peers."""
        options, view = self._agent.options, self._agent.compiler.view
        own, tls = view.vtep(self._agent.me), options.tls
        bridges = {row["name"] for row in self._agent.ovs["Bridge"].values()}
        return {
            "host": self._agent.me,
            "version": options.version,
            "address": own,
            "underlay_mtu": view.pool.underlay_mtu if view.pool is not None else None,
            "peers": {name: vtep for name in view.hosts if name != self._agent.me and (vtep := view.vtep(name))},
            "pool": options.pool,
            "identity": {"own": str(tls.certificate), "ca": str(tls.ca_certificate)} if tls is not None else None,
            "ovs_rundir": options.ovs_rundir,
            "openflow": self._agent.access.target,
            "switch": self._agent.flows.connected,
            "uplinks": {
                uplink.bridge_name: {"ours": uplink.bridge is None, "nics": sorted(uplink.members)}
                for uplink in (view.host.uplinks if view.host is not None else ())
                if uplink.bridge_name in bridges
            },
        }

    async def _status(self, params: dict[str, str]) -> object:
        agent, followed = self._agent, self._agent.identity.followed
        return {
            "host": agent.me,
            "complete": agent.complete,
            "followed": {"pool": followed.id, "revision": followed.revision} if followed is not None else None,
            "copy": agent.copies.description or None,
            "switch": agent.flows.connected,
            "pool": agent.pool_client.connected,
            "flows": len(agent.flows.desired),
            "counters": {
                "sources_recomputed": agent.compiler.recomputed,
                "full_recomputations": dict(agent.compiler.full),
                "flow_messages": agent.flows.messages,
                "rows_read": agent.pool.rows_read,
                "rows_held": agent.rows_held,
                "rows_refused": agent.pool.rows_refused,
                "conditions_set": agent.conditions.count,
                "rejections": dict(agent.rejections.counts),
                "rule_log": dict(agent.rule_log.counts),
                "monitoring": dict(agent.monitoring.counts),
            },
            "vifs": {
                vif: {"port": port.name, "ofport": port.ofport} for vif, port in agent.bindings.ports.vifs.items()
            },
            "problems": agent.problems,
        }


def _names(groups: Iterable[str]) -> str:
    return ", ".join(sorted(groups)) or "none"


def _vif(params: dict[str, str]) -> str:
    vif = params.get("vif", "")
    if not VIF_ID.fullmatch(vif):
        raise RequestRefused("invalid", f"{vif!r} is no VIF id")
    return vif
