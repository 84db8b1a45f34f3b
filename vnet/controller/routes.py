"""The REST API as data: every call with its path, its types and its handler. OpenAPI is made from the same.

One rule: a handler gets decoded values, and returns values or raises Refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from vnet import api
from vnet.api.errors import Conflict, Invalid, NotFound
from vnet.controller import (
    accounting,
    apply,
    captures,
    followers,
    group_counters,
    group_monitor,
    health_rpc,
    history,
    migration_driver,
    ofproto_trace_rpc,
    packet_injection,
    revisions,
    tokens,
    traffic,
    trials,
)
from vnet.controller.access import ADMINS, HOSTS, OPERATORS, VIEWERS
from vnet.controller.admission import find
from vnet.controller.endpoint import HEALTHY, JOIN, READY, SHOW_CA, Call, Handler, Route, Steps, Text
from vnet.controller.migration_state import Migration
from vnet.controller.presenters import Presenter, show_binding, show_migration, show_pool, show_status, show_trial
from vnet.controller.resources import named, resource_routes
from vnet.controller.service import Service
from vnet.controller.twin_questions import twin_routes
from vnet.db.database import now_ms
from vnet.db.writes import new_keys
from vnet.objects import Event
from vnet.objects.limits import NAME
from vnet.objects.token import ApiRole
from vnet.util.exposition import MEDIA_TYPE
from vnet.util.logs import about

log = logging.getLogger("vnet.controller")

WAIT_FOR_HOSTS = {"wait_s": "Seconds to wait for the hosts, 5 if left out, 30 at most."}
MOMENT = "a revision, the id of a record, or a time (RFC 3339)"
MAX_INVITED_MINUTES = 7 * 24 * 60.0

# --- pool -----------------------------------------------------------------------------------------


async def get_pool(call: Call[None]) -> api.Pool:
    """The pool itself."""
    pool = call.service.view().state.pool
    if pool is None:
        raise NotFound("no-pool", "the pool is empty: apply a document first")
    return show_pool(pool)


async def rekey(call: Call[None]) -> api.Pool:
    """Have hosts make new keys of encrypted tunnels."""
    service = call.service
    async with service.writing:
        state = service.view().state
        if state.pool is None:
            raise NotFound("no-pool", "the pool is empty: apply a document first")
        if not any(network.encryption is not None for network in state.networks.values()):
            raise Conflict("not-encrypted", "no network is encrypted: there are no keys to make anew", "pool")
        now = now_ms()
        await service.write(
            new_keys(state.pool, now), [Event(now, "new-keys", "new keys of encrypted tunnels, as asked")]
        )
    return show_pool(replace(state.pool, key_epoch=state.pool.key_epoch + 1, keyed=now))


async def get_status(call: Call[None]) -> api.Status:
    """The pool at a glance, and all that is not as desired."""
    service = call.service
    certificates = await asyncio.to_thread(service.certificate_problems)
    database = service.database
    trial = database.mirror.trial
    shown = show_trial(trial, now_ms()) if trial is not None else None
    problems = database.mirror.problems.values()
    now = show_status(service.view(), database.remotes, service.version, problems, certificates, shown)
    return msgspec.structs.replace(now, followers=followers.listed(service))


# --- joining --------------------------------------------------------------------------------------


async def invite(call: Call[api.InviteCall]) -> api.Invitation:
    """A secret word, for which the host gets a certificate of its key once ('vnet host join')."""
    host, body, now = call.id, call.body, datetime.now(UTC)
    if not NAME.fullmatch(host):
        raise Invalid("name", f"{host[:60]!r} is no name of a host", "id")
    valid = timedelta(minutes=min(max(body.minutes, 0.0), MAX_INVITED_MINUTES))
    await call.service.note(f"invite host {host}")
    made = call.service.joining.invite(host, body.url, body.pool, valid, now)
    log.info("host %s is invited until %s", host, now + valid, extra=about(host=host))
    return api.Invitation(word=made.encode(), ends=(now + valid).isoformat())


async def join(call: Call[api.JoinCall]) -> api.HostCertificate:
    """A certificate for the key of a host that is invited. It takes no token but the invitation's."""
    made = call.service.joining.join(call.body.host, call.body.token, call.body.request)
    await call.service.note(f"host {call.body.host} joins")
    log.info("host %s has its certificate", call.body.host, extra=about(host=call.body.host))
    return api.HostCertificate(certificate=made)


async def get_certificate(call: Call[None]) -> api.HostCertificate:
    """A host's certificate, renewed when that is due. It takes no token."""
    return api.HostCertificate(certificate=call.service.joining.certificate(call.id))


async def revoke(call: Call[None]) -> api.Revoked:
    """Renew a host's certificate no more."""
    await call.service.note(f"revoke host {call.id[:60]}")
    ends = call.service.joining.revoke(call.id)
    log.warning("host %s: its certificate is revoked, which ends %s", call.id, ends, extra=about(host=call.id))
    return api.Revoked(ends=ends.isoformat())


async def get_metrics(call: Call[None]) -> Text:
    """Metrics of the pool as Prometheus reads them."""
    return Text(await call.service.metrics.text(), MEDIA_TYPE)


async def get_health(call: Call[None]) -> Text:
    """Whether this controller answers."""
    return Text("ok\n", "text/plain")


async def get_ready(call: Call[None]) -> Text:
    """Whether it has the pool database: 503 if not."""
    call.service.view()
    return Text("ready\n", "text/plain")


async def get_ca(call: Call[None]) -> Text:
    """The certificate of the pool's CA, in PEM. It takes no token."""
    return Text(call.service.joining.ca(), "application/x-pem-file")


# --- hosts and VIFs -------------------------------------------------------------------------------


async def evacuate(call: Call[api.EvacuateCall]) -> AsyncIterator[tuple[str, api.Evacuation]]:
    """Migrate every VIF that runs on a host."""
    find("host", call.id, call.service.view().state.hosts)
    body = call.body
    steps = migration_driver.evacuate(call.service, call.id, body.to, activated=body.activate, timeout_s=body.timeout_s)
    async for line, moved in steps:
        yield line, api.Evacuation(moved=moved)


def _vif(service: Service, id: str) -> dict[str, Any]:
    view = service.seen()
    return Presenter(view, service.feed.defined_since).show(find("vif", id, view.state.vifs))


async def plug(call: Call[api.PlugCall]) -> dict[str, Any]:
    """Want a VIF on a host and wait for it; its port is added on that host, which with `awaited` is programmed before."""
    wait_s = min(max(call.body.wait_s, 0.0), 600.0)
    await call.service.plug(call.id, call.body.host, wait_s, awaited=call.body.awaited)
    return _vif(call.service, call.id)


async def unplug(call: Call[None]) -> dict[str, Any]:
    """Want a VIF nowhere, and forget it on dead hosts."""
    await call.service.unplug(call.id)
    return _vif(call.service, call.id)


# --- migration, of VIFs and VMs alike -------------------------------------------------------------


def _moves(plural: str, title: str) -> Iterator[Route]:
    """The calls of migrations: of VIFs, or of VMs."""

    def unit(call: Call[Any]) -> api.Unit:
        return api.Unit(plural, call.id)

    async def get(call: Call[None]) -> api.Migration:
        return show_migration(migration_driver.status(call.service, unit(call)))

    async def prepare(call: Call[api.PrepareCall]) -> api.Migration:
        body = call.body
        return show_migration(await migration_driver.prepare(call.service, unit(call), body.to, force=body.force))

    async def abort(call: Call[None]) -> api.Migration:
        """End it at the source, before the destination is active."""
        return show_migration(await migration_driver.abort(call.service, unit(call)))

    async def migrate(call: Call[api.MigrateCall]) -> AsyncIterator[tuple[str, api.Migration]]:
        """All steps, with progress; call again to go on after a lost answer."""
        body, moved = call.body, unit(call)
        steps = migration_driver.migrate(
            call.service, moved, body.to, activated=body.activate, timeout_s=body.timeout_s
        )
        async for line in steps:
            yield line, show_migration(migration_driver.status(call.service, moved))

    def step(advance: Callable[..., Awaitable[Migration]]) -> Handler:
        async def handler(call: Call[api.StepCall]) -> api.Migration:
            return show_migration(await advance(call.service, unit(call), force=call.body.force))

        return handler

    def route(
        method: str, name: str, handler: Handler | Steps, summary: str = "", *, roles: frozenset[ApiRole] = HOSTS
    ) -> Route:
        path, noun = f"/v1/{plural}/{{id}}/{name}", plural[:-1]
        return Route(method, path, handler, summary, roles=roles, scoped=True, noun=noun, tag="migration")

    driver = migration_driver
    yield route("GET", "migration", get, f"The progress of {title}'s migration.", roles=VIEWERS)
    yield route("POST", "prepare", prepare, f"Let a host get ready to take {title}. Nothing moves yet.")
    yield route("POST", "switch", step(driver.switch), "The guest is paused: open the destination for it. Optional.")
    text = "The guest runs at the destination. force: also if not every host is prepared."
    yield route("POST", "activate", step(driver.activate), text)
    yield route("POST", "finish", step(driver.finish), "End it at the destination. force: past a dead source.")
    yield route("POST", "abort", abort)
    yield route("POST", "migrate", migrate)


# --- bindings and events --------------------------------------------------------------------------


async def list_bindings(call: Call[None]) -> list[api.Binding]:
    """The hosts' bindings of VIFs."""
    view, scope = call.service.seen(), call.service.caller.scope
    bindings = view.state.bindings
    for noun, name in call.query.items():
        named(call, noun, noun, name)
    vif, host = call.query.get("vif"), call.query.get("host")
    keys = (key for key in sorted(bindings) if vif in (None, key[0]) and host in (None, key[1]))
    keys = (key for key in keys if scope is None or key[0] in view.state.vifs)
    return [show_binding(bindings[key], view) for key in keys]


# --- the table ------------------------------------------------------------------------------------


def routes() -> list[Route]:
    """Every call, events apart, which are a stream."""
    document = "application/yaml"
    of_file = {"filename": "The name of the document in errors."}
    of_apply = {
        "revision": "The pool's revision that the plan was made against; refused if it changed.",
        "wait_s": "Seconds to wait for the hosts to follow, 30 if left out.",
        "force": "Apply also changes that break an expectation which holds now: true or false.",
        "try_s": "Take it back by itself after so many seconds, unless it is confirmed.",
    }
    of_trial = {"revision": "The revision that is meant; refused if another one is on trial."}
    return [
        Route("GET", "/v1/pool", get_pool, tag="pool", scoped=True),
        Route("POST", "/v1/pool/rekey", rekey, tag="pool"),
        Route("GET", "/v1/status", get_status, tag="pool"),
        Route(
            "POST",
            "/v1/plan",
            apply.plan,
            media=document,
            query={**of_file, "reachability": "Also the pairs that gain or lose a way to each other: true or false."},
            tag="pool",
            roles=VIEWERS,
            asks=True,
        ),
        Route(
            "POST",
            "/v1/apply",
            apply.apply,
            media=document,
            tag="pool",
            query={
                **of_file,
                **of_apply,
                "plan": "The id of the plan that is meant; refused if this would be another one.",
            },
        ),
        Route("GET", "/v1/export", revisions.export, tag="pool", media=document, query={"at": f"As it was: {MOMENT}."}),
        Route("POST", "/v1/probes", ofproto_trace_rpc.probe, tag="hosts", roles=VIEWERS),
        Route("POST", "/v1/packets", packet_injection.send, tag="hosts", roles=OPERATORS),
        *twin_routes(),
        Route("GET", "/v1/health", health_rpc.get_health, tag="hosts", roles=VIEWERS),
        Route(
            "POST",
            "/v1/health",
            health_rpc.look,
            query={"wait_s": "Seconds to wait for the hosts, 10 if left out, 30 at most."},
            tag="hosts",
            roles=OPERATORS,
        ),
        Route("POST", "/v1/captures", captures.capture, tag="hosts", scoped=True, produces=captures.MEDIA),
        Route("DELETE", "/v1/captures/{id}", captures.end, tag="hosts", scoped=True),
        *resource_routes(),
        Route(
            "GET",
            "/v1/security-groups/{id}/counters",
            group_counters.count,
            query=WAIT_FOR_HOSTS,
            tag="security groups",
            scoped=True,
            noun="security-group",
        ),
        Route(
            "GET",
            "/v1/security-groups/{id}/monitored",
            group_monitor.monitored,
            query=WAIT_FOR_HOSTS,
            tag="security groups",
        ),
        Route("POST", "/v1/hosts/{id}/invite", invite, tag="hosts"),
        Route(*JOIN, join, tag="hosts"),
        Route("GET", "/v1/hosts/{id}/certificate", get_certificate, tag="hosts"),
        Route("DELETE", "/v1/hosts/{id}/certificate", revoke, tag="hosts"),
        Route(*SHOW_CA, get_ca, media="application/x-pem-file", tag="hosts"),
        Route("POST", "/v1/hosts/{id}/evacuate", evacuate, tag="migration", roles=OPERATORS),
        Route("POST", "/v1/vifs/{id}/plug", plug, answer=api.Vif, tag="vifs", roles=HOSTS, scoped=True, noun="vif"),
        Route("POST", "/v1/vifs/{id}/unplug", unplug, answer=api.Vif, tag="vifs", roles=HOSTS, scoped=True, noun="vif"),
        Route(
            "GET",
            "/v1/traffic",
            traffic.traffic,
            query={"vif": "Only of this VIF: its host alone is asked, anew."},
            tag="vifs",
            scoped=True,
        ),
        Route(
            "GET", "/v1/accounting", accounting.accounting, query={"vif": "Only of this VIF."}, tag="vifs", scoped=True
        ),
        *_moves("vifs", "a VIF"),
        *_moves("vms", "a VM"),
        Route(
            "GET",
            "/v1/bindings",
            list_bindings,
            query={"vif": "Only of this VIF.", "host": "Only of this host."},
            tag="vifs",
            scoped=True,
        ),
        Route("POST", "/v1/followers/{id}", followers.follow, tag="machines", roles=OPERATORS, scoped=True),
        Route("GET", "/v1/caller", tokens.get_caller, tag="tokens", scoped=True),
        Route("GET", "/v1/tokens", tokens.list_tokens, tag="tokens", roles=ADMINS),
        Route("PUT", "/v1/tokens/{id}", tokens.make, tag="tokens"),
        Route("GET", "/metrics", get_metrics, media=MEDIA_TYPE, tag="machines"),
        Route(*HEALTHY, get_health, media="text/plain", tag="machines"),
        Route(*READY, get_ready, media="text/plain", tag="machines"),
        Route("DELETE", "/v1/tokens/{id}", tokens.revoke, tag="tokens"),
        Route(
            "GET",
            "/v1/history",
            history.list_history,
            query={
                "limit": "How many of the newest, 100 unless told.",
                "caller": "Only those of this caller.",
                "refused": "Calls that were refused because of who made them, in place of changes.",
            },
            tag="history",
        ),
        Route("GET", "/v1/history/{id}", history.get_record, tag="history"),
        Route("GET", "/v1/history/{id}/pool", revisions.get_past, tag="history"),
        Route("GET", "/v1/history/{id}/rollback", revisions.plan_rollback, tag="history", asks=True),
        Route("POST", "/v1/history/{id}/rollback", revisions.rollback, tag="history", query=of_apply),
        Route("GET", "/v1/trial", trials.get_trial, tag="history", query=of_trial),
        Route("POST", "/v1/trial/confirm", trials.confirm, tag="history", query=of_trial),
        Route("POST", "/v1/trial/revert", trials.revert, tag="history", query=of_trial),
        Route(
            "GET",
            "/v1/diff",
            revisions.diff,
            query={"from": f"The first: {MOMENT}.", "to": "The second; the present if left out."},
            tag="history",
        ),
    ]
