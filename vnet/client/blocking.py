"""The blocking client of the controller's REST API. One rule: every call may be repeated after a lost answer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import httpx

from vnet import api
from vnet.client import requests
from vnet.client.errors import BadAnswer, Unreachable
from vnet.client.requests import GRACE_S, LINES, MAX_ANSWER_BYTES, STREAM, Call, Progress, Unit, silent
from vnet.client.wire import Address, EventStream, Lines

T = TypeVar("T")


class Client:
    """Calls the controller at `address` (unix:PATH or http://HOST:PORT), with a bearer token where it wants one.

    Every method raises what `vnet.client.errors` has. timeout_s: how long to wait for an answer, on top of what the call waits.
    """

    def __init__(self, address: str, *, token: str | None = None, timeout_s: float = GRACE_S) -> None:
        where = Address.parse(address)
        if token is not None and not token.strip():
            raise ValueError("the token is empty")
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        transport = httpx.HTTPTransport(uds=where.socket)
        self.address = address
        self._timeout_s = timeout_s
        self._http = httpx.Client(transport=transport, base_url=where.url, headers=headers)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def status(self) -> api.Status:
        """The pool at a glance."""
        return self._do(requests.status())

    def pool(self) -> api.Pool:
        """The pool itself."""
        return self._do(requests.pool())

    def plan(self, document: bytes, filename: str = "document", *, reachability: bool = False) -> api.Plan:
        """What applying a document would change. Raises Invalid with all that is wrong with it."""
        return self._do(requests.plan(document, filename, reachability))

    def export(self) -> str:
        """The pool as a document."""
        return self._do(requests.export())

    def hosts(self) -> list[api.Host]:
        """All hosts."""
        return self._do(requests.hosts())

    def host(self, name: str) -> api.Host:
        """One host."""
        return self._do(requests.host(name))

    def put_host(self, name: str, spec: api.HostSpec) -> api.Host:
        """Make a host."""
        return self._do(requests.put_host(name, spec))

    def delete_host(self, name: str) -> None:
        """Remove a host without VIFs."""
        self._do(requests.delete_host(name))

    def networks(self) -> list[api.Network]:
        """All networks."""
        return self._do(requests.networks())

    def network(self, name: str) -> api.Network:
        """One network."""
        return self._do(requests.network(name))

    def put_network(self, name: str, spec: api.NetworkSpec) -> api.Network:
        """Make a network."""
        return self._do(requests.put_network(name, spec))

    def delete_network(self, name: str) -> None:
        """Remove a network without VIFs."""
        self._do(requests.delete_network(name))

    def security_groups(self) -> list[api.SecurityGroup]:
        """All security groups."""
        return self._do(requests.security_groups())

    def security_group(self, name: str) -> api.SecurityGroup:
        """One security group with its rules."""
        return self._do(requests.security_group(name))

    def put_security_group(self, name: str, spec: api.SecurityGroupSpec) -> api.SecurityGroup:
        """Make a security group, or give it these rules instead of those it has."""
        return self._do(requests.put_security_group(name, spec))

    def delete_security_group(self, name: str) -> None:
        """Remove a security group that no VIF is in and no rule names."""
        self._do(requests.delete_security_group(name))

    def vifs(
        self, *, host: str | None = None, network: str | None = None, vm: str | None = None, state: str | None = None
    ) -> list[api.Vif]:
        """VIFs, filtered."""
        return self._do(requests.vifs(host, network, vm, state))

    def vif(self, id: str) -> api.Vif:
        """One VIF, and where it is."""
        return self._do(requests.vif(id))

    def put_vif(self, id: str, spec: api.VifSpec) -> api.Vif:
        """Make a VIF of this id."""
        return self._do(requests.put_vif(id, spec))

    def create_vif(self, spec: api.NewVif) -> api.Vif:
        """Make a VIF; without an id in `spec` it is VM/INDEX of it."""
        return self._do(requests.create_vif(spec))

    def delete_vif(self, id: str) -> None:
        """Remove a VIF."""
        self._do(requests.delete_vif(id))

    def set_security_groups(self, id: str, groups: Iterable[str]) -> api.Vif:
        """Have a VIF obey these security groups instead of those it is in; also while it runs."""
        return self._do(requests.put_groups_of_vif(id, api.GroupsCall(security_groups=list(groups))))

    def plug_vif(self, id: str, host: str, *, wait_s: float = 0.0, awaited: bool = False) -> api.Vif:
        """Want a VIF on a host, and wait until it is ready there, or with `awaited` until its `place.ofport` is known. The port is
        added on that host."""
        return self._do(requests.plug_vif(id, api.PlugCall(host=host, wait_s=wait_s, awaited=awaited)))

    def unplug_vif(self, id: str) -> api.Vif:
        """Want a VIF nowhere, and forget it on dead hosts."""
        return self._do(requests.unplug_vif(id))

    def vms(self) -> list[api.Vm]:
        """All VMs."""
        return self._do(requests.vms())

    def vm(self, name: str) -> api.Vm:
        """One VM with its VIFs."""
        return self._do(requests.vm(name))

    def put_vm(self, name: str, spec: api.VmSpec) -> api.Vm:
        """Make a VM."""
        return self._do(requests.put_vm(name, spec))

    def delete_vm(self, name: str) -> None:
        """Remove a VM and its VIFs."""
        self._do(requests.delete_vm(name))

    def probe(self, call: api.ProbesCall) -> list[api.Probe]:
        """What the switches of hosts would do with frames. Nothing is sent."""
        return self._do(requests.probe(call))

    def packets(self, call: api.PacketsCall) -> api.Packets:
        """Send marked frames, which no guest gets, and say where they came out."""
        return self._do(requests.packets(call))

    def bindings(self, *, vif: str | None = None, host: str | None = None) -> list[api.Binding]:
        """Which host has which VIF."""
        return self._do(requests.bindings(vif, host))

    def events(self, limit: int = 100, **filters: str | None) -> list[api.Event]:
        """The newest events, oldest first. filters: kind, host, network, vif."""
        return self._do(requests.events(limit, filters))

    def migration(self, unit: Unit) -> api.Migration:
        """How far a unit's migration is."""
        return self._do(requests.migration(unit))

    def prepare(self, unit: Unit, to: str, *, force: bool = False) -> api.Migration:
        """Let a host get ready to take a unit. Nothing moves yet."""
        return self._do(requests.prepare(unit, api.PrepareCall(to=to, force=force)))

    def switch(self, unit: Unit, *, force: bool = False) -> api.Migration:
        """The guest is paused: let in at the destination what waits for it."""
        return self._do(requests.step(unit, "switch", force))

    def activate(self, unit: Unit, *, force: bool = False) -> api.Migration:
        """The guest runs at the destination."""
        return self._do(requests.step(unit, "activate", force))

    def finish(self, unit: Unit, *, force: bool = False) -> api.Migration:
        """End a migration at its destination. force: past a dead source."""
        return self._do(requests.step(unit, "finish", force))

    def abort(self, unit: Unit) -> api.Migration:
        """End a migration at its source."""
        return self._do(requests.abort(unit))

    def apply(
        self,
        document: bytes,
        filename: str = "document",
        *,
        revision: int | None = None,
        wait_s: int = 30,
        force: bool = False,
        progress: Progress = silent,
    ) -> api.Applied:
        """Make the pool what a document says, if its revision is still `revision`; wait for the hosts to follow.

        Raises Conflict for what would break an expectation that holds now, unless `force`.
        """
        return self._long(requests.apply(document, filename, revision, wait_s, force), progress)

    def migrate(
        self, unit: Unit, to: str, *, activate: bool = False, timeout_s: float = 60.0, progress: Progress = silent
    ) -> api.Migration:
        """The whole way of a migration. Call again to go on after a lost answer or TimedOut."""
        return self._long(
            requests.migrate(unit, api.MigrateCall(to=to, activate=activate, timeout_s=timeout_s)), progress
        )

    def evacuate(
        self,
        host: str,
        *,
        to: str | None = None,
        activate: bool = False,
        timeout_s: float = 600.0,
        progress: Progress = silent,
    ) -> api.Evacuation:
        """Migrate all that runs on a host."""
        return self._long(
            requests.evacuate(host, api.EvacuateCall(to=to, activate=activate, timeout_s=timeout_s)), progress
        )

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
                        Call("GET", "/v1/events", None).decode(answer.status_code, self._read(answer))
                    connected = True
                    for chunk in answer.iter_bytes():
                        yield from stream.feed(chunk)
            except httpx.TransportError as error:
                if not connected:
                    raise Unreachable(f"{self.address}: {error}") from None
            stream.restart()
            time.sleep(1.0)

    def _do(self, call: Call[T]) -> T:
        try:
            with self._http.stream(**self._arguments(call, {})) as answer:
                return call.decode(answer.status_code, self._read(answer))
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.address}: {error}") from None

    def _long(self, call: Call[T], progress: Progress) -> T:
        lines = Lines()
        try:
            with self._http.stream(**self._arguments(call, {"Accept": LINES})) as answer:
                if answer.status_code != 200:
                    return call.decode(answer.status_code, self._read(answer))
                for chunk in answer.iter_bytes():
                    for line in map(requests.progress_of, lines.feed(chunk)):
                        if line.kind != "progress":
                            return call.result(line, answer.status_code)
                        progress(line.text)
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.address}: {error}") from None
        raise Unreachable(f"{self.address}: the controller ended in the middle of the call; repeat it")

    def _arguments(self, call: Call[T], headers: dict[str, str]) -> dict[str, Any]:
        headers = {"Content-Type": call.media, **headers} if call.body is not None else headers
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
