"""The REST API as data: every call with its path, its types and its handler. OpenAPI is made from the same.

One rule: a handler gets decoded values, and returns values or raises Refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from vnet import api
from vnet.controller import apply, group_counters, migration_driver, ofproto_trace_rpc, packet_injection
from vnet.controller.admission import find
from vnet.controller.endpoint import JOIN, SHOW_CA, Call, Handler, Route, Text
from vnet.controller.errors import Invalid, NotFound
from vnet.controller.migration_state import Migration
from vnet.controller.presenters import Presenter, show_binding, show_migration, show_pool, show_status
from vnet.controller.resources import named, resource_routes
from vnet.controller.service import Service, Unit
from vnet.objects.limits import NAME
from vnet.util.logs import about

log = logging.getLogger("vnet.controller")

MAX_INVITED_MINUTES = 7 * 24 * 60.0

# --- pool -----------------------------------------------------------------------------------------


async def get_pool(call: Call[None]) -> api.Pool:
    pool = call.service.view().state.pool
    if pool is None:
        raise NotFound("no-pool", "the pool is empty: apply a document first")
    return show_pool(pool)


async def get_status(call: Call[None]) -> api.Status:
    service = call.service
    certificates = await asyncio.to_thread(service.certificate_problems)
    database = service.database
    return show_status(
        service.view(), database.remotes, service.version, database.mirror.problems.values(), certificates
    )


# --- joining --------------------------------------------------------------------------------------


async def invite(call: Call[api.InviteCall]) -> api.Invitation:
    host, body, now = call.id, call.body, datetime.now(UTC)
    if not NAME.fullmatch(host):
        raise Invalid("name", f"{host[:60]!r} is no name of a host", "id")
    valid = timedelta(minutes=min(max(body.minutes, 0.0), MAX_INVITED_MINUTES))
    made = call.service.joining.invite(host, body.url, body.pool, valid, now)
    log.info("host %s is invited until %s", host, now + valid, extra=about(host=host))
    return api.Invitation(word=made.encode(), ends=(now + valid).isoformat())


async def join(call: Call[api.JoinCall]) -> api.HostCertificate:
    made = call.service.joining.join(call.body.host, call.body.token, call.body.request)
    log.info("host %s has its certificate", call.body.host, extra=about(host=call.body.host))
    return api.HostCertificate(certificate=made)


async def get_certificate(call: Call[None]) -> api.HostCertificate:
    return api.HostCertificate(certificate=call.service.joining.certificate(call.id))


async def revoke(call: Call[None]) -> api.Revoked:
    ends = call.service.joining.revoke(call.id)
    log.warning("host %s: its certificate is revoked, which ends %s", call.id, ends, extra=about(host=call.id))
    return api.Revoked(ends=ends.isoformat())


async def get_ca(call: Call[None]) -> Text:
    return Text(call.service.joining.ca(), "application/x-pem-file")


# --- hosts and VIFs -------------------------------------------------------------------------------


async def evacuate(call: Call[api.EvacuateCall]) -> AsyncIterator[tuple[str, api.Evacuation]]:
    find("host", call.id, call.service.view().state.hosts)
    body = call.body
    steps = migration_driver.evacuate(call.service, call.id, body.to, activated=body.activate, timeout_s=body.timeout_s)
    async for line, moved in steps:
        yield line, api.Evacuation(moved=moved)


def _vif(service: Service, id: str) -> dict[str, Any]:
    view = service.view()
    return Presenter(view, service.feed.defined_since).show(find("vif", id, view.state.vifs))


async def plug(call: Call[api.PlugCall]) -> dict[str, Any]:
    wait_s = min(max(call.body.wait_s, 0.0), 600.0)
    await call.service.plug(call.id, call.body.host, wait_s, awaited=call.body.awaited)
    return _vif(call.service, call.id)


async def unplug(call: Call[None]) -> dict[str, Any]:
    await call.service.unplug(call.id)
    return _vif(call.service, call.id)


# --- migration, of VIFs and VMs alike -------------------------------------------------------------

MakeUnit = Callable[[str], Unit]


def _moves(plural: str, title: str, unit: MakeUnit) -> Iterator[Route]:
    """The calls of migrations: of VIFs, or of VMs."""

    async def get(call: Call[None]) -> api.Migration:
        return show_migration(migration_driver.status(call.service, unit(call.id)))

    async def prepare(call: Call[api.PrepareCall]) -> api.Migration:
        body = call.body
        return show_migration(await migration_driver.prepare(call.service, unit(call.id), body.to, force=body.force))

    async def abort(call: Call[None]) -> api.Migration:
        return show_migration(await migration_driver.abort(call.service, unit(call.id)))

    async def migrate(call: Call[api.MigrateCall]) -> AsyncIterator[tuple[str, api.Migration]]:
        body, moved = call.body, unit(call.id)
        steps = migration_driver.migrate(
            call.service, moved, body.to, activated=body.activate, timeout_s=body.timeout_s
        )
        async for line in steps:
            yield line, show_migration(migration_driver.status(call.service, moved))

    def step(advance: Callable[..., Awaitable[Migration]]) -> Handler:
        async def handler(call: Call[api.StepCall]) -> api.Migration:
            return show_migration(await advance(call.service, unit(call.id), force=call.body.force))

        return handler

    def route(method: str, name: str, summary: str, handler: Handler, body: Any = api.StepCall) -> Route:
        return Route(method, f"/v1/{plural}/{{id}}/{name}", summary, api.Migration, handler, body=body, tag="migration")

    driver = migration_driver
    text = f"Let a host get ready to take {title}. Nothing moves yet."
    yield route("GET", "migration", f"The progress of {title}'s migration.", get, None)
    yield route("POST", "prepare", text, prepare, api.PrepareCall)
    yield route("POST", "switch", "The guest is paused: open the destination for it. Optional.", step(driver.switch))
    text = "The guest runs at the destination. force: also if not every host is prepared."
    yield route("POST", "activate", text, step(driver.activate))
    yield route("POST", "finish", "End it at the destination. force: past a dead source.", step(driver.finish))
    yield route("POST", "abort", "End it at the source, before the destination is active.", abort, None)
    path, text = f"/v1/{plural}/{{id}}/migrate", "All steps, with progress; call again to go on after a lost answer."
    yield Route("POST", path, text, api.Migration, steps=migrate, body=api.MigrateCall, tag="migration")


# --- bindings and events --------------------------------------------------------------------------


async def list_bindings(call: Call[None]) -> list[api.Binding]:
    view = call.service.view()
    bindings = view.state.bindings
    for noun, name in call.query.items():
        named(call, noun, noun, name)
    vif, host = call.query.get("vif"), call.query.get("host")
    keys = (key for key in sorted(bindings) if vif in (None, key[0]) and host in (None, key[1]))
    return [show_binding(bindings[key], view) for key in keys]


# --- the table ------------------------------------------------------------------------------------


def routes() -> list[Route]:
    """Every call, events apart, which are a stream."""
    document = "application/yaml"
    of_file = {"filename": "The name of the document in errors."}
    return [
        Route("GET", "/v1/pool", "The pool itself.", api.Pool, get_pool, tag="pool"),
        Route(
            "GET",
            "/v1/status",
            "The pool at a glance, and all that is not as desired.",
            api.Status,
            get_status,
            tag="pool",
        ),
        Route(
            "POST",
            "/v1/plan",
            "The changes that applying a document would make.",
            api.Plan,
            apply.plan,
            media=document,
            query={**of_file, "reachability": "Also the pairs that gain or lose a way to each other: true or false."},
            tag="pool",
        ),
        Route(
            "POST",
            "/v1/apply",
            "Make the pool as a document says; all of it, or nothing.",
            api.Applied,
            steps=apply.apply,
            media=document,
            tag="pool",
            query={
                **of_file,
                "revision": "The pool's revision that the plan was made against; refused if it changed.",
                "wait_s": "Seconds to wait for the hosts to follow, 30 if left out.",
                "force": "Apply also changes that break an expectation which holds now: true or false.",
            },
        ),
        Route("GET", "/v1/export", "The pool as a document.", str, apply.export, tag="pool", media=document),
        Route(
            "POST",
            "/v1/probes",
            "The verdicts of hosts' switches on frames; nothing is sent.",
            list[api.Probe],
            ofproto_trace_rpc.probe,
            body=api.ProbesCall,
            tag="hosts",
        ),
        Route(
            "POST",
            "/v1/packets",
            "Send marked frames, which no guest gets, and list where they came out.",
            api.Packets,
            packet_injection.send,
            body=api.PacketsCall,
            tag="hosts",
        ),
        *resource_routes(),
        Route(
            "GET",
            "/v1/security-groups/{id}/counters",
            "What each rule has matched, summed over the hosts, with those that are missing in the sum.",
            api.GroupCounters,
            group_counters.count,
            query={"wait_s": "Seconds to wait for the hosts, 5 if left out, 30 at most."},
            tag="security groups",
        ),
        Route(
            "POST",
            "/v1/hosts/{id}/invite",
            "A secret word, for which the host gets a certificate of its key once ('vnet host join').",
            api.Invitation,
            invite,
            body=api.InviteCall,
            tag="hosts",
        ),
        Route(
            *JOIN,
            "A certificate for the key of a host that is invited. It takes no token but the invitation's.",
            api.HostCertificate,
            join,
            body=api.JoinCall,
            tag="hosts",
        ),
        Route(
            "GET",
            "/v1/hosts/{id}/certificate",
            "A host's certificate, renewed when that is due. It takes no token.",
            api.HostCertificate,
            get_certificate,
            tag="hosts",
        ),
        Route(
            "DELETE",
            "/v1/hosts/{id}/certificate",
            "Renew a host's certificate no more.",
            api.Revoked,
            revoke,
            tag="hosts",
        ),
        Route(
            *SHOW_CA,
            "The certificate of the pool's CA, in PEM. It takes no token.",
            str,
            get_ca,
            media="application/x-pem-file",
            tag="hosts",
        ),
        Route(
            "POST",
            "/v1/hosts/{id}/evacuate",
            "Migrate every VIF that runs on a host.",
            api.Evacuation,
            steps=evacuate,
            body=api.EvacuateCall,
            tag="migration",
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
        *_moves("vms", "a VM", lambda id: Unit(vm=id)),
        Route(
            "GET",
            "/v1/bindings",
            "The hosts' bindings of VIFs.",
            list[api.Binding],
            list_bindings,
            query={"vif": "Only of this VIF.", "host": "Only of this host."},
            tag="vifs",
        ),
    ]
