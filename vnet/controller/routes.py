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
from vnet.controller.endpoint import HEALTHY, JOIN, READY, SHOW_CA, Call, Handler, Route, Text
from vnet.controller.migration_state import Migration
from vnet.controller.presenters import Presenter, show_binding, show_migration, show_pool, show_status, show_trial
from vnet.controller.resources import named, resource_routes
from vnet.controller.service import Service
from vnet.controller.twin_questions import twin_routes
from vnet.db.database import now_ms
from vnet.db.writes import new_keys
from vnet.objects import Event
from vnet.objects.limits import NAME
from vnet.util.exposition import MEDIA_TYPE
from vnet.util.logs import about

log = logging.getLogger("vnet.controller")

WAIT_FOR_HOSTS = {"wait_s": "Seconds to wait for the hosts, 5 if left out, 30 at most."}
MOMENT = "a revision, the id of a record, or a time (RFC 3339)"
MAX_INVITED_MINUTES = 7 * 24 * 60.0

# --- pool -----------------------------------------------------------------------------------------


async def get_pool(call: Call[None]) -> api.Pool:
    pool = call.service.view().state.pool
    if pool is None:
        raise NotFound("no-pool", "the pool is empty: apply a document first")
    return show_pool(pool)


async def rekey(call: Call[None]) -> api.Pool:
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
    host, body, now = call.id, call.body, datetime.now(UTC)
    if not NAME.fullmatch(host):
        raise Invalid("name", f"{host[:60]!r} is no name of a host", "id")
    valid = timedelta(minutes=min(max(body.minutes, 0.0), MAX_INVITED_MINUTES))
    await call.service.note(f"invite host {host}")
    made = call.service.joining.invite(host, body.url, body.pool, valid, now)
    log.info("host %s is invited until %s", host, now + valid, extra=about(host=host))
    return api.Invitation(word=made.encode(), ends=(now + valid).isoformat())


async def join(call: Call[api.JoinCall]) -> api.HostCertificate:
    made = call.service.joining.join(call.body.host, call.body.token, call.body.request)
    await call.service.note(f"host {call.body.host} joins")
    log.info("host %s has its certificate", call.body.host, extra=about(host=call.body.host))
    return api.HostCertificate(certificate=made)


async def get_certificate(call: Call[None]) -> api.HostCertificate:
    return api.HostCertificate(certificate=call.service.joining.certificate(call.id))


async def revoke(call: Call[None]) -> api.Revoked:
    await call.service.note(f"revoke host {call.id[:60]}")
    ends = call.service.joining.revoke(call.id)
    log.warning("host %s: its certificate is revoked, which ends %s", call.id, ends, extra=about(host=call.id))
    return api.Revoked(ends=ends.isoformat())


async def get_metrics(call: Call[None]) -> Text:
    return Text(await call.service.metrics.text(), MEDIA_TYPE)


async def get_health(call: Call[None]) -> Text:
    return Text("ok\n", "text/plain")


async def get_ready(call: Call[None]) -> Text:
    call.service.view()
    return Text("ready\n", "text/plain")


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
    view = service.seen()
    return Presenter(view, service.feed.defined_since).show(find("vif", id, view.state.vifs))


async def plug(call: Call[api.PlugCall]) -> dict[str, Any]:
    wait_s = min(max(call.body.wait_s, 0.0), 600.0)
    await call.service.plug(call.id, call.body.host, wait_s, awaited=call.body.awaited)
    return _vif(call.service, call.id)


async def unplug(call: Call[None]) -> dict[str, Any]:
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
        return show_migration(await migration_driver.abort(call.service, unit(call)))

    async def migrate(call: Call[api.MigrateCall]) -> AsyncIterator[tuple[str, api.Migration]]:
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

    whose: dict[str, Any] = {"roles": HOSTS, "scoped": True, "noun": plural[:-1], "tag": "migration"}

    def route(method: str, name: str, summary: str, handler: Handler, body: Any = api.StepCall) -> Route:
        return Route(method, f"/v1/{plural}/{{id}}/{name}", summary, api.Migration, handler, body=body, **whose)

    driver = migration_driver
    text = f"Let a host get ready to take {title}. Nothing moves yet."
    yield replace(route("GET", "migration", f"The progress of {title}'s migration.", get, None), roles=VIEWERS)
    yield route("POST", "prepare", text, prepare, api.PrepareCall)
    yield route("POST", "switch", "The guest is paused: open the destination for it. Optional.", step(driver.switch))
    text = "The guest runs at the destination. force: also if not every host is prepared."
    yield route("POST", "activate", text, step(driver.activate))
    yield route("POST", "finish", "End it at the destination. force: past a dead source.", step(driver.finish))
    yield route("POST", "abort", "End it at the source, before the destination is active.", abort, None)
    path, text = f"/v1/{plural}/{{id}}/migrate", "All steps, with progress; call again to go on after a lost answer."
    yield Route("POST", path, text, api.Migration, steps=migrate, body=api.MigrateCall, **whose)


# --- bindings and events --------------------------------------------------------------------------


async def list_bindings(call: Call[None]) -> list[api.Binding]:
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
        Route("GET", "/v1/pool", "The pool itself.", api.Pool, get_pool, tag="pool", scoped=True),
        Route("POST", "/v1/pool/rekey", "Have hosts make new keys of encrypted tunnels.", api.Pool, rekey, tag="pool"),
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
            roles=VIEWERS,
            asks=True,
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
                **of_apply,
                "plan": "The id of the plan that is meant; refused if this would be another one.",
            },
        ),
        Route(
            "GET",
            "/v1/export",
            "The pool as a document.",
            str,
            revisions.export,
            tag="pool",
            media=document,
            query={"at": f"As it was: {MOMENT}."},
        ),
        Route(
            "POST",
            "/v1/probes",
            "The verdicts of hosts' switches on frames; nothing is sent.",
            list[api.Probe],
            ofproto_trace_rpc.probe,
            body=api.ProbesCall,
            tag="hosts",
            roles=VIEWERS,
        ),
        Route(
            "POST",
            "/v1/packets",
            "Send marked frames, which no guest gets, and list where they came out.",
            api.Packets,
            packet_injection.send,
            body=api.PacketsCall,
            tag="hosts",
            roles=OPERATORS,
        ),
        *twin_routes(),
        Route(
            "GET",
            "/v1/health",
            "What is wrong with the network between the hosts, by what they have stated.",
            api.Health,
            health_rpc.get_health,
            tag="hosts",
            roles=VIEWERS,
        ),
        Route(
            "POST",
            "/v1/health",
            "Have all hosts look anew at the network between them, by frames that no guest gets.",
            api.Health,
            health_rpc.look,
            query={"wait_s": "Seconds to wait for the hosts, 10 if left out, 30 at most."},
            tag="hosts",
            roles=OPERATORS,
        ),
        Route(
            "POST",
            "/v1/captures",
            "Frames of VIFs as they come, on whatever hosts those are, as a file of pcapng; it ends when the caller goes.",
            bytes,
            captures.capture,
            body=api.CaptureCall,
            tag="hosts",
            scoped=True,
            produces=captures.MEDIA,
        ),
        Route(
            "DELETE",
            "/v1/captures/{id}",
            "End a capture: its hosts send what is left, and its file ends. The id is the comment of the file's first block.",
            api.Done,
            captures.end,
            tag="hosts",
            scoped=True,
        ),
        *resource_routes(),
        Route(
            "GET",
            "/v1/security-groups/{id}/counters",
            "What each rule has matched, summed over the hosts, with those that are missing in the sum.",
            api.GroupCounters,
            group_counters.count,
            query=WAIT_FOR_HOSTS,
            tag="security groups",
            scoped=True,
            noun="security-group",
        ),
        Route(
            "GET",
            "/v1/security-groups/{id}/monitored",
            "What a group in monitor mode would have forbidden, and the rules that would allow it.",
            api.Monitored,
            group_monitor.monitored,
            query=WAIT_FOR_HOSTS,
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
            roles=OPERATORS,
        ),
        Route(
            "POST",
            "/v1/vifs/{id}/plug",
            "Want a VIF on a host and wait for it; its port is added on that host, which with `awaited` is programmed before.",
            api.Vif,
            plug,
            body=api.PlugCall,
            tag="vifs",
            roles=HOSTS,
            scoped=True,
            noun="vif",
        ),
        Route(
            "POST",
            "/v1/vifs/{id}/unplug",
            "Want a VIF nowhere, and forget it on dead hosts.",
            api.Vif,
            unplug,
            tag="vifs",
            roles=HOSTS,
            scoped=True,
            noun="vif",
        ),
        Route(
            "GET",
            "/v1/traffic",
            "What the ports of VIFs have received and sent, and hosts to each other. Who asks within 2 s of another gets the same answer.",
            api.Traffic,
            traffic.traffic,
            query={"vif": "Only of this VIF: its host alone is asked, anew."},
            tag="vifs",
            scoped=True,
        ),
        Route(
            "GET",
            "/v1/accounting",
            "What VIFs have sent and got since they were made, wherever they ran: with VIFs of the pool, and with stations outside. "
            "Hosts write it once a minute. Who asks within 5 s of another gets the same answer.",
            api.Accounting,
            accounting.accounting,
            query={"vif": "Only of this VIF."},
            tag="vifs",
            scoped=True,
        ),
        *_moves("vifs", "a VIF"),
        *_moves("vms", "a VM"),
        Route(
            "GET",
            "/v1/bindings",
            "The hosts' bindings of VIFs.",
            list[api.Binding],
            list_bindings,
            query={"vif": "Only of this VIF.", "host": "Only of this host."},
            tag="vifs",
            scoped=True,
        ),
        Route(
            "POST",
            "/v1/followers/{id}",
            "Ask to be the follower of a toolstack: of several one is, and the others stand by.",
            api.ToolstackFollower,
            followers.follow,
            body=api.FollowCall,
            tag="machines",
            roles=OPERATORS,
            scoped=True,
        ),
        Route(
            "GET",
            "/v1/caller",
            "The caller, by what it shows.",
            api.Caller,
            tokens.get_caller,
            tag="tokens",
            scoped=True,
        ),
        Route("GET", "/v1/tokens", "All tokens.", list[api.Token], tokens.list_tokens, tag="tokens", roles=ADMINS),
        Route(
            "PUT",
            "/v1/tokens/{id}",
            "Make a token, whose text is in this answer and nowhere else.",
            api.NewToken,
            tokens.make,
            body=api.TokenCall,
            tag="tokens",
        ),
        Route(
            "GET",
            "/metrics",
            "Metrics of the pool as Prometheus reads them.",
            str,
            get_metrics,
            media=MEDIA_TYPE,
            tag="machines",
        ),
        Route(*HEALTHY, "Whether this controller answers.", str, get_health, media="text/plain", tag="machines"),
        Route(
            *READY, "Whether it has the pool database: 503 if not.", str, get_ready, media="text/plain", tag="machines"
        ),
        Route("DELETE", "/v1/tokens/{id}", "Revoke a token.", api.Done, tokens.revoke, tag="tokens"),
        Route(
            "GET",
            "/v1/history",
            "The newest changes of the pool, oldest first: who made them, from where, why.",
            list[api.HistoryEntry],
            history.list_history,
            query={
                "limit": "How many of the newest, 100 unless told.",
                "caller": "Only those of this caller.",
                "refused": "Calls that were refused because of who made them, in place of changes.",
            },
            tag="history",
        ),
        Route(
            "GET",
            "/v1/history/{id}",
            "A change, as the revision that it made or by its id, with what was before and after.",
            api.HistoryEntry,
            history.get_record,
            tag="history",
        ),
        Route(
            "GET",
            "/v1/history/{id}/pool",
            f"All objects of the pool as they were, in words of the API: {MOMENT}.",
            api.PastPool,
            revisions.get_past,
            tag="history",
        ),
        Route(
            "GET",
            "/v1/history/{id}/rollback",
            f"The changes that a rollback would make: {MOMENT}.",
            api.Plan,
            revisions.plan_rollback,
            tag="history",
            asks=True,
        ),
        Route(
            "POST",
            "/v1/history/{id}/rollback",
            "Make the pool what it was; all of it, or nothing. VIFs and VMs stay where they are.",
            api.Applied,
            steps=revisions.rollback,
            tag="history",
            query=of_apply,
        ),
        Route(
            "GET",
            "/v1/trial",
            "The revision that is on trial.",
            api.Trial,
            trials.get_trial,
            tag="history",
            query=of_trial,
        ),
        Route(
            "POST",
            "/v1/trial/confirm",
            "Keep the revision that is on trial.",
            api.Trial,
            trials.confirm,
            tag="history",
            query=of_trial,
        ),
        Route(
            "POST",
            "/v1/trial/revert",
            "Take the revision that is on trial back at once.",
            api.Applied,
            steps=trials.revert,
            tag="history",
            query=of_trial,
        ),
        Route(
            "GET",
            "/v1/diff",
            "What differs between the pool at two moments, as a plan.",
            api.Plan,
            revisions.diff,
            query={"from": f"The first: {MOMENT}.", "to": "The second; the present if left out."},
            tag="history",
        ),
    ]
