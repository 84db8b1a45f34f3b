"""The qemu hook of libvirt (https://libvirt.org/hooks.html): a guest that starts, moves or ends on this host, told to the pool.

One rule: each operation looks at how far things are in the pool and goes on from there, so each may come twice, or not at all.

libvirt calls, in this order (libvirt 9.0.0, seen):
    a guest that starts    here: prepare, start, started
    one that moves         there: migrate, prepare, start, started; its memory is copied; here: stopped, release
    one that fails to      there: stopped, release
At `start` the ports are plugged and the guest's processor does not run yet. No operation tells of the pause of a guest that moves: `events.py` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from vnet import api
from vnet.client import Client, Conflict, NotFound, Unit, VifSpec, VmChange
from vnet.libvirt.domain import Domain, DomainInterface

PREPARED_S = 30.0  # a host that is down is waited for for 15 s (docs/migration.md)
READY_S = 10.0
ABORTED_S = 5.0
POLL_S = 0.05
INTEGRATION_BRIDGE = "br-int"


class GuestRefused(Exception):
    """The guest must not start or come here; libvirt shows the message to whoever asked for it."""


class QemuHook:
    """Carries out the operations on the host `me`. warn: is given what is not as it should be, and stops no guest."""

    def __init__(self, client: Client, me: str, warn: Callable[[str], None]) -> None:
        self._client = client
        self._me = me
        self._warn = warn

    def carry_out(self, operation: str, domain: Domain) -> None:
        """One operation; those that concern nobody do nothing. Raises GuestRefused, ClientError."""
        match operation:
            case "migrate":
                self._comes(domain)
            case "prepare" | "restore" | "attach":
                self._starts(domain)
            case "start":
                self._plugged(domain)
            case "reconnect":
                self._runs(domain)
            case "release":
                self._ended(domain)

    def _comes(self, domain: Domain) -> None:
        """The guest will come here from another host: all hosts get ready for it."""
        for unit in units(self._vifs(domain)):
            self._end_stale(unit)
            try:
                self._client.prepare(unit, self._me)
            except Conflict as error:
                if error.code != "not-running":
                    raise
                self._warn(f"{unit} has no port on the host that it comes from: it is plugged here as one that starts")

    def _starts(self, domain: Domain) -> None:
        for interface in domain.interfaces:
            vif = self._vif(domain, interface)
            if vif is None or vif.incoming == self._me:
                continue  # its network is not known yet, or it is on its way here by `migrate`
            if vif.place.state in ("claimed", "ready") and vif.place.host not in (None, self._me):
                host = self._client.host(vif.place.host or "")
                if host.agent.alive:
                    raise GuestRefused(
                        f"VIF {vif.id} has its port on host {host.name}: is {domain.name} running there?"
                    )
            if vif.incoming is not None:
                self._end_stale(unit_of(vif))
            if vif.host != self._me:
                self._client.plug_vif(vif.id, self._me)

    def _plugged(self, domain: Domain) -> None:
        """The ports are there, the guest does not run yet. One that moves here waits until every host is prepared: its memory
        is copied only after."""
        vifs = self._vifs(domain)
        until = time.monotonic() + PREPARED_S
        coming = [unit for unit in units(vifs) if self._client.migration(unit).destination == self._me]
        for unit in coming:
            while (now := self._client.migration(unit)).phase == "preparing":
                if time.monotonic() > until:
                    raise GuestRefused(f"{unit} is not prepared for host {self._me}: {'; '.join(now.waiting)}")
                time.sleep(POLL_S)
            if now.destination != self._me:
                raise GuestRefused(
                    f"{unit} is not on its way to host {self._me} any more: somebody ended its migration"
                )
        if coming:
            return
        for interface in domain.interfaces:
            if interface.id not in {vif.id for vif in vifs}:
                self._made_late(domain, interface)
        until = time.monotonic() + READY_S
        for vif in self._vifs(domain):
            while (at := self._client.vif(vif.id).place).state != "ready" or at.host != self._me:
                if time.monotonic() > until:
                    reason = "; ".join(why.text for why in at.why)
                    self._warn(
                        f"VIF {vif.id} is not ready on host {self._me}, and its guest starts all the same: {reason}"
                    )
                    break
                time.sleep(POLL_S)

    def _made_late(self, domain: Domain, interface: DomainInterface) -> None:
        """A VIF whose network only the plugged port names, as that of a network of libvirt does."""
        if self._vif(domain, interface) is None and interface.bridge in ("", INTEGRATION_BRIDGE):
            self._warn(
                f"{domain.name}: there is no VIF {interface.id}, and its interface names no network: no frame will pass. "
                "'vnet vif create', or <parameters profileid='NETWORK'/> in its virtualport"
            )

    def _runs(self, domain: Domain) -> None:
        """The daemon of libvirt is back, and the guest runs here: a migration that ended meanwhile is ended in the pool."""
        for unit in units(self._vifs(domain)):
            now = self._client.migration(unit)
            if now.destination == self._me and now.phase == "active":
                self._client.finish(unit)

    def _ended(self, domain: Domain) -> None:
        """The guest is gone from here: to another host, or for good, or it never came."""
        for unit in units(self._vifs(domain)):
            now = self._client.migration(unit)
            if now.destination == self._me:
                self._abort(unit)
            elif now.destination is not None:
                self._moved(unit, now)

    def _moved(self, unit: Unit, now: api.Migration) -> None:
        """A guest ends on the host that it moves from once it runs where it moves to, also one that has announced nothing there."""
        try:
            if now.phase != "active":
                self._client.activate(unit)
            self._client.finish(unit)
        except Conflict as error:
            if error.code != "not-prepared":
                raise
            self._client.abort(unit)  # it ended here, and never ran there

    def _abort(self, unit: Unit) -> None:
        """QEMU announces a guest before libvirt lets it run. One that did, and was given up then, is aborted once its port is gone."""
        until = time.monotonic() + ABORTED_S
        while True:
            try:
                self._client.abort(unit)
                return
            except Conflict:
                if time.monotonic() > until:
                    raise
                time.sleep(POLL_S)

    def _end_stale(self, unit: Unit) -> None:
        """A migration to another host that libvirt is done with: it moves a guest to one host at a time."""
        now = self._client.migration(unit)
        if now.destination not in (None, self._me):
            self._client.finish(unit) if now.phase == "active" else self._client.abort(unit)

    def _vifs(self, domain: Domain) -> list[api.Vif]:
        """The VIFs of the domain that there are."""
        found = []
        for interface in domain.interfaces:
            with suppress(NotFound):
                found.append(self._client.vif(interface.id))
        return found

    def _vif(self, domain: Domain, interface: DomainInterface) -> api.Vif | None:
        """The VIF of an interface, made if the interface says on which network; None if there is none."""
        try:
            vif = self._client.vif(interface.id)
        except NotFound:
            network = self._network(interface)
            if network is None:
                return None
            spec = VifSpec(network=network, vm=domain.uuid, mac=interface.mac, host=self._me)
            vif = self._client.put_vif(interface.id, spec)
            self._client.change_vm(domain.uuid, VmChange(title=domain.title))
        if vif.mac != interface.mac:
            self._warn(
                f"VIF {vif.id} has MAC {vif.mac}, and {domain.name} has {interface.mac}: its frames are dropped while it is locked"
            )
        return vif

    def _network(self, interface: DomainInterface) -> str | None:
        if interface.profile:
            return interface.profile
        if interface.bridge in ("", INTEGRATION_BRIDGE):
            return None
        with suppress(NotFound):
            return self._client.plug_bridge(interface.bridge).network
        return None


def unit_of(vif: api.Vif) -> Unit:
    """What a VIF moves with."""
    return Unit.of_vm(vif.vm) if vif.vm is not None else Unit.of_vif(vif.id)


def units(vifs: Iterable[api.Vif]) -> Iterator[Unit]:
    """The units of VIFs, each once."""
    return iter(dict.fromkeys(map(unit_of, vifs)))
