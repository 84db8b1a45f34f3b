"""The agent's structure, in figures: its mutable attributes, and the calls from a port that the switch announces to its flows."""

from __future__ import annotations

import ast
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import vnet.agent
from tests.polling import until
from tests.vnet.agent.pool import TENANT, pool_of, vif

AGENT = Path(next(iter(vnet.agent.__path__)))
MAX_ATTRIBUTES = 60
MAX_CALLS = 8
# The modules that an agent loads beside its own and compile's: values and rows. It reads no document and writes no configuration.
SHARED = {
    "vnet.health": {"address_claims", "link_neighbours", "mac_table", "tunnel_mesh", "vlan_check"},
    "vnet.db": {
        "accounting",
        "captures",
        "handovers",
        "health",
        "probes",
        "replies",
        "rows",
        "rule_queries",
        "tables",
        "traffic_queries",
        "watches",
    },
    "vnet.grammar": {"declare", "value_types", "nodes", "noun", "packet_filter"},
    "vnet.objects": {
        *(
            "behind",
            "binding",
            "carriers",
            "devices",
            "encryption",
            "address_set",
            "enums",
            "expectation",
            "heard_groups",
            "host",
            "identity",
            "impact",
            "isolation",
            "labels",
            "limits",
            "link_local",
            "mtu",
            "multicast",
            "network",
            "flow_collector",
            "mirror",
            "follower",
            "plug_bridge",
            "pool",
        ),
        *(
            "qos",
            "retired",
            "scope",
            "security",
            "state",
            "subnet",
            "tiers",
            "token",
            "trial",
            "values",
            "vif",
            "vif_sources",
            "vm",
            "words",
        ),
    },
    "vnet.wireguard": {"exchange"},
    "vnet.util": {
        "exposition",
        "files",
        "frames",
        "hello_frames",
        "lldp_frames",
        "logs",
        "loopback",
        "membership_frames",
        "pause_frames",
        "printable",
        "sd_notify",
        "service_status",
        "suggest",
        "transport",
    },
}
LIBRARIES = {"msgspec", "typing_extensions"}  # msgspec loads the second
LIST_MODULES = "import sys; before = {*sys.modules}; import vnet.agent.agent; print(*{*sys.modules} - before)"


def mutable_attributes(source: str) -> Iterator[str]:
    """The attributes that objects of a module's classes assign, but for frozen dataclasses and what is declared Final."""
    for cls in ast.walk(ast.parse(source)):
        if not isinstance(cls, ast.ClassDef) or any("frozen=True" in ast.unparse(d) for d in cls.decorator_list):
            continue
        is_dataclass = any("dataclass" in ast.unparse(d) for d in cls.decorator_list)
        fields = {s.target.id for s in cls.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)}
        names, final = fields if is_dataclass else set(), set()
        for node in ast.walk(cls):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and ast.unparse(node.value) == "self"
            ):
                names.add(node.attr)
            if isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation):
                final.add(ast.unparse(node.target).removeprefix("self."))
        yield from (f"{cls.name}.{name}" for name in sorted(names - final))


def test_the_agent_has_few_mutable_attributes() -> None:
    found = [name for path in sorted(AGENT.glob("*.py")) for name in mutable_attributes(path.read_text())]
    assert len(found) <= MAX_ATTRIBUTES, found


def test_an_agent_loads_few_modules() -> None:
    """Many hosts start and run one, so its time to start and its memory count."""
    listed = subprocess.run([sys.executable, "-c", LIST_MODULES], capture_output=True, text=True, check=True).stdout
    loaded = listed.split()
    allowed = {f"{package}.{name}" for package, names in SHARED.items() for name in names} | {"vnet", *SHARED}
    ours = {name for name in loaded if name.split(".")[0] == "vnet"}
    assert {name for name in ours if not name.startswith(("vnet.agent", "vnet.compile"))} == allowed
    others = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"vnet", "ovsctl"}
    assert others == LIBRARIES


def test_an_agent_process_loads_no_cryptography_and_no_http() -> None:
    """Certificates are made on the controller; an agent's TLS is Python's own. HTTP renews a certificate, where one is renewed."""
    statement = "import sys; import vnet.cli.agent, vnet.cli.main, vnet.agent.daemon; print(*sys.modules)"
    listed = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True).stdout
    assert {"ssl", "vnet.agent.daemon"} <= {*listed.split()}
    assert not {"cryptography", "http", "email", "importlib.metadata"} & {*listed.split()}


@pytest.mark.usefixtures("ovs")
async def test_a_port_becomes_flows_in_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed over the three stages: from the switch's message to the call for a turn, from the turn to the reconciler's call for
    a round, from the round to the bundle. The tops of the two loops, which only wait, are no part of it."""
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        agent, switched = host.agent, host.agent.flows._reconciler
        await pool.insert(vif(1, host="xen1"), vif(2, host="xen1"))
        host.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen1")
        await until(lambda: "vm2/0" in agent.compiler.view.vifs and agent.rows.settled, "the VIF is known")
        observed: list[str] = []
        decided: list[str] = []
        sent: list[str] = []
        follow(monkeypatch, agent._work, "set", observed, since="_port_changed")
        follow(monkeypatch, switched._work, "set", decided, since="_turn")
        follow(monkeypatch, agent.flows._client, "bundle", sent, since="_round")
        host.add_port("p2", "vm2/0")
        await pool.wait_ready("vm2/0", "xen1")
    chain = [*observed, *decided, *sent]
    assert [bool(stage) for stage in (observed, decided, sent)] == [True] * 3
    assert len(chain) <= MAX_CALLS, chain


def follow(monkeypatch: pytest.MonkeyPatch, target: object, name: str, found: list[str], since: str) -> None:
    """Has a method note, the first time, the agent's functions that are under way, from `since` on."""
    original = getattr(target, name)

    def noting(*args: object, **options: object) -> object:
        under_way = [
            frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._getframe(1))
            if frame.f_code.co_filename.startswith(str(AGENT))
        ][::-1]  # fmt: skip
        if since in under_way and not found:
            found.extend(under_way[under_way.index(since) :])
        return original(*args, **options)

    monkeypatch.setattr(target, name, noting)
