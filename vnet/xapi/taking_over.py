"""VIFs of a network that xapi has, moved to the same network of vnet and back, one by one, while their VMs run.

One rule: it must be the same VLAN of the same bridge: those that have moved and those that have not then reach each other over that bridge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from vnet.client import Client
from vnet.xapi.follower import Follower
from vnet.xapi.importing import CLASSES, carried
from vnet.xapi.inventory import EventsLost
from vnet.xapi.publishing import PublishedNetwork
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
    """Raises XapiError unless the network of xapi is the same VLAN as vnet's."""
    records = {table.lower(): session.call(f"{table}.get_all_records") for table in CLASSES}
    words = carried(records, ref)
    ours = client.network(name)
    bridges = {uplink.bridge for host in client.hosts() for uplink in host.uplinks if uplink.name == ours.uplink}
    if words.get("type") != "vlan" or ours.type != "vlan":
        raise XapiError(f"only VLANs are taken over: this is {words.get('type', 'none')} there, and {ours.type} here")
    if words["tag"] != ours.tag or {words["uplink"]} != bridges:
        raise XapiError(
            f"it is tag {words['tag']} of bridge {words['uplink']} there, and tag {ours.tag} of {', '.join(map(str, sorted(bridges, key=str)))} here"
        )


def take_over(
    client: Client, session: XapiSession, ref: str, to: PublishedNetwork, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """Moves the VIFs of a network of xapi to a published one, host by host: each is ready before the next one moves. Gives the uuid of each. Raises ClientError,
    XapiError."""
    follower = Follower(client, lambda _: session, (), time.monotonic)
    for vif, record in _vifs(session, ref):
        try:
            follower.make_ahead(session, vif, to.ref)
        except EventsLost as lost:
            raise XapiError(f"{lost}. Nothing else was moved") from None
        session.call("VIF.move", vif, to.ref)
        if record["currently_attached"]:
            _wait_ready(client, str(record["uuid"]), sleep)
        yield str(record["uuid"])


def give_back(session: XapiSession, published: PublishedNetwork, ref: str) -> Iterator[str]:
    """Moves the VIFs of a published network to one of xapi. The follower takes them out of vnet."""
    for vif, record in _vifs(session, published.ref):
        session.call("VIF.move", vif, ref)
        yield str(record["uuid"])


def _vifs(session: XapiSession, network: str) -> list[tuple[str, dict[str, Any]]]:
    """The VIFs of a network, by the hosts that their VMs run on."""
    vms = session.call("VM.get_all_records")
    found = [(ref, row) for ref, row in session.call("VIF.get_all_records").items() if row["network"] == network]
    return sorted(found, key=lambda item: (vms[item[1]["VM"]]["resident_on"], item[1]["VM"], item[1]["device"]))


def _wait_ready(client: Client, vif: str, sleep: Callable[[float], None]) -> None:
    for _ in range(int(READY_S / LOOK_S)):
        place = client.vif(vif).place
        if place.state == "ready":
            return
        sleep(LOOK_S)
    raise XapiError(
        f"VIF {vif} has moved and is {place.state}: {'; '.join(reason.text for reason in place.why)}. Nothing else was moved"
    )
