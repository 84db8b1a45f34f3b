"""Networks of vnet as networks of xapi, which people choose for their VMs in XCP-ng Center or Xen Orchestra.

One rule: such a network is not managed by xapi: its bridge is a plug bridge, which the hosts' agents make. xapi then takes it for available on
every host that has the bridge, and neither makes nor removes it (xapi_network.ml, xapi_network_attach_helpers.ml of xen-api).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from vnet.client import Client, NotFound, PlugBridgeSpec
from vnet.objects.words import title_of
from vnet.xapi.records import NETWORK_KEY, NULL, POOL_KEY
from vnet.xapi.session import XapiError, XapiSession

PREFIX = (
    "vn-"  # of bridges; xapi takes no name of more than 15 characters, and none that begins with xapi, eth, vif or tap
)
# ovs-xapi-sync gives a network's bridge this fail mode, else `standalone`, in which its ports would hear each other until they are moved.
FAIL_MODE = {"vswitch-controller-fail-mode": "secure"}
PIF_MAC = "fe:ff:ff:ff:ff:ff"  # as xapi gives to PIFs without a device of their own (xapi_vlan.ml)


class PublishedNetwork(msgspec.Struct, frozen=True):
    """network: its name in vnet."""

    network: str
    uuid: str
    label: str
    bridge: str
    ref: str
    other_config: dict[str, str]


def bridge_name(number: int) -> str:
    """The plug bridge of a network, from its number in the pool, which is kept for its life."""
    return f"{PREFIX}{number:x}"


def published(session: XapiSession, pool: str) -> list[PublishedNetwork]:
    """What is published from a pool of vnet, by the networks' names."""
    return sorted(_published(session, pool), key=lambda found: (found.network, found.uuid))


def _published(session: XapiSession, pool: str) -> Iterator[PublishedNetwork]:
    for ref, record in session.call("network.get_all_records").items():
        config = record["other_config"]
        if config.get(NETWORK_KEY) and config.get(POOL_KEY) == pool and not record["managed"]:  # those were taken over
            yield PublishedNetwork(
                config[NETWORK_KEY], record["uuid"], record["name_label"], record["bridge"], ref, config
            )


def publish(
    client: Client, session: XapiSession, name: str, label: str | None = None, *, agile: bool = False
) -> PublishedNetwork:
    """Makes the plug bridge and xapi's network, with `agile` also a PIF of each host; what is there already stays. Raises ClientError, XapiError."""
    pool, network = client.pool().id, client.network(name)
    there = {found.network: found for found in published(session, pool)}
    bridge = there[name].bridge if name in there else bridge_name(network.number)
    shown = label or (there[name].label if name in there else name)
    client.put_plug_bridge(bridge, PlugBridgeSpec(network=name, title=title_of(shown)))
    if name not in there:
        session.call(
            "network.create",
            {
                "name_label": label or name,
                "name_description": f"Network {name} of vnet",
                "MTU": str(network.mtu),
                "other_config": {NETWORK_KEY: name, POOL_KEY: pool, **FAIL_MODE},
                "bridge": bridge,
                "managed": False,
                "tags": [],
            },
        )
    else:
        found = there[name]
        if label is not None and label != found.label:
            session.call("network.set_name_label", found.ref, label)
        if not FAIL_MODE.items() <= found.other_config.items():
            session.call("network.set_other_config", found.ref, {**found.other_config, **FAIL_MODE})
    made = next(found for found in published(session, pool) if found.network == name)
    if agile:
        _introduce_pifs(session, made)
    return made


def _introduce_pifs(session: XapiSession, network: PublishedNetwork) -> None:
    """A record of a PIF that xapi does not manage, on each host that has none on the network. xapi takes VMs for agile only on networks that have a PIF on
    each enabled host (agility.ml); where a network is not managed it does nothing with them but that (xapi_network.ml, attach_internal)."""
    there = {pif["host"] for pif in session.call("PIF.get_all_records").values() if pif["network"] == network.ref}
    for host in session.call("host.get_all_records"):
        if host not in there:
            session.call(
                "PIF.db_introduce", network.bridge, network.ref, host, PIF_MAC, "-1", "-1", False, "None", "", "", "", "", NULL, NULL, False,
                {POOL_KEY: network.other_config[POOL_KEY]}, False, "None", [], "", "IPv4", False, {},
            )  # fmt: skip


def unpublish(client: Client, session: XapiSession, name: str, known: Collection[PublishedNetwork]) -> None:
    """Removes xapi's network, which xapi refuses while a VIF is attached to it, then the plug bridge. Raises ClientError, XapiError."""
    found = next((one for one in known if one.network == name), None)
    if found is None:
        raise XapiError(f"network {name} is not published there")
    pifs = [ref for ref, pif in session.call("PIF.get_all_records").items() if pif["network"] == found.ref]
    attached = [
        vif["uuid"]
        for vif in session.call("VIF.get_all_records").values()
        if vif["network"] == found.ref and vif["currently_attached"]
    ]
    if attached:  # xapi would say so only once the PIFs are gone
        raise XapiError(f"NETWORK_CONTAINS_VIF {' '.join(attached)}")
    for pif in pifs:
        session.call("PIF.db_forget", pif)
    session.call("network.destroy", found.ref)
    try:
        client.delete_plug_bridge(found.bridge)
    except NotFound:
        return
