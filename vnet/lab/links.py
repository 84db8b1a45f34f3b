"""Network namespaces, links and addresses, by netlink (pyroute2). One rule: whoever works in a namespace does so in a thread
of its own, so no other thread is ever in the wrong one.

pyroute2 is loaded at the first use: it takes 0.1 s that the dummy driver and most commands need not wait for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, TypeVar

from vnet.lab.errors import LabError
from vnet.lab.names import NETNS_DIR
from vnet.lab.ports import enter, leave

IFA_F_NODAD = 0x02  # linux/if_addr.h
BR_STATE_LISTENING, BR_STATE_FORWARDING = 1, 3  # linux/if_bridge.h
R = TypeVar("R")


def in_thread(function: Callable[[], R]) -> R:
    """The result of `function`, or its exception, called by a thread of its own."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(function).result()


def within(netns: str, function: Callable[[], R]) -> R:
    """The result of `function`, or its exception, called by a thread of its own inside the namespace.

    Raises LabError where there is no such namespace."""

    def body() -> R:
        try:
            enter(str(NETNS_DIR / netns))
        except OSError as error:
            raise LabError(f"network namespace {netns}: {os.strerror(error.errno or 0)}") from None
        return function()

    return in_thread(body)


def create(netns: str, settings: dict[str, str]) -> None:
    """Make a named network namespace, with settings below /proc/sys/net. Raises LabError, as when the name is taken."""
    from pyroute2 import netns as named  # noqa: PLC0415 - see above

    def body() -> None:
        leave()  # a thread's way into a fresh namespace; `named.create` would fork this process for it
        named.attach(netns, threading.get_native_id())
        write_settings(settings)

    try:
        with _mounting():
            in_thread(body)
    except OSError as error:
        raise LabError(f"network namespace {netns}: {os.strerror(error.errno or 0)}") from None


@contextlib.contextmanager
def _mounting() -> Iterator[None]:
    """Where no namespace was ever named the directory becomes a mount: two at once would hide each other's names."""
    NETNS_DIR.mkdir(exist_ok=True)
    directory = os.open(NETNS_DIR, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # as iproute2 does
        yield
    finally:
        os.close(directory)


def remove(netns: str) -> None:
    """Remove a named network namespace, and with it its devices. It is no error if there is none."""
    from pyroute2 import netns as named  # noqa: PLC0415 - see above

    with contextlib.suppress(FileNotFoundError):
        named.remove(netns)


def write_settings(settings: dict[str, str]) -> None:
    """Write settings below /proc/sys/net, of the namespace that the thread is in."""
    for key, value in settings.items():
        Path(f"/proc/sys/net/{key}").write_text(value)


class Links:
    """The devices of the namespace that the thread is in. Each method raises LabError with the device and the kernel's reason."""

    def __init__(self, netns: str, route: Any) -> None:
        self._netns = netns
        self._route = route

    def _ask(self, device: str, request: Callable[..., Any], command: str, **attributes: Any) -> None:
        from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - see above

        try:
            request(command, **attributes)
        except NetlinkError as error:
            raise LabError(f"{device} in {self._netns}: {error.args[1]}") from None

    def _index(self, device: str) -> int:
        try:
            return socket.if_nametoindex(device)
        except OSError as error:
            raise LabError(f"{device} in {self._netns}: {os.strerror(error.errno or errno.ENODEV)}") from None

    def bridge(self, name: str, mtu: int | None = None) -> None:
        """A Linux bridge that is up and passes all multicast on. MTU in bytes."""
        more = {} if mtu is None else {"mtu": mtu}
        self._ask(name, self._route.link, "add", ifname=name, kind="bridge", br_mcast_snooping=0, state="up", **more)

    def cable(self, name: str, far_netns: str, far_name: str, mtu: int, bridge: str | None = None) -> None:
        """A veth pair: our end is up, and on a bridge if one is named; the far end is down. MTU in bytes."""
        more = {} if bridge is None else {"master": self._index(bridge)}
        peer = {"ifname": far_name, "mtu": mtu, "net_ns_fd": str(NETNS_DIR / far_netns)}
        self._ask(name, self._route.link, "add", ifname=name, kind="veth", mtu=mtu, state="up", peer=peer, **more)

    def set(self, name: str, **attributes: Any) -> None:
        """Change a device: `state`, `mtu` in bytes, `address` its MAC."""
        self._ask(name, self._route.link, "set", index=self._index(name), **attributes)

    def join(self, name: str, bridge: str) -> None:
        """Make a device a port of a bridge."""
        self.set(name, master=self._index(bridge))

    def delete(self, name: str) -> None:
        """Remove a device."""
        self._ask(name, self._route.link, "del", index=self._index(name))

    def pass_frames(self, name: str, passing: bool) -> None:
        """Let a bridge's port forward, or drop silently whatever comes from either side. Its link stays up."""
        # Not `state`, which is the link's own; and not disabled, which a link that is up does not stay.
        state = BR_STATE_FORWARDING if passing else BR_STATE_LISTENING
        self._ask(name, self._route.brport, "set", index=self._index(name), IFLA_BRPORT_STATE=state)

    def address(self, name: str, address: str) -> None:
        """Give a device an address, as '10.0.0.1/24'. An IPv6 address is usable at once, without a search for duplicates."""
        own = ip_interface(address)
        more = {"flags": IFA_F_NODAD} if own.version == 6 else {}
        self._ask(
            name, self._route.addr, "add", index=self._index(name), address=str(own.ip),
            prefixlen=own.network.prefixlen, **more,
        )  # fmt: skip


def change(netns: str, work: Callable[[Links], R]) -> R:
    """The result of `work`, given the devices of a namespace. Raises LabError."""
    from pyroute2 import IPRoute  # noqa: PLC0415 - see above

    def body() -> R:
        with IPRoute(ext_ack=True) as route:
            return work(Links(netns, route))

    return within(netns, body)


def no_checksum_offload(netns: str) -> None:
    """Have every device of a namespace fill in the checksums that it sends, where its driver has the setting."""
    from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool  # noqa: PLC0415 - see above

    def body() -> None:
        with contextlib.closing(IoctlEthtool()) as ethtool:
            for _, device in socket.if_nameindex():
                if device != "lo":
                    ethtool.change_ifname(device)
                    with contextlib.suppress(EthtoolError, OSError):
                        ethtool.set_offload_flag("tx-checksumming", 0)

    within(netns, body)
