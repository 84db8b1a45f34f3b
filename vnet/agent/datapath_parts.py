"""The parts that a host's Open vSwitch and its datapath lack of those that flows need, each with what does not work without it.

One rule: the switch is asked, not its version, where it can be: a kernel may be older, or built with fewer options, than Open vSwitch.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Final

from ovsctl.appctl import AppctlError
from ovsctl.openflow.errors import OpenFlowError
from ovsctl.ovsdb import Insert, Mutate, NamedUuid, OvsdbClient, OvsdbError, Select, by_uuid
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.ovs_config_reconciler import OWNER
from vnet.agent.switch_access import SwitchAccess
from vnet.compile import Switch

OLDEST = (2, 17)  # Open vSwitch that vnet was tried with (docs/testing.md)
DATAPATH = "datapath"
_RELEASE = re.compile(r"\(Open vSwitch\) (\d+)\.(\d+)")
# As dpif/show-dp-features names them (ovs-vswitchd(8)), and what needs each.
NEEDED = {
    "Recirc": "security groups",
    "CT state": "security groups",
    "CT zone": "security groups (a kernel's option CONFIG_NF_CONNTRACK_ZONES)",
    "CT orig tuple": "security groups",
}
# The same parts in column `capabilities` of table Datapath (ovs-vswitchd.conf.db(5)), which ovs-vswitchd fills in for the datapaths that have a row.
CAPABILITIES = {"Recirc": "recirc", "CT state": "ct_state", "CT zone": "ct_zone", "CT orig tuple": "ct_orig_tuple"}
ASK_AGAIN_S = 1.0  # until there is an answer, and twice as long each time
PERIOD_S = 60.0  # after it: ovs-vswitchd may restart on another kernel's module


def missing_parts(version: str, features: str, has_meters: bool) -> str:
    """The problem that a switch is, "" for none. version: the output of `ovs-appctl version`; features: of dpif/show-dp-features."""
    release = _RELEASE.search(version)
    found = []
    if release is not None and (int(release[1]), int(release[2])) < OLDEST:
        found.append(
            f"Open vSwitch {release[1]}.{release[2]} is older than {OLDEST[0]}.{OLDEST[1]}, the oldest that is supported"
        )
    answers = dict(line.split(": ", 1) for line in features.splitlines() if ": " in line)
    found += [
        f"the datapath has no {part}, needed by {use}" for part, use in NEEDED.items() if answers.get(part) == "No"
    ]
    if not has_meters:
        found.append("the datapath has no meters, needed by rate limits and by rules that reject or log")
    return "; ".join(found)


def features_of(capabilities: Mapping[str, str]) -> str:
    """What a datapath lacks by its row in the database, as dpif/show-dp-features says it."""
    lacking = (part for part, capability in CAPABILITIES.items() if capabilities.get(capability) == "false")
    return "\n".join(f"{part}: No" for part in lacking)


class DatapathParts:
    """Asks the switch of a bridge what it has. problems: by object. on_change: called when those changed."""

    def __init__(
        self, flows: BridgeFlows, switch: Switch, access: SwitchAccess, ovs: OvsdbClient, on_change: Callable[[], None]
    ) -> None:
        self._flows: Final = flows
        self._type: Final = switch.datapath_type or "system"
        self._access: Final = access
        self._ovs: Final = ovs
        self._on_change: Final = on_change
        self.problems: Final[dict[str, str]] = {}

    async def run(self) -> None:
        """Asks until cancelled."""
        again_s = ASK_AGAIN_S
        while True:
            try:
                problem = await self._ask()
            except (AppctlError, OpenFlowError, OvsdbError, OSError):
                await asyncio.sleep(again_s)
                again_s = min(2 * again_s, PERIOD_S)
                continue
            again_s = ASK_AGAIN_S
            if problem != self.problems.get(DATAPATH, ""):
                self.problems.clear()
                self.problems.update({DATAPATH: problem} if problem else {})
                self._on_change()
            await asyncio.sleep(PERIOD_S)

    async def _ask(self) -> str:
        if self._access.target:
            version, features = await self._in_database()
        else:
            control = self._access.control()
            version = await control.call("version")
            features = await control.call("dpif/show-dp-features", self._flows.bridge)
        return missing_parts(version, features, await self._flows.has_meters())

    async def _in_database(self) -> tuple[str, str]:
        """The version and the features as ovs-vswitchd has written them into its database, in the commands' form. Raises OvsdbError."""
        (roots,) = await self._ovs.transact(Select("Open_vSwitch", (), ("ovs_version", "datapaths")))
        version = f"(Open vSwitch) {roots[0]['ovs_version']}"
        row = roots[0]["datapaths"].get(self._type)
        if row is None:
            await self._ovs.transact(
                Insert("Datapath", {"external_ids": {OWNER.key: OWNER.name}}, "datapath"),
                Mutate("Open_vSwitch", (), (("datapaths", "insert", {self._type: NamedUuid("datapath")}),)),
            )
            raise OvsdbError("the datapath had no row yet")
        (found,) = await self._ovs.transact(Select("Datapath", by_uuid(row), ("capabilities",)))
        if not found or not found[0]["capabilities"]:
            raise OvsdbError("ovs-vswitchd has not written yet what the datapath has")
        return version, features_of(found[0]["capabilities"])
