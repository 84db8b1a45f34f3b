"""The base of all parts of a lab: its spec, its driver, its packet bridge, its daemons."""

from __future__ import annotations

from vnet.lab import dummy, netns
from vnet.lab.daemons import Daemons
from vnet.lab.packet_bridge_client import WiresClient
from vnet.lab.spec import Driver, Spec


class LabBase:
    """A lab that is up, or comes up."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.wires = WiresClient(spec.dir)
        self.daemons = Daemons(spec)
        self.driver: netns.NetnsDriver | dummy.DummyDriver = (
            netns.NetnsDriver(spec, self.wires) if spec.driver is Driver.NETNS else dummy.DummyDriver(spec, self.wires)
        )

    def _respec(self, spec: Spec) -> None:
        """Write the spec to the lab's directory, where later commands read it."""
        self.spec = self.driver.spec = self.daemons.spec = spec
        spec.write()
