"""Follows a XenServer pool: its VMs and VIFs on published networks become vnet's, and its migrations are driven.

One rule: nothing is remembered but xapi's records. Each step follows from them and from what vnet has, so that a follower that starts anew goes on where
another one stopped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from vnet.api import Vif, Vm
from vnet.client import (
    Client,
    ClientError,
    NotFound,
    PlugBridgeChange,
    QosClassSpec,
    Refused,
    Unit,
    VifChange,
    VifSpec,
    VmChange,
    VmSpec,
)
from vnet.objects.words import title_of
from vnet.xapi.claim import FollowerClaim
from vnet.xapi.inventory import EventsLost, Inventory
from vnet.xapi.records import read
from vnet.xapi.session import Connect, NotMaster, WrongCredentials, XapiError, XapiSession
from vnet.xapi.wanted import WantedVif, WantedVm, qos_name, wanted_vm

log = logging.getLogger(__name__)

RETRY_S = 1.0  # between two tries to reach xapi, or the controller
REFUSED_S = 5.0  # between two tries of credentials that were refused: more may lock the user out
# Between two looks at a step that is not through, twice as long each time; the longest that one call waits for events.
UNFINISHED_S, PATIENCE_S = 0.2, 5.0
STANDBY_S = 1.0  # between two looks of one that stands by
READ_AGAIN_S = 600.0  # after which everything is read anew, whatever events said
ORIGIN = "xapi-"
VM, NETWORK, RECORD = "vm ", "network ", "record "  # before names in problems


@dataclass(slots=True)
class Following:
    """How far a follower is. master: the address that it is connected to; read: when xapi's records were last known to be all there, by the clock that it was
    given; problems: by object. holder: the pool's follower, where this one stands by; standby: one that waits for this one's silence."""

    master: str = ""
    pool: str = ""
    read: float | None = None
    holder: str = ""
    standby: str = ""
    behind: int = 0  # VMs whose records are not carried out yet
    problems: dict[str, str] = field(default_factory=dict)


class Follower:
    """Follows one pool. addresses: of its hosts, the master first if it is known. clock: in seconds. caller: its name, which no other follower has."""

    def __init__(
        self,
        client: Client,
        connect: Connect,
        addresses: Iterable[str],
        clock: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
        caller: str = "",
    ) -> None:
        self.state: Final = Following()
        self.name: Final = caller
        self._client: Final = client
        self._connect: Final = connect
        self._addresses: Final = list(dict.fromkeys(addresses))
        self._clock: Final = clock
        self._on_change: Final = on_change
        self._claim: Final = FollowerClaim(client, caller, time.monotonic)
        self._stopped: Final = threading.Event()
        self._inventory = Inventory()
        self._session: XapiSession | None = None
        self._due: set[str] = set()  # references of the VMs to look at
        self._vnet_pool = ""
        self._sent_on = False  # by a slave, to its master

    def stop(self) -> None:
        """Ends `run` after the batch that it waits for."""
        self._stopped.set()

    def run(self) -> None:
        """Follows until stopped, through any failure of xapi and of the controller."""
        while not self._stopped.is_set():
            try:
                self._follow()
            except NotMaster as slave:
                # A slave that names its master is no problem, unless the one that it names is a slave too.
                log.info("%s: %s", self.state.master, slave)
                if self._sent_on or not slave.master:
                    self._tell("xapi", f"{self.state.master}: {slave}")
                    self._stopped.wait(RETRY_S)
                self._sent_on = bool(slave.master)
                self._prefer(slave.master)
            except WrongCredentials as error:
                self._tell("xapi", f"{self.state.master}: {error}")
                self._stopped.wait(REFUSED_S)
            except XapiError as error:
                self._tell("xapi", f"{self.state.master}: {error}")
                self._prefer("")
            except ClientError as error:
                self._tell("controller", str(error))
                self._stopped.wait(RETRY_S)
        self._claim.leave(self._origin)

    def _prefer(self, master: str) -> None:
        """Tries this address next, without one the next of those that are known."""
        if not master:
            self._addresses.append(self._addresses.pop(0))
            self._stopped.wait(RETRY_S)
            return
        if master in self._addresses:
            self._addresses.remove(master)
        self._addresses.insert(0, master)

    def _follow(self) -> None:
        """Follows one session from its first batch, which has everything. Raises XapiError, ClientError."""
        self.state.master = self._addresses[0]
        session = self._session = self._connect(self._addresses[0])
        session.open()
        self._sent_on = False
        try:
            self.state.pool = session.pool()
            self._vnet_pool = self._client.pool().id
            self._stand_by()
            self._inventory, whole, patience = Inventory(), True, UNFINISHED_S
            until = self._clock() + READ_AGAIN_S
            while self._is_due() and self._clock() < until:
                try:
                    touched = self._inventory.fold(session.batch(patience if self.state.behind else PATIENCE_S))
                except EventsLost as lost:
                    log.warning("%s: everything is read anew", lost)
                    return
                self._due |= touched
                patience = UNFINISHED_S if touched else min(2 * patience, PATIENCE_S)
                self._learn_addresses()
                self.state.read = self._clock()
                self.state.problems.pop("xapi", None)
                if whole:
                    self._due, self._inventory.gone = set(self._inventory.vms), self._strangers()
                    whole = False
                self._carry_out()
        finally:
            session.close()

    def _stand_by(self) -> None:
        """Waits until this follower is the pool's. Raises ClientError."""
        while not self._stopped.is_set() and not self._claim.held(self._origin):
            if self.state.holder != self._claim.holder:
                log.warning("stands by: the pool is followed by %s", self._claim.holder)
            self.state.holder, self.state.standby, self.state.problems = self._claim.holder, "", {}
            self._on_change()
            self._stopped.wait(STANDBY_S)
        self.state.holder = ""

    def _is_due(self) -> bool:
        """Whether it is still to follow, and nobody else. Raises ClientError."""
        if self._stopped.is_set() or not self._claim.held(self._origin):
            return False
        if self._claim.standby != self.state.standby:
            if self._claim.standby:
                log.info("%s stands by", self._claim.standby)
            self.state.standby = self._claim.standby
            self._on_change()
        return True

    def _learn_addresses(self) -> None:
        """The hosts of the pool, any of which may be its next master."""
        for host in self._inventory.hosts.values():
            if host.address and host.address not in self._addresses:
                self._addresses.append(host.address)

    def make_ahead(self, session: XapiSession, vif: str) -> WantedVm | None:
        """Makes a VIF of a network that is being taken over; gives its VM, None if that is none that is followed. Raises EventsLost, XapiError, ClientError."""
        if session is not self._session:
            self._session, self.state.pool, self._vnet_pool = session, session.pool(), self._client.pool().id
        self._inventory.fold(session.batch(0))
        found = self._inventory.vifs[vif]
        wanted = self._wanted(found.vm, frozenset({found.uuid}))
        if wanted is not None:
            self._bring(found.vm, wanted)
        return wanted

    # Carrying out

    @property
    def _origin(self) -> str:
        return ORIGIN + self.state.pool

    def _strangers(self) -> set[str]:
        """The VMs that vnet has of this pool, and xapi has not."""
        known = {vm.uuid for vm in self._inventory.vms.values()}
        return {vm.name for vm in self._client.vms() if vm.origin == self._origin and vm.name not in known}

    def _carry_out(self) -> None:
        """Brings vnet to what xapi has, VM by VM. One that fails is due again."""
        inventory, state = self._inventory, self.state
        self._name_networks()
        self._due &= inventory.vms.keys()
        names = {inventory.vms[ref].uuid: ref for ref in self._due}
        for name in sorted({*names, *inventory.gone}):
            if not self._is_due():
                return
            ref = names.get(name)
            try:
                wanted = self._wanted(ref) if ref is not None else None
                done = self._bring(ref or "", wanted) if wanted is not None else self._remove(name)
            except Refused as error:
                self._tell(VM + name, str(error))
                done = False
            if done:
                state.problems.pop(VM + name, None)
                self._due.discard(ref or "")
                inventory.gone.discard(name)
        unreadable = {f"{RECORD}{ref}": text for (_, ref), text in inventory.problems.items()}
        networks = {NETWORK + network.uuid for network in inventory.networks.values()}
        gone = [name for name in state.problems if name.startswith(NETWORK) and name not in networks]
        for name in gone + [name for name in state.problems if name.startswith(RECORD) and name not in unreadable]:
            del state.problems[name]
        for name, text in unreadable.items():
            self._tell(name, text)
        state.problems.pop("controller", None)
        state.behind = len(self._due) + len(inventory.gone)
        self._on_change()

    def _wanted(self, ref: str, more: Set[str] = frozenset()) -> WantedVm | None:
        """A VM as vnet is to have it. more: VIFs that become vnet's now."""
        inventory, known = self._inventory, more
        if any(network.is_going for network in inventory.networks.values()):
            with suppress(NotFound):
                known |= {vif.id for vif in self._client.vm(inventory.vms[ref].uuid).vifs}
        return wanted_vm(inventory, ref, self._vnet_pool, known)

    def _name_networks(self) -> None:
        """The titles of plug bridges are what people choose networks by."""
        for ref in list(self._inventory.changed):
            network = self._inventory.networks.get(ref)
            name = network.published_from(self._vnet_pool) if network is not None else ""
            if network is not None and name and not network.is_going:
                title = title_of(network.name_label)
                try:
                    if self._client.plug_bridge(network.bridge).title != title:
                        self._client.change_plug_bridge(network.bridge, PlugBridgeChange(title=title))
                    self.state.problems.pop(NETWORK + network.uuid, None)
                except NotFound:
                    self._tell(
                        NETWORK + network.uuid,
                        f"no host makes its bridge {network.bridge}: 'vnet xapi publish {name}' again, or unpublish it",
                    )
                except Refused as error:
                    self._tell(NETWORK + network.uuid, str(error))
            self._inventory.changed.discard(ref)

    def _remove(self, name: str) -> bool:
        """A VM that is gone, or has no VIF on a published network, if it had any; whether it may go."""
        try:
            found = self._client.vm(name)
        except NotFound:
            return True
        if found.origin != self._origin:
            return True
        if not all(self._may_go(name, vif) for vif in found.vifs):
            return False
        self._client.delete_vm(name)
        return True

    def _may_go(self, vm: str, vif: Vif) -> bool:
        """Whether a VIF that xapi does not have may go: xapi takes its port away before. It may only seem gone while there are records that cannot be read."""
        if vif.place.host is not None:
            self._tell(VM + vm, f"xapi has no VIF {vif.id} of it, and host {vif.place.host} has its port: it stays")
        return vif.place.host is None and not self._inventory.problems

    def _bring(self, ref: str, wanted: WantedVm) -> bool:
        """One VM; whether nothing of it is left to do."""
        found = self._made_vm(wanted)
        if found.origin is not None and found.origin != self._origin:
            if not wanted.live:
                return self._awaited_from_elsewhere(wanted, found)
            self._client.change_vm(wanted.name, VmChange(origin=self._origin))
        there = {vif.id: vif for vif in found.vifs}
        # First: a new one may have its MAC or its index.
        extra = [there[id] for id in sorted(there.keys() - {vif.id for vif in wanted.vifs})]
        going = [vif for vif in extra if self._may_go(wanted.name, vif)]
        for vif in going:
            self._client.delete_vif(vif.id)
        for each in wanted.vifs:
            self._make_vif(wanted, each, there.get(each.id))
        return self._place(ref, wanted) and going == extra

    def _awaited_from_elsewhere(self, wanted: WantedVm, found: Vm) -> bool:
        """Another pool of xapi has the VM. It is that pool's until it runs here; where this one makes room for it, the host gets ready."""
        if wanted.host is not None and {vif.incoming for vif in found.vifs} != {wanted.host}:
            self._client.prepare(Unit.of_vm(wanted.name), wanted.host)
        return True

    def _made_vm(self, wanted: WantedVm) -> Vm:
        """The VM as vnet has it, once it is there."""
        try:
            found = self._client.vm(wanted.name)
        except NotFound:
            found = self._client.put_vm(
                wanted.name, VmSpec(title=wanted.title, labels=wanted.labels, origin=self._origin)
            )
        if (found.title, found.labels) != (wanted.title, wanted.labels):
            self._client.change_vm(wanted.name, VmChange(title=wanted.title, labels=wanted.labels))
        return found

    def _make_vif(self, vm: WantedVm, wanted: WantedVif, found: Vif | None) -> None:
        if wanted.rate is not None and (found is None or found.qos != wanted.qos):
            self._client.put_qos_class(qos_name(wanted.rate), QosClassSpec(from_vm=f"{wanted.rate}kib/s"))
        fields = {
            "network": wanted.network,
            "mac": wanted.mac,
            "addresses": list(wanted.addresses),
            "locking_mode": wanted.locking_mode,
            "trunk": list(wanted.trunk) or None,
            "security_groups": list(wanted.groups),
            "qos": wanted.qos,
        }
        if found is None:
            self._client.put_vif(wanted.id, VifSpec(vm=vm.name, index=wanted.index, **fields))  # type: ignore[arg-type]
            return
        changed = {name: value for name, value in fields.items() if getattr(found, name) != value}
        if changed:
            self._client.change_vif(wanted.id, VifChange(**changed))  # type: ignore[arg-type]

    def _is_fresh(self, ref: str) -> bool:
        """Whether xapi has a VM as it is known here, before something is undone: events may be late, and another follower ahead."""
        try:
            return (
                self._session is not None
                and read("vm", self._session.call("VM.get_record", ref)) == self._inventory.vms[ref]
            )
        except XapiError as error:
            if not str(error).startswith("HANDLE_INVALID"):
                raise
            return False

    def _place(self, ref: str, wanted: WantedVm) -> bool:
        """Where the VM is: plugs follow its host, and a migration follows xapi's. Whether nothing of it is left to do."""
        unit, vifs = Unit.of_vm(wanted.name), self._client.vm(wanted.name).vifs
        incoming = {vif.incoming for vif in vifs if vif.incoming is not None}
        if wanted.destination is not None:
            if incoming != {wanted.destination}:
                self._client.prepare(unit, wanted.destination)
            return True  # xapi's next word ends it
        if wanted.host is not None and incoming == {wanted.host}:
            self._client.activate(unit)
            return self._client.finish(unit).phase == "none"
        if incoming:
            if not self._is_fresh(ref):
                return False
            self._client.abort(unit)
        for vif in vifs:
            if wanted.host is None and vif.host is not None and vif.place.host is None:  # its port is away by now
                self._client.unplug_vif(vif.id)
            elif wanted.host is not None and vif.host != wanted.host:
                self._client.plug_vif(vif.id, wanted.host)
        return wanted.host is not None or all(vif.host is None for vif in vifs)

    def _tell(self, place: str, text: str) -> None:
        if self.state.problems.get(place) != text:
            log.warning("%s: %s", place, text)
            self.state.problems[place] = text
            self._on_change()
