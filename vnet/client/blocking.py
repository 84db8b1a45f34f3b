"""The blocking client of the controller's REST API. One rule: every call may be repeated after a lost answer.

Generated from aio.py by `python -m vnet.api.generate`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from vnet import api
from vnet.api import Unit
from vnet.api.errors import BadAnswer, Unreachable
from vnet.client.requests import (
    DISRUPTION,
    GRACE_S,
    LINES,
    MAX_ANSWER_BYTES,
    PCAPNG,
    REASON,
    STREAM,
    TWIN_S,
    ApiAnswer,
    ApiRequest,
    Progress,
    circumstances,
    path,
    progress_of,
    reading,
    sending,
    silent,
    uploading,
)
from vnet.client.wire import Address, EventStream, Lines
from vnet.util.pcapng import PcapngBlocks

T = TypeVar("T")


def _step(unit: Unit, name: str, *, force: bool) -> ApiRequest[api.Migration]:
    return sending("POST", api.Migration, api.StepCall(force=force), unit.plural, unit.id, name)


class Client:
    """Calls the controller at `address` (unix:PATH or https://HOST:PORT), with a bearer token where it wants one.

    Every method raises the errors of `vnet.api.errors`. timeout_s: the wait for an answer, besides the wait of the call itself.
    ca: the file of the CA that signed the server's certificate; without it, those that this machine trusts count.
    cleartext: whether http:// to another machine is allowed. reason: why changes are made, for the pool's history. Raises ValueError for an address or token, OSError for a CA's file.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        ca: str | Path | None = None,
        cleartext: bool = False,
        reason: str = "",
        timeout_s: float = GRACE_S,
    ) -> None:
        parsed = Address.parse(address, cleartext=cleartext)
        if token is not None and not token.strip():
            raise ValueError("the token is empty")
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        if reason:
            headers[REASON] = quote(reason, safe=" ")
        transport = httpx.HTTPTransport(uds=parsed.socket, verify=parsed.verification(ca))
        self.address = address
        self._timeout_s = timeout_s
        self._http = httpx.Client(transport=transport, base_url=parsed.url, headers=headers)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def status(self) -> api.Status:
        """The pool at a glance."""
        return self._do(reading(api.Status, "status"))

    def pool(self) -> api.Pool:
        """The pool itself."""
        return self._do(reading(api.Pool, "pool"))

    def rekey(self) -> api.Pool:
        """Have every host make new keys of encrypted tunnels. No frame is lost, and it takes some seconds. Raises Conflict where no network is encrypted."""
        return self._do(sending("POST", api.Pool, None, "pool", "rekey"))

    def plan(self, document: bytes, filename: str = "document", *, reachability: bool = False) -> api.Plan:
        """The changes that applying a document would make. Raises Invalid with all errors of the document."""
        query = {"filename": filename, "reachability": "1" if reachability else None}
        return self._do(uploading(api.Plan, "plan", document=document, query=query, wait_s=60.0))

    def export(self, *, at: str | None = None) -> str:
        """The pool as a document; at: as it was after a revision or the record of an id, or at a time (RFC 3339). Raises NotFound for one that is not kept."""
        return self._do(reading(str, "export", at=at))

    # --- generated: begin

    def hosts(self) -> list[api.Host]:
        """All hosts."""
        return self._do(reading(list[api.Host], "hosts"))

    def host(self, name: str) -> api.Host:
        """One host. Raises NotFound."""
        return self._do(reading(api.Host, "hosts", name))

    def put_host(self, name: str, spec: api.HostSpec, *, if_match: str | None = None) -> api.Host:
        """Make a host. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_host`."""
        return self._do(sending("PUT", api.Host, spec, "hosts", name, if_match=if_match))

    def plan_host(self, name: str, spec: api.HostSpec) -> api.Plan:
        """The changes that `put_host` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "hosts", name, dry_run=True))

    def change_host(
        self, name: str, change: api.HostChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a host in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "hosts", name, dry_run=dry_run, if_match=if_match))

    def delete_host(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a host; nothing to do if there is none. dry_run, if_match: as for `change_host`."""
        return self._do(sending("DELETE", api.Plan, None, "hosts", name, dry_run=dry_run, if_match=if_match))

    def qos(self) -> list[api.QosClass]:
        """All QoS classes."""
        return self._do(reading(list[api.QosClass], "qos"))

    def qos_class(self, name: str) -> api.QosClass:
        """One QoS class. Raises NotFound."""
        return self._do(reading(api.QosClass, "qos", name))

    def put_qos_class(self, name: str, spec: api.QosClassSpec, *, if_match: str | None = None) -> api.QosClass:
        """Make a QoS class. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_qos_class`."""
        return self._do(sending("PUT", api.QosClass, spec, "qos", name, if_match=if_match))

    def plan_qos_class(self, name: str, spec: api.QosClassSpec) -> api.Plan:
        """The changes that `put_qos_class` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "qos", name, dry_run=True))

    def change_qos_class(
        self, name: str, change: api.QosClassChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a QoS class in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "qos", name, dry_run=dry_run, if_match=if_match))

    def delete_qos_class(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a QoS class; nothing to do if there is none. dry_run, if_match: as for `change_qos_class`."""
        return self._do(sending("DELETE", api.Plan, None, "qos", name, dry_run=dry_run, if_match=if_match))

    def networks(
        self,
        *,
        host: str | None = None,
        qos_class: str | None = None,
        security_group: str | None = None,
        label: str | None = None,
    ) -> list[api.Network]:
        """All networks that the filters leave."""
        return self._do(
            reading(
                list[api.Network],
                "networks",
                host=host,
                qos_class=qos_class,
                security_group=security_group,
                label=label,
            )
        )

    def network(self, name: str) -> api.Network:
        """One network. Raises NotFound."""
        return self._do(reading(api.Network, "networks", name))

    def put_network(self, name: str, spec: api.NetworkSpec, *, if_match: str | None = None) -> api.Network:
        """Make a network. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_network`."""
        return self._do(sending("PUT", api.Network, spec, "networks", name, if_match=if_match))

    def plan_network(self, name: str, spec: api.NetworkSpec) -> api.Plan:
        """The changes that `put_network` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "networks", name, dry_run=True))

    def change_network(
        self, name: str, change: api.NetworkChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a network in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "networks", name, dry_run=dry_run, if_match=if_match))

    def delete_network(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a network; nothing to do if there is none. dry_run, if_match: as for `change_network`."""
        return self._do(sending("DELETE", api.Plan, None, "networks", name, dry_run=dry_run, if_match=if_match))

    def plug_bridges(self, *, network: str | None = None, host: str | None = None) -> list[api.PlugBridge]:
        """All plug bridges that the filters leave."""
        return self._do(reading(list[api.PlugBridge], "plug-bridges", network=network, host=host))

    def plug_bridge(self, name: str) -> api.PlugBridge:
        """One plug bridge. Raises NotFound."""
        return self._do(reading(api.PlugBridge, "plug-bridges", name))

    def put_plug_bridge(self, name: str, spec: api.PlugBridgeSpec, *, if_match: str | None = None) -> api.PlugBridge:
        """Make a plug bridge. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_plug_bridge`."""
        return self._do(sending("PUT", api.PlugBridge, spec, "plug-bridges", name, if_match=if_match))

    def plan_plug_bridge(self, name: str, spec: api.PlugBridgeSpec) -> api.Plan:
        """The changes that `put_plug_bridge` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "plug-bridges", name, dry_run=True))

    def change_plug_bridge(
        self, name: str, change: api.PlugBridgeChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a plug bridge in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "plug-bridges", name, dry_run=dry_run, if_match=if_match))

    def delete_plug_bridge(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a plug bridge; nothing to do if there is none. dry_run, if_match: as for `change_plug_bridge`."""
        return self._do(sending("DELETE", api.Plan, None, "plug-bridges", name, dry_run=dry_run, if_match=if_match))

    def flow_export(self) -> list[api.FlowCollector]:
        """All flow collectors."""
        return self._do(reading(list[api.FlowCollector], "flow-export"))

    def flow_collector(self, name: str) -> api.FlowCollector:
        """One flow collector. Raises NotFound."""
        return self._do(reading(api.FlowCollector, "flow-export", name))

    def put_flow_collector(
        self, name: str, spec: api.FlowCollectorSpec, *, if_match: str | None = None
    ) -> api.FlowCollector:
        """Make a flow collector. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_flow_collector`."""
        return self._do(sending("PUT", api.FlowCollector, spec, "flow-export", name, if_match=if_match))

    def plan_flow_collector(self, name: str, spec: api.FlowCollectorSpec) -> api.Plan:
        """The changes that `put_flow_collector` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "flow-export", name, dry_run=True))

    def change_flow_collector(
        self, name: str, change: api.FlowCollectorChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a flow collector in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "flow-export", name, dry_run=dry_run, if_match=if_match))

    def delete_flow_collector(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a flow collector; nothing to do if there is none. dry_run, if_match: as for `change_flow_collector`."""
        return self._do(sending("DELETE", api.Plan, None, "flow-export", name, dry_run=dry_run, if_match=if_match))

    def subnets(self, *, network: str | None = None) -> list[api.Subnet]:
        """All subnets that the filters leave."""
        return self._do(reading(list[api.Subnet], "subnets", network=network))

    def subnet(self, name: str) -> api.Subnet:
        """One subnet. Raises NotFound."""
        return self._do(reading(api.Subnet, "subnets", name))

    def put_subnet(self, name: str, spec: api.SubnetSpec, *, if_match: str | None = None) -> api.Subnet:
        """Make a subnet. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_subnet`."""
        return self._do(sending("PUT", api.Subnet, spec, "subnets", name, if_match=if_match))

    def plan_subnet(self, name: str, spec: api.SubnetSpec) -> api.Plan:
        """The changes that `put_subnet` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "subnets", name, dry_run=True))

    def change_subnet(
        self, name: str, change: api.SubnetChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a subnet in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "subnets", name, dry_run=dry_run, if_match=if_match))

    def delete_subnet(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a subnet; nothing to do if there is none. dry_run, if_match: as for `change_subnet`."""
        return self._do(sending("DELETE", api.Plan, None, "subnets", name, dry_run=dry_run, if_match=if_match))

    def address_sets(self) -> list[api.AddressSet]:
        """All address sets."""
        return self._do(reading(list[api.AddressSet], "address-sets"))

    def address_set(self, name: str) -> api.AddressSet:
        """One address set. Raises NotFound."""
        return self._do(reading(api.AddressSet, "address-sets", name))

    def put_address_set(self, name: str, spec: api.AddressSetSpec, *, if_match: str | None = None) -> api.AddressSet:
        """Make an address set, or make it what `spec` says. if_match: as for `change_address_set`."""
        return self._do(sending("PUT", api.AddressSet, spec, "address-sets", name, if_match=if_match))

    def plan_address_set(self, name: str, spec: api.AddressSetSpec) -> api.Plan:
        """The changes that `put_address_set` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "address-sets", name, dry_run=True))

    def change_address_set(
        self, name: str, change: api.AddressSetChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of an address set in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "address-sets", name, dry_run=dry_run, if_match=if_match))

    def delete_address_set(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove an address set; nothing to do if there is none. dry_run, if_match: as for `change_address_set`."""
        return self._do(sending("DELETE", api.Plan, None, "address-sets", name, dry_run=dry_run, if_match=if_match))

    def security_groups(self) -> list[api.SecurityGroup]:
        """All security groups."""
        return self._do(reading(list[api.SecurityGroup], "security-groups"))

    def security_group(self, name: str) -> api.SecurityGroup:
        """One security group. Raises NotFound."""
        return self._do(reading(api.SecurityGroup, "security-groups", name))

    def put_security_group(
        self, name: str, spec: api.SecurityGroupSpec, *, if_match: str | None = None
    ) -> api.SecurityGroup:
        """Make a security group, or make it what `spec` says. if_match: as for `change_security_group`."""
        return self._do(sending("PUT", api.SecurityGroup, spec, "security-groups", name, if_match=if_match))

    def plan_security_group(self, name: str, spec: api.SecurityGroupSpec) -> api.Plan:
        """The changes that `put_security_group` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "security-groups", name, dry_run=True))

    def change_security_group(
        self, name: str, change: api.SecurityGroupChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a security group in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "security-groups", name, dry_run=dry_run, if_match=if_match))

    def delete_security_group(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a security group; nothing to do if there is none. dry_run, if_match: as for `change_security_group`."""
        return self._do(sending("DELETE", api.Plan, None, "security-groups", name, dry_run=dry_run, if_match=if_match))

    def vms(
        self, *, host: str | None = None, security_group: str | None = None, label: str | None = None
    ) -> list[api.Vm]:
        """All VMs that the filters leave."""
        return self._do(reading(list[api.Vm], "vms", host=host, security_group=security_group, label=label))

    def vm(self, name: str) -> api.Vm:
        """One VM. Raises NotFound."""
        return self._do(reading(api.Vm, "vms", name))

    def put_vm(self, name: str, spec: api.VmSpec, *, if_match: str | None = None) -> api.Vm:
        """Make a VM. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_vm`."""
        return self._do(sending("PUT", api.Vm, spec, "vms", name, if_match=if_match))

    def plan_vm(self, name: str, spec: api.VmSpec) -> api.Plan:
        """The changes that `put_vm` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "vms", name, dry_run=True))

    def change_vm(
        self, name: str, change: api.VmChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a VM in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "vms", name, dry_run=dry_run, if_match=if_match))

    def delete_vm(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a VM; nothing to do if there is none. dry_run, if_match: as for `change_vm`."""
        return self._do(sending("DELETE", api.Plan, None, "vms", name, dry_run=dry_run, if_match=if_match))

    def vifs(
        self,
        *,
        host: str | None = None,
        state: str | None = None,
        network: str | None = None,
        vm: str | None = None,
        security_group: str | None = None,
        qos_class: str | None = None,
        label: str | None = None,
    ) -> list[api.Vif]:
        """All VIFs that the filters leave."""
        return self._do(
            reading(
                list[api.Vif],
                "vifs",
                host=host,
                state=state,
                network=network,
                vm=vm,
                security_group=security_group,
                qos_class=qos_class,
                label=label,
            )
        )

    def vif(self, id: str) -> api.Vif:
        """One VIF. Raises NotFound."""
        return self._do(reading(api.Vif, "vifs", id))

    def put_vif(self, id: str, spec: api.VifSpec, *, if_match: str | None = None) -> api.Vif:
        """Make a VIF. The same again changes nothing; another one of that id is a Conflict. if_match: as for `change_vif`."""
        return self._do(sending("PUT", api.Vif, spec, "vifs", id, if_match=if_match))

    def plan_vif(self, id: str, spec: api.VifSpec) -> api.Plan:
        """The changes that `put_vif` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "vifs", id, dry_run=True))

    def change_vif(
        self, id: str, change: api.VifChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a VIF in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "vifs", id, dry_run=dry_run, if_match=if_match))

    def delete_vif(self, id: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a VIF; nothing to do if there is none. dry_run, if_match: as for `change_vif`."""
        return self._do(sending("DELETE", api.Plan, None, "vifs", id, dry_run=dry_run, if_match=if_match))

    def create_vif(self, spec: api.NewVif, *, if_match: str | None = None) -> api.Vif:
        """Make a VIF; its id follows from the other fields where `spec` leaves it out. if_match: as for `change_vif`."""
        return self._do(sending("POST", api.Vif, spec, "vifs", if_match=if_match))

    def mirrors(self) -> list[api.FrameMirror]:
        """All mirrors."""
        return self._do(reading(list[api.FrameMirror], "mirrors"))

    def mirror(self, name: str) -> api.FrameMirror:
        """One mirror. Raises NotFound."""
        return self._do(reading(api.FrameMirror, "mirrors", name))

    def put_mirror(self, name: str, spec: api.FrameMirrorSpec, *, if_match: str | None = None) -> api.FrameMirror:
        """Make a mirror. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_mirror`."""
        return self._do(sending("PUT", api.FrameMirror, spec, "mirrors", name, if_match=if_match))

    def plan_mirror(self, name: str, spec: api.FrameMirrorSpec) -> api.Plan:
        """The changes that `put_mirror` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "mirrors", name, dry_run=True))

    def change_mirror(
        self, name: str, change: api.FrameMirrorChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of a mirror in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "mirrors", name, dry_run=dry_run, if_match=if_match))

    def delete_mirror(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove a mirror; nothing to do if there is none. dry_run, if_match: as for `change_mirror`."""
        return self._do(sending("DELETE", api.Plan, None, "mirrors", name, dry_run=dry_run, if_match=if_match))

    def expectations(self) -> list[api.Expectation]:
        """All expectations."""
        return self._do(reading(list[api.Expectation], "expectations"))

    def expectation(self, name: str) -> api.Expectation:
        """One expectation. Raises NotFound."""
        return self._do(reading(api.Expectation, "expectations", name))

    def put_expectation(self, name: str, spec: api.ExpectationSpec, *, if_match: str | None = None) -> api.Expectation:
        """Make an expectation. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_expectation`."""
        return self._do(sending("PUT", api.Expectation, spec, "expectations", name, if_match=if_match))

    def plan_expectation(self, name: str, spec: api.ExpectationSpec) -> api.Plan:
        """The changes that `put_expectation` would make, and their disruption."""
        return self._do(sending("PUT", api.Plan, spec, "expectations", name, dry_run=True))

    def change_expectation(
        self, name: str, change: api.ExpectationChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> api.Plan:
        """Change fields of an expectation in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return self._do(sending("PATCH", api.Plan, change, "expectations", name, dry_run=dry_run, if_match=if_match))

    def delete_expectation(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Remove an expectation; nothing to do if there is none. dry_run, if_match: as for `change_expectation`."""
        return self._do(sending("DELETE", api.Plan, None, "expectations", name, dry_run=dry_run, if_match=if_match))

    def create_expectation(self, spec: api.NewExpectation, *, if_match: str | None = None) -> api.Expectation:
        """Make an expectation; its name follows from the other fields where `spec` leaves it out. if_match: as for `change_expectation`."""
        return self._do(sending("POST", api.Expectation, spec, "expectations", if_match=if_match))

    # --- generated: end

    def set_security_groups(self, id: str, groups: Sequence[str], *, if_match: str | None = None) -> api.Vif:
        """Have a VIF obey these security groups instead of its present ones; also while it runs. if_match: as for `change_vif`."""
        body = {"security_groups": list(groups)}
        return self._do(sending("PUT", api.Vif, body, "vifs", id, "security-groups", if_match=if_match))

    def group_counters(self, name: str, *, wait_s: int = 5) -> api.GroupCounters:
        """What each rule of a security group has matched, summed over the hosts. wait_s: the wait for their answers."""
        location = path("security-groups", name, "counters")
        return self._do(ApiRequest("GET", location, api.GroupCounters, {"wait_s": str(wait_s)}, wait_s=wait_s))

    def health(self) -> api.Health:
        """What is wrong with the network between the hosts, by what they have stated: nothing is asked or sent."""
        return self._do(ApiRequest("GET", path("health"), api.Health))

    def look(self, *, wait_s: int = 10) -> api.Health:
        """Have all hosts look anew at the network between them, by frames that no guest gets. wait_s: the wait for their answers."""
        return self._do(ApiRequest("POST", path("health"), api.Health, {"wait_s": str(wait_s)}, wait_s=wait_s))

    def quarantine_vif(self, id: str, network: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Put a VIF on this network till `release_vif`, also while it runs. dry_run, if_match: as for `change_vif`."""
        body, at = api.VifChange(network=network), ("vifs", id, "quarantine")
        return self._do(sending("PUT", api.Plan, body, *at, dry_run=dry_run, if_match=if_match))

    def release_vif(self, id: str, *, dry_run: bool = False, if_match: str | None = None) -> api.Plan:
        """Put a VIF back on the network that it was on before its quarantine, with the addresses that it had there. dry_run, if_match: as for `change_vif`."""
        at = ("vifs", id, "quarantine")
        return self._do(sending("DELETE", api.Plan, None, *at, dry_run=dry_run, if_match=if_match))

    def monitored(self, group: str, *, wait_s: int = 5) -> api.Monitored:
        """What a security group in monitor mode would have forbidden, and the rules that would allow it. wait_s: as for the counters."""
        location = path("security-groups", group, "monitored")
        return self._do(ApiRequest("GET", location, api.Monitored, {"wait_s": str(wait_s)}, wait_s=wait_s))

    def plug_vif(self, id: str, host: str, *, wait_s: float = 0.0, awaited: bool = False) -> api.Vif:
        """Want a VIF on a host, and wait until it is ready there, or with `awaited` until its `place.ofport` is known. The port is
        added on that host."""
        body = api.PlugCall(host=host, wait_s=wait_s, awaited=awaited)
        return self._do(sending("POST", api.Vif, body, "vifs", id, "plug", wait_s=wait_s))

    def unplug_vif(self, id: str) -> api.Vif:
        """Want a VIF nowhere, and forget it on dead hosts."""
        return self._do(sending("POST", api.Vif, None, "vifs", id, "unplug"))

    def probe(self, call: api.ProbesCall) -> list[api.Probe]:
        """The traces of frames by hosts' switches. Nothing is sent."""
        return self._do(sending("POST", list[api.Probe], call, "probes", wait_s=call.wait_s))

    def trace(self, call: api.TraceCall) -> api.Traced:
        """A packet's way there and back on the twin of the pool as it is. Nothing is sent."""
        return self._do(sending("POST", api.Traced, call, "trace", wait_s=TWIN_S))

    def matrix(
        self,
        protocol: str = "icmp",
        port: int | None = None,
        *,
        at: str = "",
        down: Sequence[str] = (),
        cut: Sequence[str] = (),
        each_failure: bool = False,
    ) -> api.ReachabilityMatrix:
        """Who reaches whom on the twin: by ping, or a port of "tcp" or "udp". at: as it was then; down, cut: while these hosts and links fail; each_failure:
        also the pairs that a single failure parts. Raises Conflict for a pool with too many classes of VIFs, or too many failures."""
        query = (
            circumstances(at, down, cut) | {"protocol": protocol} | ({"port": str(port)} if port is not None else {})
        )
        query |= {"each-failure": "true"} if each_failure else {}
        return self._do(ApiRequest("GET", path("matrix"), api.ReachabilityMatrix, query, wait_s=TWIN_S))

    def check(self, *, at: str = "", down: Sequence[str] = (), cut: Sequence[str] = ()) -> list[api.Expected]:
        """The pool's expectations, and whether each holds on the twin: now or as it was, while hosts and links fail."""
        query = circumstances(at, down, cut)
        return self._do(ApiRequest("GET", path("check"), list[api.Expected], query, wait_s=TWIN_S))

    def failures(self, *, at: str = "", expectations: bool = False) -> list[api.SingleFailure]:
        """Every single failure that there can be, with `expectations` also what fails then. Raises Conflict for too many to try."""
        query = circumstances(at) | ({"expectations": "true"} if expectations else {})
        return self._do(ApiRequest("GET", path("failures"), list[api.SingleFailure], query, wait_s=TWIN_S))

    def explained(self, vif: str) -> api.ExplainedVif:
        """The flows of a VIF by its id, with what they are for, and the groups that judge it."""
        return self._do(ApiRequest("GET", path("vifs", vif, "explained"), api.ExplainedVif, wait_s=TWIN_S))

    def traffic(self, vif: str | None = None) -> api.Traffic:
        """What the ports of VIFs have received and sent; of all that the caller may see, or of one by its id."""
        query = {"vif": vif} if vif is not None else {}
        return self._do(ApiRequest("GET", path("traffic"), api.Traffic, query))

    def accounting(self, vif: str | None = None) -> api.Accounting:
        """What VIFs have sent and got since they were made, wherever they ran; all that the caller may see, or one by its id."""
        query = {"vif": vif} if vif is not None else {}
        return self._do(ApiRequest("GET", path("accounting"), api.Accounting, query))

    def packets(self, call: api.PacketsCall) -> api.Packets:
        """Send marked frames, which no guest gets; the places where they came out."""
        return self._do(sending("POST", api.Packets, call, "packets", wait_s=call.wait_s + len(call.packets)))

    def capture(self, call: api.CaptureCall) -> Iterator[bytes]:
        """Frames of VIFs as they come: the blocks of a file of pcapng, to its end. Closed before, it ends the capture."""
        request: ApiRequest[str] = sending("POST", str, call, "captures", wait_s=call.seconds)
        blocks = PcapngBlocks()
        try:
            with self._http.stream(**self._arguments(request, {"Accept": PCAPNG})) as answer:
                if answer.status_code != 200:
                    request.decode(answer.status_code, self._read(answer))
                for chunk in answer.iter_bytes():
                    yield from blocks.feed(chunk)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.address}: {error}") from None
        except ValueError as error:
            raise BadAnswer(f"{self.address}: {error}") from None

    def end_capture(self, id: str) -> api.Done:
        """Have a capture end once its hosts have sent what is left. id: the comment of its file's first block. Raises NotFound."""
        return self._do(sending("DELETE", api.Done, None, "captures", id))

    def bindings(self, *, vif: str | None = None, host: str | None = None) -> list[api.Binding]:
        """The hosts' bindings of VIFs."""
        return self._do(reading(list[api.Binding], "bindings", vif=vif, host=host))

    def events(self, limit: int = 100, **filters: str | None) -> list[api.Event]:
        """The newest events, oldest first. filters: kind, host, network, vif."""
        return self._do(reading(list[api.Event], "events", limit=str(limit), **filters))

    def migration(self, unit: Unit) -> api.Migration:
        """The progress of a unit's migration."""
        return self._do(reading(api.Migration, unit.plural, unit.id, "migration"))

    def prepare(self, unit: Unit, to: str, *, force: bool = False) -> api.Migration:
        """Let a host get ready to take a unit. Nothing moves yet."""
        return self._do(
            sending("POST", api.Migration, api.PrepareCall(to=to, force=force), unit.plural, unit.id, "prepare")
        )

    def switch(self, unit: Unit, *, force: bool = False) -> api.Migration:
        """The guest is paused: open the destination for it."""
        return self._do(_step(unit, "switch", force=force))

    def activate(self, unit: Unit, *, force: bool = False) -> api.Migration:
        """The guest runs at the destination."""
        return self._do(_step(unit, "activate", force=force))

    def finish(self, unit: Unit, *, force: bool = False) -> api.Migration:
        """End a migration at its destination. force: past a dead source."""
        return self._do(_step(unit, "finish", force=force))

    def abort(self, unit: Unit) -> api.Migration:
        """End a migration at its source."""
        return self._do(sending("POST", api.Migration, None, unit.plural, unit.id, "abort"))

    def apply(
        self,
        document: bytes,
        filename: str = "document",
        *,
        revision: int | None = None,
        plan: str | None = None,
        wait_s: int = 30,
        force: bool = False,
        try_s: int | None = None,
        progress: Progress = silent,
    ) -> api.Applied:
        """Make the pool as a document says, if its revision is still `revision` and this is still the plan of the id `plan`; wait for the hosts to follow. try_s: take it back by itself after so many
        seconds, unless `confirm` was called.

        Raises Conflict while another revision is on trial, and for a change that breaks an expectation which holds now, unless `force`.
        """
        expected = None if revision is None else str(revision)
        query = {"filename": filename, "wait_s": str(wait_s), "revision": expected, "force": "1" if force else None}
        query |= {"try_s": None if try_s is None else str(try_s), "plan": plan}
        return self._long(uploading(api.Applied, "apply", document=document, query=query, wait_s=wait_s), progress)

    def migrate(
        self, unit: Unit, to: str, *, activate: bool = False, timeout_s: float = 60.0, progress: Progress = silent
    ) -> api.Migration:
        """All steps of a migration. Call again to go on after a lost answer or TimedOut."""
        body = api.MigrateCall(to=to, activate=activate, timeout_s=timeout_s)
        return self._long(
            sending("POST", api.Migration, body, unit.plural, unit.id, "migrate", wait_s=timeout_s), progress
        )

    def invite(
        self, host: str, *, url: str | None = None, pool: Sequence[str] = (), minutes: float = 60.0
    ) -> api.Invitation:
        """Invite a host into the pool: a secret word, for which it gets its certificate. Raises Conflict where the CA is not there."""
        body = api.InviteCall(url=url, pool=list(pool), minutes=minutes)
        return self._do(sending("POST", api.Invitation, body, "hosts", host, "invite"))

    def revoke(self, host: str) -> api.Revoked:
        """Renew a host's certificate no more. Raises NotFound, and Conflict where the CA is not there."""
        return self._do(sending("DELETE", api.Revoked, None, "hosts", host, "certificate"))

    def caller(self) -> api.Caller:
        """Who we are to the controller."""
        return self._do(reading(api.Caller, "caller"))

    def tokens(self) -> list[api.Token]:
        """All tokens."""
        return self._do(reading(list[api.Token], "tokens"))

    def make_token(self, name: str, call: api.TokenCall) -> api.NewToken:
        """Make a token. Raises Conflict if there is one of that name, unless it is to be replaced."""
        return self._do(sending("PUT", api.NewToken, call, "tokens", name))

    def revoke_token(self, name: str) -> api.Done:
        """End a token; nothing to do if there is none."""
        return self._do(sending("DELETE", api.Done, None, "tokens", name))

    def history(self, limit: int = 100, *, caller: str | None = None, refused: bool = False) -> list[api.HistoryEntry]:
        """The newest changes of the pool, oldest first; with `refused` the calls that were refused because of who made them."""
        return self._do(
            reading(
                list[api.HistoryEntry], "history", limit=str(limit), caller=caller, refused="true" if refused else None
            )
        )

    def change(self, id: str) -> api.HistoryEntry:
        """A change, by the revision that it made or by its id, with what was before and after. Raises NotFound for one that is not kept."""
        return self._do(reading(api.HistoryEntry, "history", id))

    def past(self, at: str) -> api.PastPool:
        """The pool as it was after a revision or the record of an id, or at a time (RFC 3339). Raises NotFound for one that is not kept."""
        return self._do(reading(api.PastPool, "history", at, "pool"))

    def diff(self, old: str, new: str | None = None) -> api.Plan:
        """What differs between the pool at two moments, as for `past`; new: the present if left out."""
        return self._do(reading(api.Plan, "diff", **{"from": old}, to=new))

    def plan_rollback(self, at: str) -> api.Plan:
        """The changes that `rollback` would make. Raises NotFound, and Conflict where the pool cannot be so again, with the reasons."""
        return self._do(reading(api.Plan, "history", at, "rollback"))

    def rollback(
        self,
        at: str,
        *,
        revision: int | None = None,
        wait_s: int = 30,
        force: bool = False,
        try_s: int | None = None,
        progress: Progress = silent,
    ) -> api.Applied:
        """Make the pool what it was, as for `past`, if its revision is still `revision`; wait for the hosts to follow. VIFs and VMs stay where they are.
        try_s: as for `apply`.

        Raises NotFound, and Conflict where the pool cannot be so again or, unless `force`, an expectation that holds now would break.
        """
        expected = None if revision is None else str(revision)
        query = {"wait_s": str(wait_s), "revision": expected, "force": "1" if force else None}
        query["try_s"] = None if try_s is None else str(try_s)
        call = uploading(api.Applied, "history", at, "rollback", document=None, query=query, wait_s=wait_s)
        return self._long(call, progress)

    def follow_toolstack(
        self, name: str, caller: str, *, silent_at: int | None = None, ends: bool = False
    ) -> api.ToolstackFollower:
        """Ask to be the follower of a toolstack; the answer says which one is. silent_at, ends: as in FollowCall."""
        body = api.FollowCall(caller=caller, silent_at=silent_at, ends=ends)
        return self._do(sending("POST", api.ToolstackFollower, body, "followers", name))

    def trial(self) -> api.Trial:
        """The revision that is on trial. Raises NotFound if none is."""
        return self._do(reading(api.Trial, "trial"))

    def confirm(self, revision: int | None = None) -> api.Trial:
        """Keep the revision that is on trial, if it is this one. Raises NotFound if it is not."""
        query = {"revision": None if revision is None else str(revision)}
        return self._do(uploading(api.Trial, "trial", "confirm", document=None, query=query, wait_s=10.0))

    def revert(self, revision: int | None = None, *, progress: Progress = silent) -> api.Applied:
        """Take the revision that is on trial back at once, if it is this one, and wait for the hosts to follow. Raises NotFound if it is not."""
        query = {"revision": None if revision is None else str(revision)}
        call = uploading(api.Applied, "trial", "revert", document=None, query=query, wait_s=60.0)
        return self._long(call, progress)

    def evacuate(
        self,
        host: str,
        *,
        to: str | None = None,
        activate: bool = False,
        timeout_s: float = 600.0,
        progress: Progress = silent,
    ) -> api.Evacuation:
        """Migrate every VIF that runs on a host."""
        body = api.EvacuateCall(to=to, activate=activate, timeout_s=timeout_s)
        return self._long(sending("POST", api.Evacuation, body, "hosts", host, "evacuate", wait_s=timeout_s), progress)

    def follow(self, *, after: str | None = None, **filters: str) -> Iterator[api.Event]:
        """Every event from now on, or after the event of id `after`, without end. Goes on by itself when the connection is lost.

        Raises Unreachable only if the controller cannot be reached at first.
        """
        stream = EventStream(after)
        connected = False
        while True:
            headers = {"Accept": STREAM} | ({"Last-Event-ID": stream.last_id} if stream.last_id else {})
            try:
                with self._http.stream("GET", "/v1/events", params=filters, headers=headers, timeout=60.0) as answer:
                    if answer.status_code != 200:
                        ApiRequest("GET", "/v1/events", None).decode(answer.status_code, self._read(answer))
                    connected = True
                    for chunk in answer.iter_bytes():
                        yield from stream.feed(chunk)
            except httpx.TransportError as error:
                if not connected:
                    raise Unreachable(f"{self.address}: {error}") from None
            stream.restart()
            time.sleep(1.0)

    def send(self, call: ApiRequest[T]) -> ApiAnswer[T]:
        """Send a call; its answer with the disruption and the tag."""
        try:
            with self._http.stream(**self._arguments(call, {})) as answer:
                value = call.decode(answer.status_code, self._read(answer))
                tag = answer.headers.get("ETag", "").strip('"')
                return ApiAnswer(value, answer.headers.get(DISRUPTION, ""), tag)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.address}: {error}") from None

    def _do(self, call: ApiRequest[T]) -> T:
        return (self.send(call)).value

    def _long(self, call: ApiRequest[T], progress: Progress) -> T:
        lines = Lines()
        try:
            with self._http.stream(**self._arguments(call, {"Accept": LINES})) as answer:
                if answer.status_code != 200:
                    return call.decode(answer.status_code, self._read(answer))
                for chunk in answer.iter_bytes():
                    for line in map(progress_of, lines.feed(chunk)):
                        if line.kind != "progress":
                            return call.result(line, answer.status_code)
                        progress(line.text)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.address}: {error}") from None
        raise Unreachable(f"{self.address}: the controller ended in the middle of the call; repeat it")

    def _arguments(self, call: ApiRequest[T], headers: dict[str, str]) -> dict[str, Any]:
        headers = {"Content-Type": call.media, **headers} if call.body is not None else headers
        if call.if_match is not None:
            headers = {"If-Match": f'"{call.if_match}"', **headers}
        wait_s = call.wait_s + self._timeout_s
        return {
            "method": call.method,
            "url": call.path,
            "params": call.query,
            "content": call.body,
            "headers": headers,
            "timeout": httpx.Timeout(wait_s, connect=5.0),
        }

    @staticmethod
    def _read(answer: httpx.Response) -> bytes:
        data = bytearray()
        for chunk in answer.iter_bytes():
            data += chunk
            if len(data) > MAX_ANSWER_BYTES:
                raise BadAnswer(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return bytes(data)
