"""VIFs of a network that xapi has, taken over and given back, host by host, while their VMs run. xapi notices nothing of it: they stay on its network.

One rule: the network of vnet must be carried by the same bridge, a VLAN of it or the bridge itself: those that were taken and those that were not then reach each other over
that bridge. A VIF has its flows on its host, under a number that its port will have, before the port is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Set
from typing import Any, Final

from vnet.client import Client, NotFound, PlugBridgeChange, PlugBridgeSpec
from vnet.objects.words import title_of
from vnet.xapi.follower import Follower
from vnet.xapi.importing import CLASSES, carried, is_tunnel
from vnet.xapi.inventory import EventsLost
from vnet.xapi.records import GOING_KEY, NETWORK_KEY, POOL_KEY, XenHost, read_as
from vnet.xapi.session import XapiError, XapiSession

READY_S, LOOK_S = 30.0, 0.1


def network_of_xapi(session: XapiSession, wanted: str) -> str:
    """The reference of the network with this uuid or label. Raises XapiError where none or several have it."""
    found = [
        ref for ref, record in session.call("network.get_all_records").items() if wanted in (record["uuid"], record["name_label"])
    ]  # fmt: skip
    if len(found) != 1:
        raise XapiError(f"{len(found)} networks of xapi are called {wanted!r}: name one by its uuid")
    return str(found[0])


def assert_same(client: Client, session: XapiSession, name: str, ref: str) -> None:
    """Raises XapiError unless the network of vnet is carried by the bridge of xapi's, with its tag."""
    records = {table.lower(): session.call(f"{table}.get_all_records") for table in CLASSES}
    if is_tunnel(records, ref):
        theirs: dict[str, Any] = {"type": "vlan", "tag": "untagged", "uplink": records["network"][ref]["bridge"]}
    else:
        theirs = carried(records, ref)
    ours = client.network(name)
    bridges = {uplink.bridge for host in client.hosts() for uplink in host.uplinks if uplink.name == ours.uplink}
    if theirs.get("type") != "vlan" or ours.type != "vlan":
        raise XapiError(
            f"what is taken over is a VLAN of a bridge, or all of it: it is {theirs.get('type', 'none')} there, and {ours.type} here"
        )
    if theirs["tag"] != ours.tag or {theirs["uplink"]} != bridges:
        here = ", ".join(map(str, sorted(bridges, key=str))) or "none"
        raise XapiError(
            f"it is tag {theirs['tag']} of bridge {theirs['uplink']} there, and tag {ours.tag} of {here} here"
        )


class Takeover:
    """One network of xapi and one of vnet, by their reference and name. Its steps raise ClientError, XapiError, and go on where they were when they are repeated."""

    def __init__(
        self, client: Client, session: XapiSession, ref: str, name: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client: Final = client
        self._session: Final = session
        self._ref: Final = ref
        self._name: Final = name
        self._sleep: Final = sleep
        self._bridge: Final[str] = session.call("network.get_record", ref)["bridge"]
        records = session.call("host.get_all_records")
        self._hosts: Final = {host: read_as(XenHost, record).name for host, record in records.items()}

    def take(self) -> Iterator[str]:
        """Takes the VIFs over; gives the uuid of each."""
        self._check_unused()
        self._mark({NETWORK_KEY: self._name, POOL_KEY: self._client.pool().id, GOING_KEY: "true"})
        follower = Follower(self._client, lambda _: self._session, (), time.monotonic)
        taken: Set[str] = self._taken()
        for ref, host in sorted(self._hosts.items(), key=lambda item: item[1]):
            if host in taken:
                continue
            vifs = self._attached(ref)
            for vif, uuid in vifs.items():
                try:
                    follower.make_ahead(self._session, vif)
                except EventsLost as lost:
                    raise XapiError(f"{lost}. No VIF of host {host} was taken") from None
                self._client.plug_vif(uuid, host, awaited=True, wait_s=READY_S)
                self._wait(uuid, host, ("awaited", "ready"))
            taken = taken | {host}
            self._take_on(taken)
            for uuid in vifs.values():
                self._wait(uuid, host, ("ready",))
                yield uuid
        self._take_on(())
        self._mark({GOING_KEY: None})

    def give_back(self) -> Iterator[str]:
        """Gives them back. Each has its port on xapi's bridge before vnet forgets it."""
        self._mark({GOING_KEY: "true"})
        taken: Set[str] = self._taken()
        for ref, host in sorted(self._hosts.items(), key=lambda item: item[1]):
            vifs = self._attached(ref)
            if host in taken:
                taken = taken - {host}
                self._take_on(taken) if taken else self._leave()
            for uuid in vifs.values():
                self._wait(uuid, host, ("awaited", "elsewhere", "gone"))
                yield uuid
        self._leave()
        for row in self._session.call("VIF.get_all_records").values():
            if row["network"] == self._ref:
                self._forget(str(row["uuid"]))
        self._mark({GOING_KEY: None, NETWORK_KEY: None, POOL_KEY: None})

    def _check_unused(self) -> None:
        config = self._session.call("network.get_record", self._ref)["other_config"]
        other = config.get(NETWORK_KEY, "")
        if other and (other, config.get(POOL_KEY)) != (self._name, self._client.pool().id):
            raise XapiError(f"it is network {other} of another pool or name already: give it back first")

    def _mark(self, keys: dict[str, str | None]) -> None:
        """Changes keys of the network's other_config; None takes one away."""
        before = self._session.call("network.get_record", self._ref)["other_config"]
        after = {key: value for key, value in {**before, **keys}.items() if value is not None}
        if after != before:
            self._session.call("network.set_other_config", self._ref, after)

    def _taken(self) -> frozenset[str]:
        """The hosts where it is taken over."""
        try:
            found = self._client.plug_bridge(self._bridge)
        except NotFound:
            return frozenset()
        return frozenset(found.hosts or self._hosts.values())

    def _take_on(self, hosts: Collection[str]) -> None:
        """Has these hosts take ports from the bridge, and all others put them back. An empty set stands for all hosts, also for those that come."""
        named = sorted(hosts) or None
        try:
            self._client.change_plug_bridge(self._bridge, PlugBridgeChange(hosts=named))
        except NotFound:
            title = title_of(self._session.call("network.get_record", self._ref)["name_label"])
            spec = PlugBridgeSpec(network=self._name, taken_over=True, hosts=named, title=title)
            self._client.put_plug_bridge(self._bridge, spec)

    def _leave(self) -> None:
        try:
            self._client.delete_plug_bridge(self._bridge)
        except NotFound:
            return

    def _forget(self, vif: str) -> None:
        try:
            self._client.delete_vif(vif)
        except NotFound:
            return

    def _attached(self, host: str) -> dict[str, str]:
        """The uuids of the VIFs that a host has ports of, by reference."""
        vms = self._session.call("VM.get_all_records")
        found = self._session.call("VIF.get_all_records").items()
        return {
            ref: str(row["uuid"]) for ref, row in found
            if row["network"] == self._ref and row["currently_attached"] and vms[row["VM"]]["resident_on"] == host
        }  # fmt: skip

    def _wait(self, vif: str, host: str, states: Collection[str]) -> None:
        """Returns once a VIF is in one of these states on the host; "elsewhere" is one whose port it does not have, "gone" one that vnet does not have."""
        state, reason = "", ""
        for _ in range(int(READY_S / LOOK_S)):
            try:
                place = self._client.vif(vif).place
            except NotFound:
                state = "gone"
            else:
                state, reason = place.state, "; ".join(each.text for each in place.why)
                state = state if place.host == host or state == "awaited" else "elsewhere"
            if state in states:
                return
            self._sleep(LOOK_S)
        raise XapiError(f"VIF {vif} is {state} on host {host}: {reason}. Nothing else was done: run it again")
