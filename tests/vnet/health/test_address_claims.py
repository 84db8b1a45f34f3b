"""Which frames claim an address, and when two stations have one."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from vnet.db.health import HealthQuery, StatedAddress, gateways_of
from vnet.health.address_claims import ANSWER_S, KEPT_S, MAX_RIVALS, AddressClaims, AddressHolder
from vnet.util.frames import SERVICE_VLAN, AddressClaim, claimed_address

OWN, VIRTUAL, OTHER, THIRD = ("0a:00:00:00:00:09", "00:00:5e:00:01:07", "0c:00:00:00:00:01", "0c:00:00:00:00:02")
ADDRESS, ADDRESS6 = "10.7.0.9", "fd07::9"
ETHER = Ether(src=OTHER, dst="ff:ff:ff:ff:ff:ff")


def nd(message: Packet, source: str = ADDRESS6) -> Packet:
    return Ether(src=OTHER, dst="33:33:00:00:00:01") / IPv6(src=source, dst="ff02::1", hlim=255) / message


@pytest.mark.parametrize(
    ("frame", "claim"),
    [
        (ETHER / ARP(op=1, hwsrc=OTHER, psrc=ADDRESS, pdst="10.7.0.1"), (0, ADDRESS, OTHER, "")),
        (ETHER / Dot1Q(vlan=7) / ARP(op=2, hwsrc=THIRD, psrc=ADDRESS, pdst=ADDRESS), (7, ADDRESS, THIRD, "")),
        (
            ETHER / Dot1AD(vlan=7) / ARP(op=2, hwsrc=OTHER, psrc=ADDRESS, hwdst=THIRD, pdst="10.7.0.1"),
            (SERVICE_VLAN | 7, ADDRESS, OTHER, THIRD),
        ),
        (ETHER / ARP(op=1, hwsrc=OTHER, psrc="0.0.0.0", pdst=ADDRESS), None),  # a probe asks, and claims nothing
        (nd(ICMPv6ND_NA(tgt=ADDRESS6) / ICMPv6NDOptDstLLAddr(lladdr=THIRD)), (0, ADDRESS6, THIRD, "")),
        (nd(ICMPv6ND_NA(tgt=ADDRESS6)), (0, ADDRESS6, OTHER, "")),
        (nd(ICMPv6ND_NS(tgt="fd07::1") / ICMPv6NDOptSrcLLAddr(lladdr=THIRD)), (0, ADDRESS6, THIRD, "")),
        (nd(ICMPv6ND_NS(tgt=ADDRESS6), source="::"), None),  # duplicate address detection
        (ETHER / IPv6(hlim=64) / ICMPv6ND_NA(tgt=ADDRESS6), None),  # from beyond a router
    ],
)
def test_what_claims_an_address(frame: Packet, claim: tuple[int, str, str, str] | None) -> None:
    assert claimed_address(bytes(frame)) == claim


@given(st.binary(max_size=120), st.integers(0, 90))
def test_hostile_frames_are_read_without_failing(noise: bytes, keep: int) -> None:
    claimed_address(noise)
    claimed_address(bytes(nd(ICMPv6ND_NA(tgt=ADDRESS6) / ICMPv6NDOptDstLLAddr(lladdr=THIRD)))[:keep] + noise)
    claimed_address(bytes(ETHER / ARP(psrc=ADDRESS))[:keep])


@dataclass
class Heard:
    """An uplink on which claims of a VIF's address on VLAN 7 and of the host's own address are heard, by a clock of the test's."""

    now_s: float = 1000.0
    claims: AddressClaims = field(init=False)

    def __post_init__(self) -> None:
        self.claims = AddressClaims(lambda: self.now_s)
        self.claims.watch(
            "trunk0", {(ADDRESS, 7): AddressHolder("web1/0", (OWN, VIRTUAL)), ("10.99.0.1", None): AddressHolder()}
        )

    def claim(
        self, *macs: str, address: str = ADDRESS, tag: int = 7, asker: str = "", pause_s: float = 1.0
    ) -> list[StatedAddress]:
        for mac in macs:
            self.now_s += pause_s
            self.claims.hear("trunk0", AddressClaim(tag, address, mac, asker))
        return list(self.claims.stated())


def test_one_claim_of_a_vifs_address_is_a_conflict_until_it_is_old() -> None:
    heard = Heard()
    assert heard.claim(OWN, VIRTUAL) == []  # a loop, or another of its virtual router
    assert heard.claim(OTHER, tag=8) == []
    assert heard.claim(OTHER) == [StatedAddress("trunk0", ADDRESS, 7, (OWN, OTHER), "web1/0")]
    heard.now_s += KEPT_S
    assert heard.claim() == []


def test_of_an_address_whose_mac_nobody_knows_two_claim_in_turns() -> None:
    heard = Heard()
    assert heard.claim(OWN, OWN, OTHER, OTHER, address="10.99.0.1", tag=3) == []  # one takes over from the other
    (found,) = heard.claim(OWN, address="10.99.0.1", tag=3)
    assert found == StatedAddress("trunk0", "10.99.0.1", 3, (OWN, OTHER))
    heard.now_s += KEPT_S
    assert heard.claim(OTHER, address="10.99.0.1", tag=3) == []


def test_two_that_answer_one_question_are_there_at_once() -> None:
    own = {"address": "10.99.0.1", "tag": 3, "pause_s": 0.01}
    heard = Heard()
    assert heard.claim(OTHER, asker=OWN, **own) == []
    assert heard.claim(THIRD, **own) == []  # asked by nobody: it may have taken over
    heard = Heard()
    assert heard.claim(OTHER, asker=OWN, **own) == []
    assert heard.claim(THIRD, asker=VIRTUAL, **own) == []  # whoever asked next
    heard = Heard()
    assert heard.claim(OTHER, THIRD, asker=OWN, **own | {"pause_s": ANSWER_S}) == []  # it was asked again
    heard = Heard()
    expected = [StatedAddress("trunk0", "10.99.0.1", 3, (OTHER, THIRD))]
    assert heard.claim(OTHER, THIRD, asker=OWN, **own) == expected
    heard.now_s += KEPT_S
    assert heard.claim() == []


def test_a_station_that_makes_up_macs_is_bounded_and_what_is_stated_stays() -> None:
    heard = Heard()
    made_up = [f"0c:00:00:00:01:{number:02x}" for number in range(100)]
    (found,) = heard.claim(*made_up)
    assert found.macs == (OWN, *made_up[:MAX_RIVALS])
    assert heard.claim(*made_up) == [found]


def test_an_address_that_has_left_is_forgotten() -> None:
    heard = Heard()
    assert heard.claim(OTHER)
    heard.claims.watch("trunk0", {})
    assert heard.claim(OTHER) == []
    heard.claims.watch("trunk0", {(ADDRESS, 7): AddressHolder("web1/0", (OWN,))})
    assert heard.claim() == []


def test_a_question_names_gateways_or_none_and_what_is_none_is_refused() -> None:
    def asked(text: str) -> dict[str, dict[int, list[str]]]:
        return gateways_of(HealthQuery("q", "xen1", 1, gateways=text))

    assert asked("") == {}  # of a controller that knows no gateways
    assert asked('{"trunk0": {"7": ["10.7.0.1"]}}') == {"trunk0": {7: ["10.7.0.1"]}}
    for text in ("{", '{"trunk0": {"7": ["nonsense"]}}', '{"trunk0": ["10.7.0.1"]}'):
        with pytest.raises(ValueError, match="no gateways"):
            asked(text)
