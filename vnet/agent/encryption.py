"""Encrypted tunnels, as this host takes part in them: what its WireGuard service is to do, and where flows may send.

One rule: nothing is sent to a host before WireGuard there and here has each other's key. A plane of which keys are replaced is used again once
both ends have agreed on the new ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ovsctl.ovsdb import Change, Insert, Operation, OvsdbClient, OvsdbError, Update
from vnet.agent.pool_replica import PoolReplica
from vnet.db.rows import TABLE_OF, by_key, to_columns
from vnet.objects import TunnelKey
from vnet.objects.encryption import PLANES, inner_address, plane_network, wireguard_bytes
from vnet.wireguard.exchange import REPORT, WANTED, Mailbox, WireguardOrder, WireguardPeer, WireguardReport, write

log = logging.getLogger(__name__)

# Where a network is encrypted: between two looks at the service's report, and at everything.
LOOK_S, AGAIN_S = 0.1, 1.0
# WireGuard agrees on new session keys after two minutes, and keepalives have it do so without frames (WireGuard paper §6).
SILENT_S = 300
GRACE_S = 5.0  # for the first agreement
# Both sides of a new key call at once, and a session that came of the first call gives way to that of the second.
SETTLED_S = 2
TABLES = frozenset({"Pool", "Host", "Network", "TunnelKey"})
NO_SERVICE = "its WireGuard service does not run: systemctl start vnet-wireguard"


class EncryptedTunnels:
    """directory: where the service's files are, None for no service. on_change: called when flows, rows or problems may be others.

    problems: of the host and its VIFs, by object.
    """

    def __init__(
        self,
        pool: PoolReplica,
        client: OvsdbClient,
        directory: Path | None,
        on_change: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        self.problems: Final[dict[str, str]] = {}
        self._pool: Final = pool
        self._client: Final = client
        self._directory: Final = directory
        self._on_change: Final = on_change
        self._now_ms: Final = now_ms
        self._mailbox: Final = Mailbox(directory / REPORT) if directory is not None else None
        self._report: WireguardReport | None = None
        self._wanted: WireguardOrder | None = None
        self._planes: Final[dict[str, int]] = {}  # by host, the plane that frames to it take
        self._since_ms: Final[dict[str, int]] = {}  # by public key of a peer, when it was first seen
        self._due: Final = asyncio.Event()

    def changed(self, batch: tuple[Change, ...]) -> None:
        """Rows of the pool changed."""
        for change in batch:
            if change.table in TABLES:
                self._due.set()

    def begin(self) -> None:
        """Takes in what the service has reported, before the first desired state: what an agent left is not taken away and put back."""
        self._read_report()
        if self._needed():
            with suppress(OSError):
                self._follow()

    async def run(self) -> None:
        """Follows the pool and the service for ever."""
        again_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if self._needed() else None):
                    await self._due.wait()
            found = self._read_report()
            if not (self._due.is_set() or found or loop.time() >= again_s):
                continue
            self._due.clear()
            again_s = loop.time() + AGAIN_S
            if self._needed():
                try:
                    self._follow()
                    await self._publish()
                except (OvsdbError, OSError) as error:
                    log.info("encrypted tunnels wait: %s", error)
            self._judge()

    def _read_report(self) -> bool:
        """Whether the service has reported anew."""
        try:
            found = self._mailbox.read(WireguardReport) if self._mailbox is not None else None
        except (OSError, ValueError) as error:
            log.error("the WireGuard service's report: %s", error)
            return False
        self._report = found or self._report
        return found is not None

    def _needed(self) -> bool:
        """Whether a network here is encrypted, or was: its last frames may be under way."""
        return bool(self._wanted is not None or self._encrypted())

    def _encrypted(self) -> set[str]:
        return {name for name, net in self._pool.compiler.view.networks.items() if net.encryption is not None}

    # Towards the service, the pool and the switch

    def _follow(self) -> None:
        """Brings the service's orders and the flows to what the pool and the service's report say. Raises OSError."""
        view, me = self._pool.compiler.view, self._pool.me
        pool, host = view.pool, view.hosts.get(me)
        if pool is None or host is None or self._directory is None or self._report is None:
            return
        peers = self._peers(pool.id)
        planes = {name: plane for name, peer in peers.items() if (plane := self._plane(name, peer)) is not None}
        self._planes.clear()
        self._planes.update(planes)
        wanted = WireguardOrder(
            pool.key_epoch,
            {plane: inner_address(pool.id, me, plane) for plane in PLANES},
            {plane: str(plane_network(pool.id, plane)) for plane in PLANES},
            pool.underlay_mtu - wireguard_bytes(host.address),
            peers,
            planes,
            self._pool.compiler.inputs.kernel,
        )
        if wanted != self._wanted:
            write(self._directory / WANTED, wanted)
            self._wanted = wanted
        self._program(wanted, self._report)

    def _peers(self, pool_id: str) -> dict[str, WireguardPeer]:
        """The other hosts that have keys."""
        keys: dict[str, dict[int, str]] = {}
        for key in self._pool.tunnel_keys.values():
            keys.setdefault(key.host, {})[key.plane] = key.public
        return {
            name: WireguardPeer(
                host.address, {plane: inner_address(pool_id, name, plane) for plane in PLANES}, keys[name]
            )
            for name, host in sorted(self._pool.compiler.view.hosts.items())
            if name in keys and name != self._pool.me and host.address is not None
        }

    def _plane(self, host: str, peer: WireguardPeer) -> int | None:
        """The plane for frames to a host; None if they have none. The one of this epoch comes first, once both ends have keys of the epoch and have
        agreed; then any on which they have."""
        pool, report = self._pool.compiler.view.pool, self._report
        if pool is None or report is None:
            return None
        newest = pool.key_epoch % len(PLANES)
        usable = [plane for plane in (newest, 1 - newest) if plane in report.keys and plane in peer.keys]
        latest = self._now_ms() / 1000 - SETTLED_S
        agreed = [plane for plane in usable if 0 < report.handshakes.get(peer.keys[plane], 0) <= latest]
        if newest in agreed and not self._is_fresh(host, newest, pool.key_epoch):
            agreed = agreed[::-1]
        if not agreed and (known := self._planes.get(host)) in usable:
            return known
        return next(iter((*agreed, *usable)), None)

    def _is_fresh(self, host: str, plane: int, epoch: int) -> bool:
        """Whether both ends have made their keys of a plane in this epoch: else they are about to, and it is to be left."""
        own = self._report.keys[plane].epoch if self._report is not None else 0
        return own >= epoch and self._pool.tunnel_keys[host, plane].epoch >= epoch

    def _program(self, wanted: WireguardOrder, report: WireguardReport) -> None:
        inputs, me = self._pool.compiler.inputs, self._pool.me
        inner = {name: wanted.peers[name].addresses[plane] for name, plane in self._planes.items()}
        if report.ready:
            inner[me] = wanted.addresses[PLANES[0]]
        mac = report.mac if report.linked else ""
        before = dict(inputs.inner), inputs.wireguard
        for name in {*before[0], *inner}:
            inputs.set_inner(name, inner.get(name))
        if mac != inputs.wireguard:
            inputs.set_wireguard(mac)
        if (inner, mac) == before:
            return
        if (me in inner) != (me in before[0]):
            self._pool.touch(self._local())
        self._on_change()

    def _local(self) -> list[str]:
        """The VIFs of encrypted networks that this host has rows of."""
        view, encrypted = self._pool.compiler.view, self._encrypted()
        return sorted(vif.id for vif in view.vifs.values() if vif.network in encrypted)

    async def _publish(self) -> None:
        """Has the pool know this host's public keys. Raises OvsdbError."""
        if self._report is None or not self._client.connected:
            return
        operations: list[Operation] = []
        for plane, key in self._report.keys.items():
            own = TunnelKey(self._pool.me, plane, key.public, key.epoch)
            known = self._pool.tunnel_keys.get((own.host, plane))
            if known is None:
                operations.append(Insert(TABLE_OF[TunnelKey], to_columns(own)))
            elif known != own:
                columns = {"public": own.public, "epoch": own.epoch}
                operations.append(Update(TABLE_OF[TunnelKey], by_key(own), columns))
        if operations:
            await self._client.transact(*operations)

    # Problems

    def _judge(self) -> None:
        view = self._pool.compiler.view
        reason = self._obstacle() if self._pool.me not in self._pool.compiler.inputs.inner else ""
        problems = {
            f"vif {vif}": f"network {view.vifs[vif].network} is encrypted, which this host cannot: {reason}"
            for vif in (self._local() if reason else ())
            if vif in view.ports
        }
        if not reason and (problem := "; ".join(filter(None, (self._trouble(), self._unreached())))):
            problems["encryption"] = problem
        if problems != self.problems:
            self.problems.clear()
            self.problems.update(problems)
            self._on_change()

    def _obstacle(self) -> str:
        """Why this host cannot encrypt."""
        host = self._pool.compiler.view.hosts.get(self._pool.me)
        if host is not None and host.address is None:
            return "it has no address"
        if self._report is None:
            return NO_SERVICE
        return self._report.problem or "WireGuard is being set up"

    def _trouble(self) -> str:
        problem = self._report.problem if self._report is not None else ""
        return f"WireGuard stays as it is: {problem}" if problem else ""

    def _unreached(self) -> str:
        """The hosts with VIFs on encrypted networks of this host that WireGuard does not reach."""
        if self._wanted is None or self._report is None:
            return ""
        view, now_ms = self._pool.compiler.view, self._now_ms()
        members = {host for name in self._encrypted() for host in view.members(name)} - {self._pool.me}
        keyless = sorted(members - self._planes.keys())
        silent = []
        for host in sorted(members & self._planes.keys()):
            public = self._wanted.peers[host].keys[self._planes[host]]
            since_ms = self._since_ms.setdefault(public, now_ms)
            last_s = self._report.handshakes.get(public, 0)
            if now_ms > (last_s * 1000 + SILENT_S * 1000 if last_s else since_ms + GRACE_S * 1000):
                silent.append(host)
        told = [f"no key yet of {', '.join(keyless)}"] if keyless else []
        told += [f"no answer of {', '.join(silent)}"] if silent else []
        return f"encrypted frames do not reach every host: {'; '.join(told)}" if told else ""
