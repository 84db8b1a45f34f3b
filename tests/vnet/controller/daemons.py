"""Real controllers for tests: `vnet controller` as a process of its own, on its own database."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.forked import Forked, fork_vnet
from tests.polling import wait_until
from tests.servers import end, run_dir
from tests.vnet.controller.databases import stop_embedded
from vnet.client import Client, Unreachable
from vnet.controller.embedded import EmbeddedDatabase

REPOSITORY = Path(__file__).parents[3]

DOCUMENT = b"""\
apiVersion: vnet/v1
pool: test
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
  xen3: {address: 10.99.0.3, uplinks: {trunk0: {members: [eth7]}}}
underlay: {mtu: 1600}
networks:
  tenant: {type: vxlan}
  prod: {type: vlan, tag: 120, uplink: trunk0}
  bare: {type: vlan, tag: untagged, uplink: trunk0}
  lab: {type: internal}
"""


@dataclass
class Controller:
    """A controller under `dir`; `database` outlives it until the end of the test."""

    dir: Path
    options: tuple[str, ...] = ()
    process: Forked | None = field(default=None, repr=False)

    @property
    def database(self) -> EmbeddedDatabase:
        return EmbeddedDatabase(self.dir / "run", self.dir / "state")

    @property
    def socket(self) -> Path:
        return self.dir / "run" / "controller.sock"

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    @property
    def log(self) -> Path:
        return self.dir / "log"

    def launch(self) -> None:
        directories = ["--run-dir", str(self.dir / "run"), "--state-dir", str(self.dir / "state")]
        self.process = fork_vnet(["controller", *directories, *self.options], log=self.log)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        wait_until(self._answers, f"controller on {self.socket}: {self.log.read_text()}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the controller ended: {self.log.read_text()}")
        try:
            with self.client() as client:
                client.status()
        except Unreachable:
            return False
        return True

    def client(self) -> Client:
        return Client(self.address)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside it does nothing; its connections stay."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self, sig: int = signal.SIGTERM) -> int | None:
        """Stop it; its exit status."""
        if self.process is None:
            return None
        end(self.process, sig)
        code, self.process = self.process.returncode, None
        return code


@contextlib.contextmanager
def controller(*options: str, document: bytes | None = DOCUMENT) -> Iterator[Controller]:
    """A running controller, its pool as `document` says."""
    with run_dir() as path:
        made = Controller(path, options)
        try:
            made.start()
            if document is not None:
                with made.client() as client:
                    client.apply(document, "test.vnet.yaml", wait_s=0)
            yield made
        finally:
            made.stop(signal.SIGKILL)
            stop_embedded(made.database)
