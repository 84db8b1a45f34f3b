"""Every call as a value: what to send, and what type the answer has. Sync and async clients differ only in how they send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from vnet import api
from vnet.client.errors import BadAnswer, ClientError, error_of

T = TypeVar("T")
Progress = Callable[[str], None]

LINES = "application/x-ndjson"
STREAM = "text/event-stream"
MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024
GRACE_S = 30.0  # on top of what a call itself may wait


def silent(text: str) -> None:
    """Progress that nobody wants to hear."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call. wait_s: how long it may take by itself. `answer` None: no content."""

    method: str
    path: str
    answer: Any
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    media: str = "application/json"
    wait_s: float = 0.0

    def decode(self, status: int, data: bytes) -> T:
        """The answer; raises the typed error of a refusal, BadAnswer."""
        if status >= 400:
            raise _refusal(status, data)
        try:
            if self.answer is None:
                return None  # type: ignore[return-value]
            if self.answer is str:
                return data.decode()  # type: ignore[return-value]
            return msgspec.json.decode(data, type=self.answer)  # type: ignore[no-any-return]
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadAnswer(f"{self.method} {self.path}: {error}") from None

    def result(self, line: api.Progress, status: int) -> T:
        """The answer in the last line of a long call."""
        if line.kind == "failed":
            raise error_of(line.problem or api.Problem(code="failed", message=line.text), status)
        try:
            return msgspec.convert(line.result, self.answer)  # type: ignore[no-any-return]
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"{self.method} {self.path}: {error}") from None


def _refusal(status: int, data: bytes) -> ClientError:
    try:
        return error_of(msgspec.json.decode(data, type=api.Problem), status)
    except msgspec.MsgspecError:
        return BadAnswer(f"status {status} without a problem: {data[:200]!r}")


def progress_of(line: bytes) -> api.Progress:
    """A line of a long call; raises BadAnswer."""
    try:
        return msgspec.json.decode(line, type=api.Progress)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"a line of progress: {error}") from None


def path(*parts: str) -> str:
    """/v1/PARTS, a '/' inside a part as %2F."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _get(answer: Any, *parts: str, **query: str | None) -> Call[Any]:
    return Call("GET", path(*parts), answer, {name: value for name, value in query.items() if value is not None})


def _send(method: str, answer: Any, body: object, *parts: str, wait_s: float = 0.0) -> Call[Any]:
    return Call(method, path(*parts), answer, body=None if body is None else msgspec.json.encode(body), wait_s=wait_s)


def status() -> Call[api.Status]:
    return _get(api.Status, "status")


def pool() -> Call[api.Pool]:
    return _get(api.Pool, "pool")


def _document(name: str, answer: Any, document: bytes, query: Mapping[str, str], wait_s: float) -> Call[Any]:
    return Call("POST", path(name), answer, query, document, "application/yaml", wait_s)


def plan(document: bytes, filename: str, reachability: bool) -> Call[api.Plan]:
    query = {"filename": filename} | ({"reachability": "1"} if reachability else {})
    return _document("plan", api.Plan, document, query, 60.0)


def apply(document: bytes, filename: str, revision: int | None, wait_s: int, force: bool) -> Call[api.Applied]:
    query = {"filename": filename, "wait_s": str(wait_s)} | ({} if revision is None else {"revision": str(revision)})
    query |= {"force": "1"} if force else {}
    return _document("apply", api.Applied, document, query, 60.0 + wait_s)


def export() -> Call[str]:
    return _get(str, "export")


def hosts() -> Call[list[api.Host]]:
    return _get(list[api.Host], "hosts")


def host(name: str) -> Call[api.Host]:
    return _get(api.Host, "hosts", name)


def put_host(name: str, spec: api.HostSpec) -> Call[api.Host]:
    return _send("PUT", api.Host, spec, "hosts", name)


def delete_host(name: str) -> Call[None]:
    return _send("DELETE", None, None, "hosts", name)


def evacuate(name: str, call: api.EvacuateCall) -> Call[api.Evacuation]:
    return _send("POST", api.Evacuation, call, "hosts", name, "evacuate", wait_s=call.timeout_s)


def networks() -> Call[list[api.Network]]:
    return _get(list[api.Network], "networks")


def network(name: str) -> Call[api.Network]:
    return _get(api.Network, "networks", name)


def put_network(name: str, spec: api.NetworkSpec) -> Call[api.Network]:
    return _send("PUT", api.Network, spec, "networks", name)


def delete_network(name: str) -> Call[None]:
    return _send("DELETE", None, None, "networks", name)


def security_groups() -> Call[list[api.SecurityGroup]]:
    return _get(list[api.SecurityGroup], "security-groups")


def security_group(name: str) -> Call[api.SecurityGroup]:
    return _get(api.SecurityGroup, "security-groups", name)


def put_security_group(name: str, spec: api.SecurityGroupSpec) -> Call[api.SecurityGroup]:
    return _send("PUT", api.SecurityGroup, spec, "security-groups", name)


def delete_security_group(name: str) -> Call[None]:
    return _send("DELETE", None, None, "security-groups", name)


def vifs(host: str | None, network: str | None, vm: str | None, state: str | None) -> Call[list[api.Vif]]:
    return _get(list[api.Vif], "vifs", host=host, network=network, vm=vm, state=state)


def vif(id: str) -> Call[api.Vif]:
    return _get(api.Vif, "vifs", id)


def put_vif(id: str, spec: api.VifSpec) -> Call[api.Vif]:
    return _send("PUT", api.Vif, spec, "vifs", id)


def create_vif(spec: api.NewVif) -> Call[api.Vif]:
    return _send("POST", api.Vif, spec, "vifs")


def delete_vif(id: str) -> Call[None]:
    return _send("DELETE", None, None, "vifs", id)


def put_groups_of_vif(id: str, call: api.GroupsCall) -> Call[api.Vif]:
    return _send("PUT", api.Vif, call, "vifs", id, "security-groups")


def plug_vif(id: str, call: api.PlugCall) -> Call[api.Vif]:
    return _send("POST", api.Vif, call, "vifs", id, "plug", wait_s=call.wait_s)


def unplug_vif(id: str) -> Call[api.Vif]:
    return _send("POST", api.Vif, None, "vifs", id, "unplug")


def vms() -> Call[list[api.Vm]]:
    return _get(list[api.Vm], "vms")


def vm(name: str) -> Call[api.Vm]:
    return _get(api.Vm, "vms", name)


def put_vm(name: str, spec: api.VmSpec) -> Call[api.Vm]:
    return _send("PUT", api.Vm, spec, "vms", name)


def delete_vm(name: str) -> Call[None]:
    return _send("DELETE", None, None, "vms", name)


def probe(call: api.ProbesCall) -> Call[list[api.Probe]]:
    return _send("POST", list[api.Probe], call, "probes", wait_s=call.wait_s)


def packets(call: api.PacketsCall) -> Call[api.Packets]:
    return _send("POST", api.Packets, call, "packets", wait_s=call.wait_s + len(call.packets))


def bindings(vif: str | None, host: str | None) -> Call[list[api.Binding]]:
    return _get(list[api.Binding], "bindings", vif=vif, host=host)


def events(limit: int, filters: Mapping[str, str | None]) -> Call[list[api.Event]]:
    return _get(list[api.Event], "events", limit=str(limit), **filters)


@dataclass(frozen=True, slots=True)
class Unit:
    """What moves as one: all VIFs of a VM, or a single VIF."""

    kind: str
    id: str

    @classmethod
    def of_vm(cls, name: str) -> Unit:
        return cls("vms", name)

    @classmethod
    def of_vif(cls, id: str) -> Unit:
        return cls("vifs", id)


def migration(unit: Unit) -> Call[api.Migration]:
    return _get(api.Migration, unit.kind, unit.id, "migration")


def prepare(unit: Unit, call: api.PrepareCall) -> Call[api.Migration]:
    return _send("POST", api.Migration, call, unit.kind, unit.id, "prepare")


def step(unit: Unit, name: str, force: bool) -> Call[api.Migration]:
    return _send("POST", api.Migration, api.StepCall(force=force), unit.kind, unit.id, name)


def abort(unit: Unit) -> Call[api.Migration]:
    return _send("POST", api.Migration, None, unit.kind, unit.id, "abort")


def migrate(unit: Unit, call: api.MigrateCall) -> Call[api.Migration]:
    return _send("POST", api.Migration, call, unit.kind, unit.id, "migrate", wait_s=call.timeout_s)
