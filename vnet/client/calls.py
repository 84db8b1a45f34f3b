"""The calls of the API, once for both clients.

One rule: a call makes its request; the client that it is called on sends it, and returns the answer, or what is to be awaited for it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

from vnet import api
from vnet.api import Unit
from vnet.client.requests import (
    TWIN_S,
    ApiRequest,
    Progress,
    circumstances,
    path,
    reading,
    sending,
    silent,
    uploading,
)

P = ParamSpec("P")
T = TypeVar("T")


class ClientCall(Generic[P, T]):
    """A method of both clients. build: makes its request from the method's arguments."""

    def __init__(self, build: Callable[Concatenate[Any, P], ApiRequest[T]]) -> None:
        answer = build.__annotations__["return"].removeprefix("ApiRequest[").removesuffix("]")
        build.__annotations__["return"] = answer  # for help()

        @wraps(build)
        def send(client: Any, *args: P.args, **options: P.kwargs) -> Any:
            return client._do(build(client, *args, **options))

        self._send: Final = send

    @overload
    def __get__(self, client: None, owner: type) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: BlockingCalls, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncCalls, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, client: object, owner: type) -> Callable[..., Any]:
        return self._send if client is None else MethodType(self._send, client)


call = ClientCall


def _step(unit: Unit, name: str, *, force: bool) -> ApiRequest[api.Migration]:
    return sending("POST", api.Migration, api.StepCall(force=force), unit.plural, unit.id, name)


class Calls:
    """Every call that is one request and one answer."""

    @call
    def status(self) -> ApiRequest[api.Status]:
        """The pool at a glance."""
        return reading(api.Status, "status")

    @call
    def pool(self) -> ApiRequest[api.Pool]:
        """The pool itself."""
        return reading(api.Pool, "pool")

    @call
    def rekey(self) -> ApiRequest[api.Pool]:
        """Have every host make new keys of encrypted tunnels. No frame is lost, and it takes some seconds. Raises Conflict where no network is encrypted."""
        return sending("POST", api.Pool, None, "pool", "rekey")

    @call
    def plan(self, document: bytes, filename: str = "document", *, reachability: bool = False) -> ApiRequest[api.Plan]:
        """The changes that applying a document would make. Raises Invalid with all errors of the document."""
        query = {"filename": filename, "reachability": "1" if reachability else None}
        return uploading(api.Plan, "plan", document=document, query=query, wait_s=60.0)

    @call
    def export(self, *, at: str | None = None) -> ApiRequest[str]:
        """The pool as a document; at: as it was after a revision or the record of an id, or at a time (RFC 3339). Raises NotFound for one that is not kept."""
        return reading(str, "export", at=at)

    # --- generated: begin

    @call
    def hosts(self) -> ApiRequest[list[api.Host]]:
        """All hosts."""
        return reading(list[api.Host], "hosts")

    @call
    def host(self, name: str) -> ApiRequest[api.Host]:
        """One host. Raises NotFound."""
        return reading(api.Host, "hosts", name)

    @call
    def put_host(self, name: str, spec: api.HostSpec, *, if_match: str | None = None) -> ApiRequest[api.Host]:
        """Make a host. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_host`."""
        return sending("PUT", api.Host, spec, "hosts", name, if_match=if_match)

    @call
    def plan_host(self, name: str, spec: api.HostSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_host` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "hosts", name, dry_run=True)

    @call
    def change_host(
        self, name: str, change: api.HostChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a host in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "hosts", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_host(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> ApiRequest[api.Plan]:
        """Remove a host; nothing to do if there is none. dry_run, if_match: as for `change_host`."""
        return sending("DELETE", api.Plan, None, "hosts", name, dry_run=dry_run, if_match=if_match)

    @call
    def qos(self) -> ApiRequest[list[api.QosClass]]:
        """All QoS classes."""
        return reading(list[api.QosClass], "qos")

    @call
    def qos_class(self, name: str) -> ApiRequest[api.QosClass]:
        """One QoS class. Raises NotFound."""
        return reading(api.QosClass, "qos", name)

    @call
    def put_qos_class(
        self, name: str, spec: api.QosClassSpec, *, if_match: str | None = None
    ) -> ApiRequest[api.QosClass]:
        """Make a QoS class. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_qos_class`."""
        return sending("PUT", api.QosClass, spec, "qos", name, if_match=if_match)

    @call
    def plan_qos_class(self, name: str, spec: api.QosClassSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_qos_class` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "qos", name, dry_run=True)

    @call
    def change_qos_class(
        self, name: str, change: api.QosClassChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a QoS class in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "qos", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_qos_class(
        self, name: str, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Remove a QoS class; nothing to do if there is none. dry_run, if_match: as for `change_qos_class`."""
        return sending("DELETE", api.Plan, None, "qos", name, dry_run=dry_run, if_match=if_match)

    @call
    def networks(
        self,
        *,
        host: str | None = None,
        qos_class: str | None = None,
        security_group: str | None = None,
        label: str | None = None,
    ) -> ApiRequest[list[api.Network]]:
        """All networks that the filters leave."""
        return reading(
            list[api.Network], "networks", host=host, qos_class=qos_class, security_group=security_group, label=label
        )

    @call
    def network(self, name: str) -> ApiRequest[api.Network]:
        """One network. Raises NotFound."""
        return reading(api.Network, "networks", name)

    @call
    def put_network(self, name: str, spec: api.NetworkSpec, *, if_match: str | None = None) -> ApiRequest[api.Network]:
        """Make a network. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_network`."""
        return sending("PUT", api.Network, spec, "networks", name, if_match=if_match)

    @call
    def plan_network(self, name: str, spec: api.NetworkSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_network` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "networks", name, dry_run=True)

    @call
    def change_network(
        self, name: str, change: api.NetworkChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a network in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "networks", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_network(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> ApiRequest[api.Plan]:
        """Remove a network; nothing to do if there is none. dry_run, if_match: as for `change_network`."""
        return sending("DELETE", api.Plan, None, "networks", name, dry_run=dry_run, if_match=if_match)

    @call
    def plug_bridges(self, *, network: str | None = None, host: str | None = None) -> ApiRequest[list[api.PlugBridge]]:
        """All plug bridges that the filters leave."""
        return reading(list[api.PlugBridge], "plug-bridges", network=network, host=host)

    @call
    def plug_bridge(self, name: str) -> ApiRequest[api.PlugBridge]:
        """One plug bridge. Raises NotFound."""
        return reading(api.PlugBridge, "plug-bridges", name)

    @call
    def put_plug_bridge(
        self, name: str, spec: api.PlugBridgeSpec, *, if_match: str | None = None
    ) -> ApiRequest[api.PlugBridge]:
        """Make a plug bridge. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_plug_bridge`."""
        return sending("PUT", api.PlugBridge, spec, "plug-bridges", name, if_match=if_match)

    @call
    def plan_plug_bridge(self, name: str, spec: api.PlugBridgeSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_plug_bridge` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "plug-bridges", name, dry_run=True)

    @call
    def change_plug_bridge(
        self, name: str, change: api.PlugBridgeChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a plug bridge in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "plug-bridges", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_plug_bridge(
        self, name: str, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Remove a plug bridge; nothing to do if there is none. dry_run, if_match: as for `change_plug_bridge`."""
        return sending("DELETE", api.Plan, None, "plug-bridges", name, dry_run=dry_run, if_match=if_match)

    @call
    def flow_export(self) -> ApiRequest[list[api.FlowCollector]]:
        """All flow collectors."""
        return reading(list[api.FlowCollector], "flow-export")

    @call
    def flow_collector(self, name: str) -> ApiRequest[api.FlowCollector]:
        """One flow collector. Raises NotFound."""
        return reading(api.FlowCollector, "flow-export", name)

    @call
    def put_flow_collector(
        self, name: str, spec: api.FlowCollectorSpec, *, if_match: str | None = None
    ) -> ApiRequest[api.FlowCollector]:
        """Make a flow collector. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_flow_collector`."""
        return sending("PUT", api.FlowCollector, spec, "flow-export", name, if_match=if_match)

    @call
    def plan_flow_collector(self, name: str, spec: api.FlowCollectorSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_flow_collector` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "flow-export", name, dry_run=True)

    @call
    def change_flow_collector(
        self, name: str, change: api.FlowCollectorChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a flow collector in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "flow-export", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_flow_collector(
        self, name: str, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Remove a flow collector; nothing to do if there is none. dry_run, if_match: as for `change_flow_collector`."""
        return sending("DELETE", api.Plan, None, "flow-export", name, dry_run=dry_run, if_match=if_match)

    @call
    def subnets(self, *, network: str | None = None) -> ApiRequest[list[api.Subnet]]:
        """All subnets that the filters leave."""
        return reading(list[api.Subnet], "subnets", network=network)

    @call
    def subnet(self, name: str) -> ApiRequest[api.Subnet]:
        """One subnet. Raises NotFound."""
        return reading(api.Subnet, "subnets", name)

    @call
    def put_subnet(self, name: str, spec: api.SubnetSpec, *, if_match: str | None = None) -> ApiRequest[api.Subnet]:
        """Make a subnet. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_subnet`."""
        return sending("PUT", api.Subnet, spec, "subnets", name, if_match=if_match)

    @call
    def plan_subnet(self, name: str, spec: api.SubnetSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_subnet` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "subnets", name, dry_run=True)

    @call
    def change_subnet(
        self, name: str, change: api.SubnetChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a subnet in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "subnets", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_subnet(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> ApiRequest[api.Plan]:
        """Remove a subnet; nothing to do if there is none. dry_run, if_match: as for `change_subnet`."""
        return sending("DELETE", api.Plan, None, "subnets", name, dry_run=dry_run, if_match=if_match)

    @call
    def address_sets(self) -> ApiRequest[list[api.AddressSet]]:
        """All address sets."""
        return reading(list[api.AddressSet], "address-sets")

    @call
    def address_set(self, name: str) -> ApiRequest[api.AddressSet]:
        """One address set. Raises NotFound."""
        return reading(api.AddressSet, "address-sets", name)

    @call
    def put_address_set(
        self, name: str, spec: api.AddressSetSpec, *, if_match: str | None = None
    ) -> ApiRequest[api.AddressSet]:
        """Make an address set, or make it what `spec` says. if_match: as for `change_address_set`."""
        return sending("PUT", api.AddressSet, spec, "address-sets", name, if_match=if_match)

    @call
    def plan_address_set(self, name: str, spec: api.AddressSetSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_address_set` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "address-sets", name, dry_run=True)

    @call
    def change_address_set(
        self, name: str, change: api.AddressSetChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of an address set in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "address-sets", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_address_set(
        self, name: str, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Remove an address set; nothing to do if there is none. dry_run, if_match: as for `change_address_set`."""
        return sending("DELETE", api.Plan, None, "address-sets", name, dry_run=dry_run, if_match=if_match)

    @call
    def security_groups(self) -> ApiRequest[list[api.SecurityGroup]]:
        """All security groups."""
        return reading(list[api.SecurityGroup], "security-groups")

    @call
    def security_group(self, name: str) -> ApiRequest[api.SecurityGroup]:
        """One security group. Raises NotFound."""
        return reading(api.SecurityGroup, "security-groups", name)

    @call
    def put_security_group(
        self, name: str, spec: api.SecurityGroupSpec, *, if_match: str | None = None
    ) -> ApiRequest[api.SecurityGroup]:
        """Make a security group, or make it what `spec` says. if_match: as for `change_security_group`."""
        return sending("PUT", api.SecurityGroup, spec, "security-groups", name, if_match=if_match)

    @call
    def plan_security_group(self, name: str, spec: api.SecurityGroupSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_security_group` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "security-groups", name, dry_run=True)

    @call
    def change_security_group(
        self, name: str, change: api.SecurityGroupChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a security group in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "security-groups", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_security_group(
        self, name: str, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Remove a security group; nothing to do if there is none. dry_run, if_match: as for `change_security_group`."""
        return sending("DELETE", api.Plan, None, "security-groups", name, dry_run=dry_run, if_match=if_match)

    @call
    def vms(
        self, *, host: str | None = None, security_group: str | None = None, label: str | None = None
    ) -> ApiRequest[list[api.Vm]]:
        """All VMs that the filters leave."""
        return reading(list[api.Vm], "vms", host=host, security_group=security_group, label=label)

    @call
    def vm(self, name: str) -> ApiRequest[api.Vm]:
        """One VM. Raises NotFound."""
        return reading(api.Vm, "vms", name)

    @call
    def put_vm(self, name: str, spec: api.VmSpec, *, if_match: str | None = None) -> ApiRequest[api.Vm]:
        """Make a VM. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_vm`."""
        return sending("PUT", api.Vm, spec, "vms", name, if_match=if_match)

    @call
    def plan_vm(self, name: str, spec: api.VmSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_vm` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "vms", name, dry_run=True)

    @call
    def change_vm(
        self, name: str, change: api.VmChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a VM in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "vms", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_vm(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> ApiRequest[api.Plan]:
        """Remove a VM; nothing to do if there is none. dry_run, if_match: as for `change_vm`."""
        return sending("DELETE", api.Plan, None, "vms", name, dry_run=dry_run, if_match=if_match)

    @call
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
    ) -> ApiRequest[list[api.Vif]]:
        """All VIFs that the filters leave."""
        return reading(
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

    @call
    def vif(self, id: str) -> ApiRequest[api.Vif]:
        """One VIF. Raises NotFound."""
        return reading(api.Vif, "vifs", id)

    @call
    def put_vif(self, id: str, spec: api.VifSpec, *, if_match: str | None = None) -> ApiRequest[api.Vif]:
        """Make a VIF. The same again changes nothing; another one of that id is a Conflict. if_match: as for `change_vif`."""
        return sending("PUT", api.Vif, spec, "vifs", id, if_match=if_match)

    @call
    def plan_vif(self, id: str, spec: api.VifSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_vif` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "vifs", id, dry_run=True)

    @call
    def change_vif(
        self, id: str, change: api.VifChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a VIF in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "vifs", id, dry_run=dry_run, if_match=if_match)

    @call
    def delete_vif(self, id: str, *, dry_run: bool = False, if_match: str | None = None) -> ApiRequest[api.Plan]:
        """Remove a VIF; nothing to do if there is none. dry_run, if_match: as for `change_vif`."""
        return sending("DELETE", api.Plan, None, "vifs", id, dry_run=dry_run, if_match=if_match)

    @call
    def create_vif(self, spec: api.NewVif, *, if_match: str | None = None) -> ApiRequest[api.Vif]:
        """Make a VIF; its id follows from the other fields where `spec` leaves it out. if_match: as for `change_vif`."""
        return sending("POST", api.Vif, spec, "vifs", if_match=if_match)

    @call
    def mirrors(self) -> ApiRequest[list[api.FrameMirror]]:
        """All mirrors."""
        return reading(list[api.FrameMirror], "mirrors")

    @call
    def mirror(self, name: str) -> ApiRequest[api.FrameMirror]:
        """One mirror. Raises NotFound."""
        return reading(api.FrameMirror, "mirrors", name)

    @call
    def put_mirror(
        self, name: str, spec: api.FrameMirrorSpec, *, if_match: str | None = None
    ) -> ApiRequest[api.FrameMirror]:
        """Make a mirror. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_mirror`."""
        return sending("PUT", api.FrameMirror, spec, "mirrors", name, if_match=if_match)

    @call
    def plan_mirror(self, name: str, spec: api.FrameMirrorSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_mirror` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "mirrors", name, dry_run=True)

    @call
    def change_mirror(
        self, name: str, change: api.FrameMirrorChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of a mirror in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "mirrors", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_mirror(self, name: str, *, dry_run: bool = False, if_match: str | None = None) -> ApiRequest[api.Plan]:
        """Remove a mirror; nothing to do if there is none. dry_run, if_match: as for `change_mirror`."""
        return sending("DELETE", api.Plan, None, "mirrors", name, dry_run=dry_run, if_match=if_match)

    @call
    def expectations(self) -> ApiRequest[list[api.Expectation]]:
        """All expectations."""
        return reading(list[api.Expectation], "expectations")

    @call
    def expectation(self, name: str) -> ApiRequest[api.Expectation]:
        """One expectation. Raises NotFound."""
        return reading(api.Expectation, "expectations", name)

    @call
    def put_expectation(
        self, name: str, spec: api.ExpectationSpec, *, if_match: str | None = None
    ) -> ApiRequest[api.Expectation]:
        """Make an expectation. The same again changes nothing; another one of that name is a Conflict. if_match: as for `change_expectation`."""
        return sending("PUT", api.Expectation, spec, "expectations", name, if_match=if_match)

    @call
    def plan_expectation(self, name: str, spec: api.ExpectationSpec) -> ApiRequest[api.Plan]:
        """The changes that `put_expectation` would make, and their disruption."""
        return sending("PUT", api.Plan, spec, "expectations", name, dry_run=True)

    @call
    def change_expectation(
        self, name: str, change: api.ExpectationChange, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Change fields of an expectation in place; the changes and their disruption. dry_run: without doing it. if_match: only if this is still the id
        of its plan, or the object's tag; else raises PreconditionFailed."""
        return sending("PATCH", api.Plan, change, "expectations", name, dry_run=dry_run, if_match=if_match)

    @call
    def delete_expectation(
        self, name: str, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Remove an expectation; nothing to do if there is none. dry_run, if_match: as for `change_expectation`."""
        return sending("DELETE", api.Plan, None, "expectations", name, dry_run=dry_run, if_match=if_match)

    @call
    def create_expectation(
        self, spec: api.NewExpectation, *, if_match: str | None = None
    ) -> ApiRequest[api.Expectation]:
        """Make an expectation; its name follows from the other fields where `spec` leaves it out. if_match: as for `change_expectation`."""
        return sending("POST", api.Expectation, spec, "expectations", if_match=if_match)

    # --- generated: end

    @call
    def set_security_groups(
        self, id: str, groups: Sequence[str], *, if_match: str | None = None
    ) -> ApiRequest[api.Vif]:
        """Have a VIF obey these security groups instead of its present ones; also while it runs. if_match: as for `change_vif`."""
        body = {"security_groups": list(groups)}
        return sending("PUT", api.Vif, body, "vifs", id, "security-groups", if_match=if_match)

    @call
    def group_counters(self, name: str, *, wait_s: int = 5) -> ApiRequest[api.GroupCounters]:
        """What each rule of a security group has matched, summed over the hosts. wait_s: the wait for their answers."""
        location = path("security-groups", name, "counters")
        return ApiRequest("GET", location, api.GroupCounters, {"wait_s": str(wait_s)}, wait_s=wait_s)

    @call
    def health(self) -> ApiRequest[api.Health]:
        """What is wrong with the network between the hosts, by what they have stated: nothing is asked or sent."""
        return ApiRequest("GET", path("health"), api.Health)

    @call
    def look(self, *, wait_s: int = 10) -> ApiRequest[api.Health]:
        """Have all hosts look anew at the network between them, by frames that no guest gets. wait_s: the wait for their answers."""
        return ApiRequest("POST", path("health"), api.Health, {"wait_s": str(wait_s)}, wait_s=wait_s)

    @call
    def quarantine_vif(
        self, id: str, network: str, *, dry_run: bool = False, if_match: str | None = None
    ) -> ApiRequest[api.Plan]:
        """Put a VIF on this network till `release_vif`, also while it runs. dry_run, if_match: as for `change_vif`."""
        body, at = api.VifChange(network=network), ("vifs", id, "quarantine")
        return sending("PUT", api.Plan, body, *at, dry_run=dry_run, if_match=if_match)

    @call
    def release_vif(self, id: str, *, dry_run: bool = False, if_match: str | None = None) -> ApiRequest[api.Plan]:
        """Put a VIF back on the network that it was on before its quarantine, with the addresses that it had there. dry_run, if_match: as for `change_vif`."""
        at = ("vifs", id, "quarantine")
        return sending("DELETE", api.Plan, None, *at, dry_run=dry_run, if_match=if_match)

    @call
    def monitored(self, group: str, *, wait_s: int = 5) -> ApiRequest[api.Monitored]:
        """What a security group in monitor mode would have forbidden, and the rules that would allow it. wait_s: as for the counters."""
        location = path("security-groups", group, "monitored")
        return ApiRequest("GET", location, api.Monitored, {"wait_s": str(wait_s)}, wait_s=wait_s)

    @call
    def plug_vif(self, id: str, host: str, *, wait_s: float = 0.0, awaited: bool = False) -> ApiRequest[api.Vif]:
        """Want a VIF on a host, and wait until it is ready there, or with `awaited` until its `place.ofport` is known. The port is
        added on that host."""
        body = api.PlugCall(host=host, wait_s=wait_s, awaited=awaited)
        return sending("POST", api.Vif, body, "vifs", id, "plug", wait_s=wait_s)

    @call
    def unplug_vif(self, id: str) -> ApiRequest[api.Vif]:
        """Want a VIF nowhere, and forget it on dead hosts."""
        return sending("POST", api.Vif, None, "vifs", id, "unplug")

    @call
    def probe(self, call: api.ProbesCall) -> ApiRequest[list[api.Probe]]:
        """The traces of frames by hosts' switches. Nothing is sent."""
        return sending("POST", list[api.Probe], call, "probes", wait_s=call.wait_s)

    @call
    def trace(self, call: api.TraceCall) -> ApiRequest[api.Traced]:
        """A packet's way there and back on the twin of the pool as it is. Nothing is sent."""
        return sending("POST", api.Traced, call, "trace", wait_s=TWIN_S)

    @call
    def matrix(
        self,
        protocol: str = "icmp",
        port: int | None = None,
        *,
        at: str = "",
        down: Sequence[str] = (),
        cut: Sequence[str] = (),
        each_failure: bool = False,
    ) -> ApiRequest[api.ReachabilityMatrix]:
        """Who reaches whom on the twin: by ping, or a port of "tcp" or "udp". at: as it was then; down, cut: while these hosts and links fail; each_failure:
        also the pairs that a single failure parts. Raises Conflict for a pool with too many classes of VIFs, or too many failures."""
        query = (
            circumstances(at, down, cut) | {"protocol": protocol} | ({"port": str(port)} if port is not None else {})
        )
        query |= {"each-failure": "true"} if each_failure else {}
        return ApiRequest("GET", path("matrix"), api.ReachabilityMatrix, query, wait_s=TWIN_S)

    @call
    def check(
        self, *, at: str = "", down: Sequence[str] = (), cut: Sequence[str] = ()
    ) -> ApiRequest[list[api.Expected]]:
        """The pool's expectations, and whether each holds on the twin: now or as it was, while hosts and links fail."""
        query = circumstances(at, down, cut)
        return ApiRequest("GET", path("check"), list[api.Expected], query, wait_s=TWIN_S)

    @call
    def failures(self, *, at: str = "", expectations: bool = False) -> ApiRequest[list[api.SingleFailure]]:
        """Every single failure that there can be, with `expectations` also what fails then. Raises Conflict for too many to try."""
        query = circumstances(at) | ({"expectations": "true"} if expectations else {})
        return ApiRequest("GET", path("failures"), list[api.SingleFailure], query, wait_s=TWIN_S)

    @call
    def explained(self, vif: str) -> ApiRequest[api.ExplainedVif]:
        """The flows of a VIF by its id, with what they are for, and the groups that judge it."""
        return ApiRequest("GET", path("vifs", vif, "explained"), api.ExplainedVif, wait_s=TWIN_S)

    @call
    def traffic(self, vif: str | None = None) -> ApiRequest[api.Traffic]:
        """What the ports of VIFs have received and sent; of all that the caller may see, or of one by its id."""
        query = {"vif": vif} if vif is not None else {}
        return ApiRequest("GET", path("traffic"), api.Traffic, query)

    @call
    def accounting(self, vif: str | None = None) -> ApiRequest[api.Accounting]:
        """What VIFs have sent and got since they were made, wherever they ran; all that the caller may see, or one by its id."""
        query = {"vif": vif} if vif is not None else {}
        return ApiRequest("GET", path("accounting"), api.Accounting, query)

    @call
    def packets(self, call: api.PacketsCall) -> ApiRequest[api.Packets]:
        """Send marked frames, which no guest gets; the places where they came out."""
        return sending("POST", api.Packets, call, "packets", wait_s=call.wait_s + len(call.packets))

    @call
    def end_capture(self, id: str) -> ApiRequest[api.Done]:
        """Have a capture end once its hosts have sent what is left. id: the comment of its file's first block. Raises NotFound."""
        return sending("DELETE", api.Done, None, "captures", id)

    @call
    def bindings(self, *, vif: str | None = None, host: str | None = None) -> ApiRequest[list[api.Binding]]:
        """The hosts' bindings of VIFs."""
        return reading(list[api.Binding], "bindings", vif=vif, host=host)

    @call
    def events(self, /, limit: int = 100, **filters: str | None) -> ApiRequest[list[api.Event]]:
        """The newest events, oldest first. filters: kind, host, network, vif."""
        return reading(list[api.Event], "events", limit=str(limit), **filters)

    @call
    def migration(self, unit: Unit) -> ApiRequest[api.Migration]:
        """The progress of a unit's migration."""
        return reading(api.Migration, unit.plural, unit.id, "migration")

    @call
    def prepare(self, unit: Unit, to: str, *, force: bool = False) -> ApiRequest[api.Migration]:
        """Let a host get ready to take a unit. Nothing moves yet."""
        return sending("POST", api.Migration, api.PrepareCall(to=to, force=force), unit.plural, unit.id, "prepare")

    @call
    def switch(self, unit: Unit, *, force: bool = False) -> ApiRequest[api.Migration]:
        """The guest is paused: open the destination for it."""
        return _step(unit, "switch", force=force)

    @call
    def activate(self, unit: Unit, *, force: bool = False) -> ApiRequest[api.Migration]:
        """The guest runs at the destination."""
        return _step(unit, "activate", force=force)

    @call
    def finish(self, unit: Unit, *, force: bool = False) -> ApiRequest[api.Migration]:
        """End a migration at its destination. force: past a dead source."""
        return _step(unit, "finish", force=force)

    @call
    def abort(self, unit: Unit) -> ApiRequest[api.Migration]:
        """End a migration at its source."""
        return sending("POST", api.Migration, None, unit.plural, unit.id, "abort")

    @call
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
    ) -> ApiRequest[api.Applied]:
        """Make the pool as a document says, if its revision is still `revision` and this is still the plan of the id `plan`; wait for the hosts to follow. try_s: take it back by itself after so many
        seconds, unless `confirm` was called.

        Raises Conflict while another revision is on trial, and for a change that breaks an expectation which holds now, unless `force`.
        """
        expected = None if revision is None else str(revision)
        query = {"filename": filename, "wait_s": str(wait_s), "revision": expected, "force": "1" if force else None}
        query |= {"try_s": None if try_s is None else str(try_s), "plan": plan}
        return uploading(api.Applied, "apply", document=document, query=query, wait_s=wait_s).reporting(progress)

    @call
    def migrate(
        self, unit: Unit, to: str, *, activate: bool = False, timeout_s: float = 60.0, progress: Progress = silent
    ) -> ApiRequest[api.Migration]:
        """All steps of a migration. Call again to go on after a lost answer or TimedOut."""
        body = api.MigrateCall(to=to, activate=activate, timeout_s=timeout_s)
        return sending("POST", api.Migration, body, unit.plural, unit.id, "migrate", wait_s=timeout_s).reporting(
            progress
        )

    @call
    def invite(
        self, host: str, *, url: str | None = None, pool: Sequence[str] = (), minutes: float = 60.0
    ) -> ApiRequest[api.Invitation]:
        """Invite a host into the pool: a secret word, for which it gets its certificate. Raises Conflict where the CA is not there."""
        body = api.InviteCall(url=url, pool=list(pool), minutes=minutes)
        return sending("POST", api.Invitation, body, "hosts", host, "invite")

    @call
    def revoke(self, host: str) -> ApiRequest[api.Revoked]:
        """Renew a host's certificate no more. Raises NotFound, and Conflict where the CA is not there."""
        return sending("DELETE", api.Revoked, None, "hosts", host, "certificate")

    @call
    def caller(self) -> ApiRequest[api.Caller]:
        """Who we are to the controller."""
        return reading(api.Caller, "caller")

    @call
    def tokens(self) -> ApiRequest[list[api.Token]]:
        """All tokens."""
        return reading(list[api.Token], "tokens")

    @call
    def make_token(self, name: str, call: api.TokenCall) -> ApiRequest[api.NewToken]:
        """Make a token. Raises Conflict if there is one of that name, unless it is to be replaced."""
        return sending("PUT", api.NewToken, call, "tokens", name)

    @call
    def revoke_token(self, name: str) -> ApiRequest[api.Done]:
        """End a token; nothing to do if there is none."""
        return sending("DELETE", api.Done, None, "tokens", name)

    @call
    def history(
        self, limit: int = 100, *, caller: str | None = None, refused: bool = False
    ) -> ApiRequest[list[api.HistoryEntry]]:
        """The newest changes of the pool, oldest first; with `refused` the calls that were refused because of who made them."""
        return reading(
            list[api.HistoryEntry], "history", limit=str(limit), caller=caller, refused="true" if refused else None
        )

    @call
    def change(self, id: str) -> ApiRequest[api.HistoryEntry]:
        """A change, by the revision that it made or by its id, with what was before and after. Raises NotFound for one that is not kept."""
        return reading(api.HistoryEntry, "history", id)

    @call
    def past(self, at: str) -> ApiRequest[api.PastPool]:
        """The pool as it was after a revision or the record of an id, or at a time (RFC 3339). Raises NotFound for one that is not kept."""
        return reading(api.PastPool, "history", at, "pool")

    @call
    def diff(self, old: str, new: str | None = None) -> ApiRequest[api.Plan]:
        """What differs between the pool at two moments, as for `past`; new: the present if left out."""
        return reading(api.Plan, "diff", **{"from": old}, to=new)

    @call
    def plan_rollback(self, at: str) -> ApiRequest[api.Plan]:
        """The changes that `rollback` would make. Raises NotFound, and Conflict where the pool cannot be so again, with the reasons."""
        return reading(api.Plan, "history", at, "rollback")

    @call
    def rollback(
        self,
        at: str,
        *,
        revision: int | None = None,
        wait_s: int = 30,
        force: bool = False,
        try_s: int | None = None,
        progress: Progress = silent,
    ) -> ApiRequest[api.Applied]:
        """Make the pool what it was, as for `past`, if its revision is still `revision`; wait for the hosts to follow. VIFs and VMs stay where they are.
        try_s: as for `apply`.

        Raises NotFound, and Conflict where the pool cannot be so again or, unless `force`, an expectation that holds now would break.
        """
        expected = None if revision is None else str(revision)
        query = {"wait_s": str(wait_s), "revision": expected, "force": "1" if force else None}
        query["try_s"] = None if try_s is None else str(try_s)
        call = uploading(api.Applied, "history", at, "rollback", document=None, query=query, wait_s=wait_s)
        return call.reporting(progress)

    @call
    def follow_toolstack(
        self, name: str, caller: str, *, silent_at: int | None = None, ends: bool = False
    ) -> ApiRequest[api.ToolstackFollower]:
        """Ask to be the follower of a toolstack; the answer says which one is. silent_at, ends: as in FollowCall."""
        body = api.FollowCall(caller=caller, silent_at=silent_at, ends=ends)
        return sending("POST", api.ToolstackFollower, body, "followers", name)

    @call
    def trial(self) -> ApiRequest[api.Trial]:
        """The revision that is on trial. Raises NotFound if none is."""
        return reading(api.Trial, "trial")

    @call
    def confirm(self, revision: int | None = None) -> ApiRequest[api.Trial]:
        """Keep the revision that is on trial, if it is this one. Raises NotFound if it is not."""
        query = {"revision": None if revision is None else str(revision)}
        return uploading(api.Trial, "trial", "confirm", document=None, query=query, wait_s=10.0)

    @call
    def revert(self, revision: int | None = None, *, progress: Progress = silent) -> ApiRequest[api.Applied]:
        """Take the revision that is on trial back at once, if it is this one, and wait for the hosts to follow. Raises NotFound if it is not."""
        query = {"revision": None if revision is None else str(revision)}
        call = uploading(api.Applied, "trial", "revert", document=None, query=query, wait_s=60.0)
        return call.reporting(progress)

    @call
    def evacuate(
        self,
        host: str,
        *,
        to: str | None = None,
        activate: bool = False,
        timeout_s: float = 600.0,
        progress: Progress = silent,
    ) -> ApiRequest[api.Evacuation]:
        """Migrate every VIF that runs on a host."""
        body = api.EvacuateCall(to=to, activate=activate, timeout_s=timeout_s)
        return sending("POST", api.Evacuation, body, "hosts", host, "evacuate", wait_s=timeout_s).reporting(progress)


class BlockingCalls(Calls):
    """The calls of a client that waits for answers."""

    def _do(self, call: ApiRequest[T]) -> T:
        raise NotImplementedError


class AsyncCalls(Calls):
    """The calls of a client whose answers are awaited."""

    async def _do(self, call: ApiRequest[T]) -> T:
        raise NotImplementedError
