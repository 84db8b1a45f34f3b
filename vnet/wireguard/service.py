"""The WireGuard service of one host: keys, devices and routes as its agent wants them.

One rule: it is asked by a file and answers by one, and whatever it has made stays when it ends: packets do not notice.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vnet.objects.devices import ENCRYPTION_BRIDGE
from vnet.objects.encryption import PLANES
from vnet.util import logs
from vnet.util.commands import ToolFailed
from vnet.util.service_status import Obstacle, ServiceStatus
from vnet.wireguard.exchange import (
    REPORT,
    WANTED,
    Mailbox,
    PublicKey,
    WireguardOrder,
    WireguardReport,
    write,
)
from vnet.wireguard.keys import KeyFile, bridge_mac
from vnet.wireguard.link import EncryptionLink, PlanePeer

log = logging.getLogger(__name__)

STEP_S = 0.2
LOOK_S = 1.0  # between two looks at what WireGuard has done
VERIFY_S = 5.0  # between two looks whether all devices and routes are there
# A plane is quiet if no peer has sent more than this in so many seconds: a handshake and a keepalive (WireGuard paper §5.4), no two frames.
QUIET_S, QUIET_BYTES = 3.0, 148 + 32

# WireGuard calls a peer that has not answered again after 5 s and up to 0.33 s (WireGuard paper §6.1). Where both ends call in the same moment, each call ends the other, and so do the next ones for as long
# as an answer takes longer than that third of a second. So one end begins anew half a turn later, and once more after twice as long.
OUT_OF_STEP_S, MOST_S = 7.5, 240.0


class Traffic:
    """The bytes that peers have sent on a plane of late."""

    def __init__(self) -> None:
        self._samples: Final[deque[tuple[float, Mapping[str, int]]]] = deque()

    def add(self, now_s: float, received: Mapping[str, int]) -> None:
        self._samples.append((now_s, received))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - QUIET_S:
            self._samples.popleft()

    @property
    def quiet(self) -> bool:
        """Whether nobody has sent frames for long enough to be sure."""
        if not self._samples:
            return False
        (since_s, first), (now_s, last) = self._samples[0], self._samples[-1]
        grown = (count - first.get(peer, 0) for peer, count in last.items())
        return now_s - since_s >= QUIET_S and all(0 <= more <= QUIET_BYTES for more in grown)


class Unanswered:
    """The peers of a plane that have never answered."""

    def __init__(self) -> None:
        self._due: Final[
            dict[str, tuple[float, float]]
        ] = {}  # by public key, when it is to be called anew, and the pause before

    def due(self, now_s: float, silent: Collection[str]) -> set[str]:
        """Those of the silent ones whose turn it is to be called out of step."""
        for public in self._due.keys() - set(silent):
            del self._due[public]
        for public in silent:
            self._due.setdefault(public, (now_s + OUT_OF_STEP_S, OUT_OF_STEP_S))
        found = {public for public, (at_s, _) in self._due.items() if at_s <= now_s}
        for public in found:
            pause_s = min(2 * self._due[public][1], MOST_S)
            self._due[public] = now_s + pause_s, pause_s
        return found


@dataclass(slots=True)
class KeptPlane:
    """One plane. key: the host's, with its private part. peers: as WireGuard has them, None if that is not known."""

    file: KeyFile
    key: tuple[str, PublicKey] | None = None
    peers: Sequence[PlanePeer] | None = None
    traffic: Traffic = field(default_factory=Traffic)
    unanswered: Unanswered = field(default_factory=Unanswered)


class WireguardService:
    """Each step does what is due. clock: seconds that only grow."""

    def __init__(
        self, directory: Path, keys: Path, link: EncryptionLink, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.report = WireguardReport()
        self.wanted: WireguardOrder | None = None
        self._directory: Final = directory
        self._mailbox: Final = Mailbox(directory / WANTED)
        self._planes: Final = {plane: KeptPlane(KeyFile(keys, plane)) for plane in PLANES}
        self._link: Final = link
        self._mac: Final = bridge_mac(keys)
        self._clock: Final = clock
        self._bridge = 0  # the index of the bridge's device
        self._made_for: object = None
        self._linked = self._ready = False
        self._handshakes: dict[str, int] = {}
        self._look_at_s = self._verify_at_s = 0.0

    def step(self) -> None:
        """Does what is due, and reports. What fails is reported and tried again, and what was made so far stays."""
        try:
            self.wanted = self._mailbox.read(WireguardOrder) or self.wanted
        except ValueError as error:
            log.error("%s is damaged, and left: %s", WANTED, error)
        problem, now_s = self.report.problem, self._clock()
        if self.wanted is not None and (not problem or now_s >= self._verify_at_s):
            try:
                self._follow(self.wanted, now_s)
                problem = ""
            except (ToolFailed, OSError) as error:
                problem, self._verify_at_s, self._made_for = str(error), now_s + LOOK_S, None
        public = {plane: it.key[1] for plane, it in self._planes.items() if it.key is not None}
        found = WireguardReport(
            public, self._mac, self._linked, self._ready, self._handshakes, problem, self._link.userspace
        )
        if found != self.report or not (self._directory / REPORT).exists():
            self.report = found
            write(self._directory / REPORT, found)

    def _follow(self, wanted: WireguardOrder, now_s: float) -> None:
        made_for = wanted.addresses, wanted.networks, wanted.mtu
        verify = now_s >= self._verify_at_s or made_for != self._made_for
        if verify:
            self._link.close(wanted)
            if self._link.make(wanted, self._mac):
                for plane in self._planes.values():
                    plane.peers = None
            self._made_for, self._verify_at_s, self._linked = made_for, now_s + VERIFY_S, True
        for number, plane in self._planes.items():
            self._keep_key(number, plane, wanted)
            self._keep_peers(number, plane, wanted)
        # Open vSwitch's userspace datapath makes the device anew at each start, without addresses.
        if (bridge := _index(ENCRYPTION_BRIDGE)) != self._bridge or verify or not self._ready:
            self._bridge, self._ready = bridge, self._link.open(wanted, self._mac)
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            self._look(now_s, wanted)

    def _keep_key(self, number: int, plane: KeptPlane, wanted: WireguardOrder) -> None:
        """Makes the key that is due: of the plane of this epoch, once nobody sends frames there any more."""
        if plane.key is None:
            plane.key = plane.file.read()
        due = wanted.epoch if number == wanted.epoch % len(PLANES) else wanted.epoch - 1
        if plane.key is None:
            plane.file.make(max(due, 0))
        elif plane.key[1].epoch < due == wanted.epoch and self._unused(number, plane, wanted):
            log.info("a new key in plane %d, of epoch %d", number, due)
            plane.file.make(due)
        else:
            return
        plane.key, plane.traffic, self._look_at_s = plane.file.read(), Traffic(), 0.0
        if plane.key is not None:
            plane.peers = None

    def _unused(self, number: int, plane: KeptPlane, wanted: WireguardOrder) -> bool:
        return number not in wanted.sending.values() and plane.traffic.quiet

    def _keep_peers(self, number: int, plane: KeptPlane, wanted: WireguardOrder) -> None:
        peers = [
            PlanePeer(peer.keys[number], peer.endpoint, peer.addresses[number])
            for peer in wanted.peers.values()
            if number in peer.keys
        ]
        if plane.key is not None and peers != plane.peers:
            self._link.configure(number, plane.key[0], peers)
            plane.peers = peers

    def _look(self, now_s: float, wanted: WireguardOrder) -> None:
        self._handshakes = {}
        for number, plane in self._planes.items():
            counters = self._link.counters(number)
            plane.traffic.add(now_s, {public: received for public, (_, received) in counters.items()})
            self._handshakes |= {public: handshake for public, (handshake, _) in sorted(counters.items())}
            if plane.key is not None and plane.peers is not None:
                # Of the two ends one; nothing is lost with what never was a session.
                silent = {
                    peer.public
                    for peer in plane.peers
                    if wanted.addresses[number] < peer.address and not self._handshakes.get(peer.public)
                }
                if due := plane.unanswered.due(now_s, silent):
                    self._link.configure(number, plane.key[0], [it for it in plane.peers if it.public not in due])
                    plane.peers = None  # the next step has them again


def _index(device: str) -> int:
    """The index of a device, 0 if there is none."""
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0


def main(*, directory: Path, keys: Path, netns: str, prefix: str, ovs_rundir: str) -> None:
    """Runs the service until SIGTERM or SIGINT. Raises OSError if it cannot use its directories."""
    logs.configure()
    directory.mkdir(parents=True, exist_ok=True)
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopped.append(number))
    service, status = WireguardService(directory, keys, EncryptionLink(netns, prefix, ovs_rundir)), ServiceStatus()
    while not stopped:
        service.step()
        problem = service.report.problem
        activity = "keeps WireGuard" if service.wanted is not None else "nothing here is encrypted yet"
        status.show(Obstacle("wireguard", problem, works=True) if problem else None, activity)
        status.alive()
        time.sleep(STEP_S)
