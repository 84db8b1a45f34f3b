"""Calls that nobody means, made by schemathesis from the API's own description: each is answered as described, and nothing crashes.

Every call of the API gets right and wrong values, at each kind of door. They follow from the description, so they are the same each time.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from tests.servers import free_port, run_dir
from tests.vnet.controller.daemons import DOCUMENT, Controller
from tests.vnet.controller.databases import stop_embedded
from vnet import api

EXAMPLES = int(
    os.environ.get("VNET_HOSTILE_EXAMPLES", "2")
)  # of right calls and of wrong ones, of each operation. With 10 there are 1,000 calls at each door
# Calls that may wait for hosts, of which none is there.
WAITS = ("/migrate", "/evacuate", "/plug", "/counters", "/monitored", "/probes", "/packets", "/apply")


@dataclass
class Doors:
    """A controller at its unix socket, and at a TCP port for an operator with a token and for strangers."""

    controller: Controller
    port: int
    token: str

    def client(self, door: str) -> httpx.Client:
        if door == "unix":
            transport = httpx.HTTPTransport(uds=str(self.controller.socket))
            return httpx.Client(transport=transport, base_url="http://vnet")
        headers = {"Authorization": f"Bearer {self.token}"} if door == "token" else {}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, verify=False)


@dataclass
class HostileCall:
    """A call as httpx sends it, and the statuses that the description has for it."""

    request: dict[str, Any]
    statuses: frozenset[str]

    def check(self, answer: httpx.Response) -> None:
        sent = f"{self.request}: {answer.status_code} {answer.text}"
        assert str(answer.status_code) in self.statuses, sent
        assert answer.status_code < 500, sent
        if answer.status_code >= 400:
            assert msgspec.json.decode(answer.content, type=api.Problem).code


@pytest.fixture(scope="module")
def doors(ovs: None) -> Iterator[Doors]:
    port = free_port()
    with run_dir() as path:
        listens = ("--listen", f"unix:{path}/run/controller.sock", "--listen", f"tcp:127.0.0.1:{port}")
        made = Controller(path, listens)
        try:
            made.start()
            with made.client() as client:
                client.apply(DOCUMENT, "test.vnet.yaml", wait_s=0)
                call = api.TokenCall(role="operator", networks=["*"], vms=["*"])
                yield Doors(made, port, client.make_token("fuzz", call).secret)
        finally:
            made.stop()
            stop_embedded(made.database)


@pytest.fixture(scope="module")
def calls(doors: Doors) -> list[HostileCall]:
    import schemathesis
    from schemathesis import GenerationMode

    with doors.client("unix") as local:
        document = local.get("/v1/openapi.json").json()
    found: list[HostileCall] = []
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        parts = operation.definition.raw
        # A call without a body and a query cannot be wrong.
        open_to_errors = "requestBody" in parts or any(each["in"] == "query" for each in parts.get("parameters", ()))
        if not operation.path.endswith(WAITS):
            found += examples(operation, GenerationMode.POSITIVE)
            found += examples(operation, GenerationMode.NEGATIVE) if open_to_errors else []
    return found


def examples(operation: Any, mode: Any) -> list[HostileCall]:
    found: list[HostileCall] = []
    statuses = frozenset({"405", *operation.definition.raw["responses"]})

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        found.append(HostileCall(sent_by(case), statuses))

    with contextlib.suppress(Unsatisfiable):
        collect()
    return found


def sent_by(case: Any) -> dict[str, Any]:
    """A call as httpx sends it; schemathesis describes it for another library."""
    made = case.as_transport_kwargs(base_url="")
    headers = {name: value.encode("utf-8", "replace") for name, value in made["headers"].items()}
    content = json.dumps(made["json"]) if "json" in made else made.get("data")
    content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return {
        "method": made["method"],
        "url": made["url"],
        "params": made["params"],
        "headers": headers,
        "content": content,
    }


@pytest.mark.parametrize("door", ["unix", "token", "stranger"])
def test_hostile_calls(doors: Doors, calls: list[HostileCall], door: str) -> None:
    found = Counter[int]()
    with doors.client(door) as client:
        for call in calls:
            answer = client.request(**call.request)
            call.check(answer)
            found[answer.status_code] += 1
    assert found.total() >= 90 * EXAMPLES
    assert found.keys() >= {"unix": {200, 400, 404}, "token": {200, 400, 403}, "stranger": {401}}[door]
    with doors.controller.client() as local:
        assert local.status().hosts >= 3
    assert "Traceback" not in doors.controller.log.read_text()
