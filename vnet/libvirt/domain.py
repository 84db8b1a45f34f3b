"""A domain of libvirt, as far as it concerns vnet: read from its XML (https://libvirt.org/formatdomain.html).

One rule: an interface counts if its virtual port is Open vSwitch's. Its interfaceid, a UUID, is the VIF's id. That of an interface on a network of
libvirt has no type till the port is there: then it counts if it has an interfaceid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from vnet.objects.limits import MAC, VIF_ID
from vnet.objects.words import title_of

INTERFACES = "devices/interface"


class UnreadableDomain(ValueError):
    """The text is no domain of libvirt that vnet can tell the VIFs of; the message says why."""


@dataclass(frozen=True, slots=True)
class DomainInterface:
    """id: its VIF's. bridge: where libvirt plugs it; profile: its port's profileid. Each may name its network. "" for none.

    tag: of the VLAN that its untagged frames are on there, None for none. trunk: the tags that it carries besides.
    """

    id: str
    mac: str
    bridge: str = ""
    profile: str = ""
    tag: int | None = None
    trunk: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Domain:
    """name: unique on its host; uuid: everywhere. interfaces: those of Open vSwitch, in their order."""

    uuid: str
    name: str
    interfaces: tuple[DomainInterface, ...]

    @property
    def title(self) -> str | None:
        return title_of(self.name)


def read_domain(text: str) -> Domain:
    """The domain of an XML document. Raises UnreadableDomain."""
    if "<!DOCTYPE" in text:
        raise UnreadableDomain("it has a document type, as no XML of libvirt has")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - without a document type it has no entities
    except ElementTree.ParseError as error:
        raise UnreadableDomain(f"it is no XML: {error}") from None
    if root.tag != "domain":
        # While a guest migrates or is restored, libvirt may hand the domain on inside another element.
        inner = root.find(".//domain")
        if inner is None:
            raise UnreadableDomain(f"it is {root.tag}, not a domain")
        root = inner
    uuid, name = root.findtext("uuid", "").strip(), root.findtext("name", "").strip()
    if not VIF_ID.fullmatch(uuid) or not name:
        raise UnreadableDomain("it has no uuid, or no name")
    found = tuple(_interfaces(root))
    if doubled := {i.id for i in found if sum(other.id == i.id for other in found) > 1}:
        raise UnreadableDomain(f"two interfaces have interfaceid {sorted(doubled)[0]}")
    return Domain(uuid, name, found)


def _interfaces(root: ElementTree.Element) -> Iterator[DomainInterface]:
    for interface in root.iterfind(INTERFACES):
        port = interface.find("virtualport")
        if port is None or port.get("type", "openvswitch") != "openvswitch":
            continue
        stated = port.find("parameters")
        parameters = stated.attrib if stated is not None else {}
        if "type" not in port.attrib and "interfaceid" not in parameters:
            continue
        address, source = interface.find("mac"), interface.find("source")
        id, mac = parameters.get("interfaceid", ""), address.get("address", "").lower() if address is not None else ""
        if not VIF_ID.fullmatch(id):
            raise UnreadableDomain(
                f"the interface with MAC {mac or '?'} has no interfaceid that a VIF could have: {id!r}"
            )
        if not MAC.fullmatch(mac):
            raise UnreadableDomain(f"interface {id} has no MAC: {mac!r}")
        bridge = source.get("bridge", "") if source is not None else ""
        yield DomainInterface(id, mac, bridge, parameters.get("profileid", ""), *_tags(interface))


def _tags(interface: ElementTree.Element) -> tuple[int | None, tuple[int, ...]]:
    """The VLAN of an interface and the tags of its trunk."""
    vlan = interface.find("vlan")
    if vlan is None:
        return None, ()
    tags = {text: tag.get("nativeMode") for tag in vlan.iterfind("tag") if (text := tag.get("id", "")).isdecimal()}
    if vlan.get("trunk") != "yes" and len(tags) == 1:
        return int(next(iter(tags))), ()
    native = next((int(text) for text, mode in tags.items() if mode == "untagged"), None)
    return native, tuple(sorted(int(text) for text in tags if int(text) != native))
