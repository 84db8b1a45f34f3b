"""The pool of a test: the calls that the simulator and both drivers of the lab have in common.

One rule: a test that uses these alone gives the same result on each of them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from vnet.objects import Vif
    from vnet.sim import Deliveries, Station
    from vnet.sim.trace import Trace


class PoolUnderTest(Protocol):
    """A pool with its VMs running. An unknown name raises vnet.sim.UnknownName, which names the nearest."""

    def vif(self, name: str, /) -> Vif:
        """A VIF by its id or as 'web1/0'; the VIF of a VM with one by the VM's name."""

    def label(self, vif: Vif, /) -> str:
        """The name of a VIF in deliveries: 'web1/0'."""

    def station(self, uplink: str, tag: int | None = None) -> Station:
        """An outside station on the physical switch of an uplink; on one VLAN if a tag is given."""

    def location(self, vm: str, /) -> str | None:
        """The host on which a VM runs."""

    def send(self, source: str | Station, packets: Any, /) -> Deliveries:
        """Send a packet (scapy or bytes) or several from a VIF or a station; return all deliveries.

        Raises NotPlugged or GuestPaused for a VIF that cannot send.
        """

    def connect(self, source: str, target: str, *, tcp: int | None = None, udp: int | None = None) -> Trace:
        """Play a conversation: ARP or ND, then a TCP handshake, a UDP exchange, or a ping. `reached` if all of it arrived."""

    def capture(self, file: IO[bytes] | str | Path, /) -> AbstractContextManager[None]:
        """Write the frames that `send` and `connect` bring to the VIFs' and stations' ports to a pcapng file."""

    def cut(self, host: str, link: str = "underlay") -> None:
        """Cut a host off, silently: from the other hosts ('underlay'), or one of its NICs ('eth1')."""

    def heal(self, host: str, link: str = "underlay") -> None:
        """Undo `cut`."""

    def pause(self, vm: str, /) -> None:
        """The guest neither sends nor receives. Frames for it wait in its host's port."""

    def resume(self, vm: str, /) -> object:
        """The guest goes on."""

    def migrate(self, vm: str, to: str, *, pause_s: float = 0.0, announce: bool = True) -> None:
        """Migrate a running VM as a toolstack does: prepare, switch over, activate, finish."""
