"""A tap on every link between a lab's hosts, from its start: what of VIFs' frames was to be read there."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from vnet.lab import Lab
from vnet.lab.links import within
from vnet.lab.names import underlay_netns
from vnet.objects.encryption import FIRST_PORT, PLANES

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
LINKS = ("u", "h")  # of the underlay's namespace: to a host's VTEP, and to its NICs (vnet/lab/netns.py)
BUFFER = 16 * 1024 * 1024
PORTS = {(FIRST_PORT + plane).to_bytes(2, "big") for plane in PLANES}


class Wiretap:
    """frames: how many of which sort there were. clear: those that hold any of the secrets, with their link."""

    def __init__(self, secrets: list[bytes]) -> None:
        self.frames: Counter[str] = Counter()
        self.clear: list[tuple[str, bytes]] = []
        self._secrets = secrets

    def take(self, link: str, frame: bytes) -> None:
        self.frames[_sort(frame)] += 1
        if any(secret in frame for secret in self._secrets):
            self.clear.append((link, frame))


def _sort(frame: bytes) -> str:
    if frame[12:14] == b"\x08\x06":
        return "arp"
    if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] in PORTS:
        return "wireguard"
    return "other"


@contextmanager
def wiretap(lab: Lab, secrets: list[bytes]) -> Iterator[Wiretap]:
    """Inside, every frame on every link is looked at."""
    tap, done = Wiretap(secrets), threading.Event()
    opened = within(
        underlay_netns(lab.spec.name), lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    )
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    opened.settimeout(0.1)

    def listen() -> None:
        while not done.is_set():
            try:
                frame, (link, *_) = opened.recvfrom(65535)
            except TimeoutError:
                continue
            if link.startswith(LINKS):
                tap.take(link, frame)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield tap
    finally:
        time.sleep(0.2)  # what was sent last
        done.set()
        thread.join()
        opened.close()
