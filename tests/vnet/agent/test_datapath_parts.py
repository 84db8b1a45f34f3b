"""A switch that lacks a part: told by name, with what does not work without it."""

from __future__ import annotations

import pytest

from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.messages import MeterFeatures
from ovsctl.ovsdb import Select
from tests.polling import until
from tests.vnet.agent.pool import pool_of
from vnet.agent.datapath_parts import features_of, missing_parts

# Of Debian's user-mode-linux 6.1 and Open vSwitch 3.1, shortened.
FEATURES = (
    "Masked set action: Yes\nMax dp_hash algorithm: 0\nRecirc: Yes\nCT state: Yes\nCT zone: {}\nCT orig tuple: Yes\n"
)


@pytest.mark.parametrize(
    ("version", "zones", "meters", "problem"),
    [
        ("3.1.0", "Yes", True, ""),
        ("2.17.9", "Yes", True, ""),
        ("2.15.1", "Yes", True, "Open vSwitch 2.15 is older than 2.17, the oldest that is supported"),
        (
            "3.1.0", "No", False,
            "the datapath has no CT zone, needed by security groups (a kernel's option CONFIG_NF_CONNTRACK_ZONES); "
            "the datapath has no meters, needed by rate limits and by rules that reject or log",
        ),
    ],
)  # fmt: skip
def test_what_a_switch_lacks(version: str, zones: str, meters: bool, problem: str) -> None:
    text = f"ovs-vswitchd (Open vSwitch) {version}\nDPDK 21.11\n"
    assert missing_parts(text, FEATURES.format(zones), meters) == problem


def test_what_a_switch_lacks_by_its_database() -> None:
    """As ovs-vswitchd 3.1 writes it, shortened: a host without an agent on it has no control socket to ask."""
    capabilities = {
        "recirc": "true",
        "ct_state": "true",
        "ct_zone": "false",
        "ct_orig_tuple": "true",
        "max_vlan_headers": "1",
    }
    assert missing_parts("(Open vSwitch) 2.17.12", features_of(capabilities), has_meters=True).startswith(
        "the datapath has no CT zone, needed by security groups"
    )
    assert features_of(capabilities | {"ct_zone": "true"}) == ""


@pytest.mark.usefixtures("ovs")
async def test_status_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(_: OpenFlowClient) -> MeterFeatures:
        return MeterFeatures(0, 0, 0, 0)

    async with pool_of("xen1") as pool:
        host = pool.hosts["xen1"]
        monkeypatch.setattr("vnet.agent.switch_access.control_socket", lambda _: host.switch.control)
        await host.stop()
        monkeypatch.setattr(OpenFlowClient, "meter_features", none)
        host.start()

        async def told() -> bool:
            (rows,) = await pool.client.transact(Select("Agent", (), ("problems",)))
            return "has no meters" in rows[0]["problems"].get("datapath", "")

        await until(told, "status names it")
