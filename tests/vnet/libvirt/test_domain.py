"""What of a domain's XML concerns vnet."""

from __future__ import annotations

import pytest

from tests.vnet.libvirt.domains import domain_xml, interface_xml
from vnet.libvirt.domain import DomainInterface, UnreadableDomain, read_domain

UUID = "7a1f8d1e-0000-4000-8000-000000000001"
VIF, MAC = "5a1f8d1e-0000-4000-8000-000000000001", "0A:00:00:00:00:01"
OTHERS = "<interface type='network'><mac address='0a:00:00:00:00:02'/><source network='default'/></interface>"


def test_the_interfaces_of_open_vswitch_are_read_and_others_are_not() -> None:
    found = read_domain(domain_xml("web \u202e1", UUID, OTHERS, interface_xml(VIF, MAC, "vn-blue", "blue")))
    assert (found.uuid, found.title) == (UUID, "web \N{REPLACEMENT CHARACTER}1")
    assert found.interfaces == (DomainInterface(VIF, MAC.lower(), "vn-blue", "blue"),)
    wrapped = read_domain(f"<domstatus state='running'>{domain_xml('a', UUID)}</domstatus>")
    assert (wrapped.name, wrapped.interfaces) == ("a", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<domain", "no XML"),
        ("<network/>", "network, not a domain"),
        ("<!DOCTYPE d [<!ENTITY a 'aa'>]><domain/>", "document type"),
        ("<domain><name>a</name></domain>", "no uuid"),
        (domain_xml("a", UUID, interface_xml("", MAC)), "no interfaceid"),
        (domain_xml("a", UUID, interface_xml("a b", MAC)), "no interfaceid"),
        (domain_xml("a", UUID, interface_xml(VIF, "0a-00")), "no MAC"),
        (domain_xml("a", UUID, interface_xml(VIF, MAC), interface_xml(VIF, MAC)), "two interfaces"),
    ],
    ids=["cut", "no-domain", "document-type", "no-uuid", "no-id", "wrong-id", "wrong-mac", "twice"],
)
def test_what_is_no_domain_is_refused(text: str, words: str) -> None:
    with pytest.raises(UnreadableDomain, match=words):
        read_domain(text)
