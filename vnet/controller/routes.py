"""The REST API as data: every call with its path, its types and what carries it out. OpenAPI is made from the same.

One rule: a handler gets decoded values, and returns values or raises Refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from vnet import api
from vnet.controller import apply, migration_driver, ofproto_trace_rpc, packet_injection, provisioning, security_groups
from vnet.controller.admission import find
from vnet.controller.endpoint import Call, Handler, Route
from vnet.controller.errors import Invalid, NotFound
from vnet.controller.presenters import (
    show_binding,
    show_group,
    show_groups,
    show_host,
    show_hosts,
    show_migration,
    show_network,
    show_networks,
    show_pool,
    show_status,
    show_vif,
    show_vm,
)
from vnet.controller.service import Service, Unit
from vnet.controller.vif_status import Presence

# --- pool -----------------------------------------------------------------------------------------


async def get_pool(call: Call[None]) -> api.Pool:
    pool = call.service.view().state.pool
    if pool is None:
        raise NotFound("no-pool", "the pool is empty: apply a document first")
    return show_pool(pool)


async def get_status(call: Call[None]) -> api.Status:
    database = call.service.database
    return show_status(call.service.view(), database.remotes, call.service.version, database.mirror.problems.values())


# --- hosts ----------------------------------------------------------------------------------------


async def list_hosts(call: Call[None]) -> list[api.Host]:
    return show_hosts(call.service.view())


async def get_host(call: Call[None]) -> api.Host:
    view = call.service.view()
    find("host", call.id, view.state.hosts)
    return next(host for host in show_hosts(view) if host.name == call.id)


async def put_host(call: Call[api.HostSpec]) -> api.Host:
    await call.service.configure(lambda view: provisioning.make_host(view, call.id, call.body))
    view = call.service.view()
    return show_host(view, find("host", call.id, view.state.hosts))


async def delete_host(call: Call[None]) -> None:
    await call.service.configure(lambda view: provisioning.drop_host(view, call.id))


async def evacuate(call: Call[api.EvacuateCall]) -> AsyncIterator[tuple[str, api.Evacuation]]:
    find("host", call.id, call.service.view().state.hosts)
    body = call.body
    steps = migration_driver.evacuate(call.service, call.id, body.to, activated=body.activate, timeout_s=body.timeout_s)
    async for line, moved in steps:
        yield line, api.Evacuation(moved=moved)


# --- networks -------------------------------------------------------------------------------------


async def list_networks(call: Call[None]) -> list[api.Network]:
    return show_networks(call.service.view())


async def get_network(call: Call[None]) -> api.Network:
    view = call.service.view()
    network = find("network", call.id, view.state.networks)
    return show_network(network, sum(vif.network == call.id for vif in view.state.vifs.values()))


async def put_network(call: Call[api.NetworkSpec]) -> api.Network:
    await call.service.configure(lambda view: provisioning.make_network(view, call.id, call.body))
    return await get_network(call)  # type: ignore[arg-type]  # which has no use for the body


async def delete_network(call: Call[None]) -> None:
    await call.service.configure(lambda view: provisioning.drop_network(view, call.id))


# --- security groups ------------------------------------------------------------------------------


async def list_groups(call: Call[None]) -> list[api.SecurityGroup]:
    return show_groups(call.service.view())


async def get_group(call: Call[None]) -> api.SecurityGroup:
    view = call.service.view()
    group = find("security group", call.id, view.state.groups)
    return show_group(group, sum(call.id in vif.groups for vif in view.state.vifs.values()))


async def put_group(call: Call[api.SecurityGroupSpec]) -> api.SecurityGroup:
    await call.service.configure(lambda view: security_groups.make_group(view, call.id, call.body))
    return await get_group(call)  # type: ignore[arg-type]  # which has no use for the body


async def delete_group(call: Call[None]) -> None:
    await call.service.configure(lambda view: security_groups.drop_group(view, call.id))


# --- VIFs -----------------------------------------------------------------------------------------

STATES = tuple(presence.value for presence in Presence)
VIF_FILTERS = {
    "host": "Only VIFs that are on this host, or wanted there and on none.",
    "network": "Only VIFs of this network.",
    "vm": "Only VIFs of this VM.",
    "state": f"Only VIFs in this state: {', '.join(STATES)}.",
}


def _vif(service: Service, id: str) -> api.Vif:
    view = service.view()
    return show_vif(view, find("vif", id, view.state.vifs), service.feed.defined_since(id))


async def list_vifs(call: Call[None]) -> list[api.Vif]:
    view = call.service.view()
    state = call.query.get("state")
    if state is not None and state not in STATES:
        raise Invalid("query", f"state: {state[:40]!r} is none of {', '.join(STATES)}", "state")
    vm, network = call.query.get("vm"), call.query.get("network")
    vifs = view.vifs(vm) if vm is not None else [view.state.vifs[id] for id in sorted(view.state.vifs)]
    shown = [
        show_vif(view, vif, call.service.feed.defined_since(vif.id)) for vif in vifs if network in (None, vif.network)
    ]
    host = call.query.get("host")
    at_host = [vif for vif in shown if host is None or (vif.place.host or vif.host) == host]
    return [vif for vif in at_host if state in (None, vif.place.state)]


async def get_vif(call: Call[None]) -> api.Vif:
    return _vif(call.service, call.id)


async def put_vif(call: Call[api.VifSpec]) -> api.Vif:
    outcome = await call.service.configure(lambda view: provisioning.make_vif(view, call.id, call.body))
    return _vif(call.service, outcome.name)


async def post_vif(call: Call[api.NewVif]) -> api.Vif:
    outcome = await call.service.configure(lambda view: provisioning.make_vif(view, call.body.id, call.body))
    return _vif(call.service, outcome.name)


async def delete_vif(call: Call[None]) -> None:
    await call.service.configure(lambda view: provisioning.drop_vif(view, call.id))


async def put_groups_of_vif(call: Call[api.GroupsCall]) -> api.Vif:
    await call.service.configure(lambda view: security_groups.set_groups(view, call.id, call.body.security_groups))
    return _vif(call.service, call.id)


async def plug(call: Call[api.PlugCall]) -> api.Vif:
    wait_s = min(max(call.body.wait_s, 0.0), 600.0)
    await call.service.plug(call.id, call.body.host, wait_s, awaited=call.body.awaited)
    return _vif(call.service, call.id)


async def unplug(call: Call[None]) -> api.Vif:
    await call.service.unplug(call.id)
    return _vif(call.service, call.id)


# --- VMs ------------------------------------------------------------------------------------------


async def list_vms(call: Call[None]) -> list[api.Vm]:
    view = call.service.view()
    return [show_vm(view, vm) for _, vm in sorted(view.state.vms.items())]


async def get_vm(call: Call[None]) -> api.Vm:
    view = call.service.view()
    return show_vm(view, find("vm", call.id, view.state.vms))


async def put_vm(call: Call[api.VmSpec]) -> api.Vm:
    await call.service.configure(lambda view: provisioning.make_vm(view, call.id, call.body))
    return await get_vm(call)  # type: ignore[arg-type]


async def delete_vm(call: Call[None]) -> None:
    await call.service.configure(lambda view: provisioning.drop_vm(view, call.id))


# --- migration, of VIFs and VMs alike -------------------------------------------------------------

MakeUnit = Callable[[str], Unit]


def _moves(kind: str, what: str, unit: MakeUnit) -> list[Route]:
    async def get(call: Call[None]) -> api.Migration:
        return show_migration(migration_driver.status(call.service, unit(call.id)))

    async def prepare(call: Call[api.PrepareCall]) -> api.Migration:
        body = call.body
        return show_migration(await migration_driver.prepare(call.service, unit(call.id), body.to, force=body.force))

    async def switch(call: Call[api.StepCall]) -> api.Migration:
        return show_migration(await migration_driver.switch(call.service, unit(call.id), force=call.body.force))

    async def activate(call: Call[api.StepCall]) -> api.Migration:
        return show_migration(await migration_driver.activate(call.service, unit(call.id), force=call.body.force))

    async def finish(call: Call[api.StepCall]) -> api.Migration:
        return show_migration(await migration_driver.finish(call.service, unit(call.id), force=call.body.force))

    async def abort(call: Call[None]) -> api.Migration:
        return show_migration(await migration_driver.abort(call.service, unit(call.id)))

    async def migrate(call: Call[api.MigrateCall]) -> AsyncIterator[tuple[str, api.Migration]]:
        body, moved = call.body, unit(call.id)
        steps = migration_driver.migrate(
            call.service, moved, body.to, activated=body.activate, timeout_s=body.timeout_s
        )
        async for line in steps:
            yield line, show_migration(migration_driver.status(call.service, moved))

    def step(method: str, name: str, summary: str, handler: Handler, body: Any = api.StepCall) -> Route:
        return Route(method, f"/v1/{kind}/{{id}}/{name}", summary, api.Migration, handler, body=body, tag="migration")

    return [
        step("GET", "migration", f"How far {what}'s migration is.", get, None),
        step("POST", "prepare", f"Let a host get ready to take {what}. Nothing moves yet.", prepare, api.PrepareCall),
        step("POST", "switch", "The guest is paused: let in at the destination what waits for it. Optional.", switch),
        step(
            "POST",
            "activate",
            "The guest runs at the destination. force: also if not every host is prepared.",
            activate,
        ),
        step("POST", "finish", "End it at the destination. force: past a dead source.", finish),
        step("POST", "abort", "End it at the source, at any time before the destination is active.", abort, None),
        Route(
            "POST",
            f"/v1/{kind}/{{id}}/migrate",
            "The whole way, with progress; call again to go on after a lost answer.",
            api.Migration,
            steps=migrate,
            body=api.MigrateCall,
            tag="migration",
        ),
    ]


# --- bindings and events --------------------------------------------------------------------------


async def list_bindings(call: Call[None]) -> list[api.Binding]:
    bindings = call.service.view().state.bindings
    vif, host = call.query.get("vif"), call.query.get("host")
    return [show_binding(bindings[key]) for key in sorted(bindings) if vif in (None, key[0]) and host in (None, key[1])]


# --- the table ------------------------------------------------------------------------------------


def routes() -> list[Route]:
    """Every call, events apart, which are a stream."""
    document = "application/yaml"
    about_file = {"filename": "What errors call the document."}
    return [
        Route("GET", "/v1/pool", "The pool itself.", api.Pool, get_pool, tag="pool"),
        Route(
            "GET", "/v1/status", "The pool at a glance, and what is not as desired.", api.Status, get_status, tag="pool"
        ),
        Route(
            "POST",
            "/v1/plan",
            "What applying a document would change.",
            api.Plan,
            apply.plan,
            media=document,
            query={**about_file, "reachability": "Also who gains and who loses a way to whom: 1 for yes."},
            tag="pool",
        ),
        Route(
            "POST",
            "/v1/apply",
            "Make the pool what a document says; all of it, or nothing.",
            api.Applied,
            steps=apply.apply,
            media=document,
            tag="pool",
            query={
                **about_file,
                "revision": "The pool's revision that the plan was made against; refused if it changed.",
                "wait_s": "How long to wait for the hosts to follow, 30 unless told.",
                "force": "Apply even what breaks an expectation that holds now: 1 for yes.",
            },
        ),
        Route("GET", "/v1/export", "The pool as a document.", str, apply.export, tag="pool", media=document),
        Route(
            "POST",
            "/v1/probes",
            "What hosts' switches would do with frames; nothing is sent.",
            list[api.Probe],
            ofproto_trace_rpc.probe,
            body=api.ProbesCall,
            tag="hosts",
        ),
        Route(
            "POST",
            "/v1/packets",
            "Send marked frames, which no guest gets, and say where they came out.",
            api.Packets,
            packet_injection.send,
            body=api.PacketsCall,
            tag="hosts",
        ),
        Route("GET", "/v1/hosts", "All hosts.", list[api.Host], list_hosts, tag="hosts"),
        Route("GET", "/v1/hosts/{id}", "One host.", api.Host, get_host, tag="hosts"),
        Route("PUT", "/v1/hosts/{id}", "Make a host.", api.Host, put_host, body=api.HostSpec, tag="hosts"),
        Route("DELETE", "/v1/hosts/{id}", "Remove a host without VIFs.", None, delete_host, tag="hosts"),
        Route(
            "POST",
            "/v1/hosts/{id}/evacuate",
            "Migrate all that runs on a host.",
            api.Evacuation,
            steps=evacuate,
            body=api.EvacuateCall,
            tag="migration",
        ),
        Route("GET", "/v1/networks", "All networks.", list[api.Network], list_networks, tag="networks"),
        Route("GET", "/v1/networks/{id}", "One network.", api.Network, get_network, tag="networks"),
        Route(
            "PUT",
            "/v1/networks/{id}",
            "Make a network.",
            api.Network,
            put_network,
            body=api.NetworkSpec,
            tag="networks",
        ),
        Route("DELETE", "/v1/networks/{id}", "Remove a network without VIFs.", None, delete_network, tag="networks"),
        Route(
            "GET",
            "/v1/security-groups",
            "All security groups.",
            list[api.SecurityGroup],
            list_groups,
            tag="security groups",
        ),
        Route(
            "GET",
            "/v1/security-groups/{id}",
            "One security group with its rules.",
            api.SecurityGroup,
            get_group,
            tag="security groups",
        ),
        Route(
            "PUT",
            "/v1/security-groups/{id}",
            "Make a security group, or give it these rules instead of those it has.",
            api.SecurityGroup,
            put_group,
            body=api.SecurityGroupSpec,
            tag="security groups",
        ),
        Route(
            "DELETE",
            "/v1/security-groups/{id}",
            "Remove a security group that no VIF is in and no rule names.",
            None,
            delete_group,
            tag="security groups",
        ),
        Route("GET", "/v1/vifs", "VIFs.", list[api.Vif], list_vifs, query=VIF_FILTERS, tag="vifs"),
        Route("POST", "/v1/vifs", "Make a VIF.", api.Vif, post_vif, body=api.NewVif, tag="vifs"),
        Route("GET", "/v1/vifs/{id}", "One VIF, and where it is.", api.Vif, get_vif, tag="vifs"),
        Route("PUT", "/v1/vifs/{id}", "Make a VIF of this id.", api.Vif, put_vif, body=api.VifSpec, tag="vifs"),
        Route("DELETE", "/v1/vifs/{id}", "Remove a VIF.", None, delete_vif, tag="vifs"),
        Route(
            "PUT",
            "/v1/vifs/{id}/security-groups",
            "Have a VIF obey these security groups instead of those it is in; also while it runs.",
            api.Vif,
            put_groups_of_vif,
            body=api.GroupsCall,
            tag="vifs",
        ),
        Route(
            "POST",
            "/v1/vifs/{id}/plug",
            "Want a VIF on a host and wait for it; its port is added on that host, which with `awaited` is programmed before.",
            api.Vif,
            plug,
            body=api.PlugCall,
            tag="vifs",
        ),
        Route(
            "POST",
            "/v1/vifs/{id}/unplug",
            "Want a VIF nowhere, and forget it on dead hosts.",
            api.Vif,
            unplug,
            tag="vifs",
        ),
        *_moves("vifs", "a VIF", lambda id: Unit(vif=id)),
        Route("GET", "/v1/vms", "All VMs.", list[api.Vm], list_vms, tag="vms"),
        Route("GET", "/v1/vms/{id}", "One VM with its VIFs.", api.Vm, get_vm, tag="vms"),
        Route("PUT", "/v1/vms/{id}", "Make a VM.", api.Vm, put_vm, body=api.VmSpec, tag="vms"),
        Route("DELETE", "/v1/vms/{id}", "Remove a VM and its VIFs.", None, delete_vm, tag="vms"),
        *_moves("vms", "a VM", lambda id: Unit(vm=id)),
        Route(
            "GET",
            "/v1/bindings",
            "Which host has which VIF.",
            list[api.Binding],
            list_bindings,
            query={"vif": "Only of this VIF.", "host": "Only of this host."},
            tag="vifs",
        ),
    ]
