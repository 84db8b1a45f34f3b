"""Many connections of others in a kernel's tracker: what emptying one VIF's zone costs then, a plug, and a restart of agent and switch.

`python -m benchmarks.zone_flush [--connections 0 25000 100000] [--runs 5]`. In the virtual machine of `make test-kernel`, a lab of two hosts on Open vSwitch's
kernel datapath; the connections are entered by netlink into a zone of nobody's on the host that is measured.

empty_ms: `dpctl/flush-conntrack` of a zone with 10 connections; ovs-vswitchd does nothing else meanwhile. plug_ms: a VIF in a security group, from the port till it
is ready. restart_s: agent and ovs-vswitchd are killed and started again, till all VIFs are ready. kept: of the others' connections, after all of it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from benchmarks.common import Figure, Result, arguments, report
from ovsctl.appctl import call_sync
from tests.kernel.machine import ROOT, run
from tests.kernel.test_tracker import restart_both
from tests.vnet.packets.engines import running
from vnet.lab import Lab
from vnet.lab.processes import in_netns

DOCUMENT = b"""
apiVersion: vnet/v1
pool: zones
hosts: {xen1: {address: 10.99.0.1}, xen2: {address: 10.99.0.2}}
networks: {lan: {type: geneve}}
security-groups: {web: {default: {ingress: drop}}}
vms:
  srv: {host: xen1, vifs: [{network: lan, security-groups: [web]}]}
  more: {host: xen1, vifs: [{network: lan, security-groups: [web]}]}
"""
FIGURES = (Figure("empty_ms", "ms"), Figure("plug_ms", "ms"), Figure("restart_s", "s"), Figure("kept", "connections"))
OTHERS, EMPTIED = 60_000, 60_001  # zones
ENTER = """
import sys
from vnet.agent.kernel_tracker import take_in
from vnet.db.handovers import TrackedConnection
zone, count = map(int, sys.argv[1:])
many = [TrackedConnection(17, b"\\n\\0\\0\\1", b"\\n" + n.to_bytes(3), (n % 60000 + 1, 53), 36000) for n in range(count)]
for at in range(0, count, 1000):
    assert take_in(zone, many[at : at + 1000]) == 0
"""


def enter(lab: Lab, zone: int, count: int) -> None:
    command = in_netns(lab.host_netns("xen1"), [sys.executable, "-c", ENTER, str(zone), str(count)])
    subprocess.run(command, check=True, cwd=ROOT)


def in_zone(lab: Lab, zone: int) -> int:
    text = lab.ovs("xen1").appctl("dpctl/ct-stats-show", f"zone={zone}")
    return int(text.split("Total:")[1].split()[0]) if "Total:" in text else 0


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def measure(lab: Lab, count: int, runs: int) -> Result:
    if count:
        enter(lab, OTHERS, count)
    control = lab.ovs("xen1").dir / f"ovs-vswitchd.{lab.ovs('xen1').pid('ovs-vswitchd')}.ctl"
    empty, plug = [], []
    for _ in range(runs):
        enter(lab, EMPTIED, 10)
        empty.append(timed(lambda: call_sync(control, "dpctl/flush-conntrack", f"zone={EMPTIED}")) * 1000)
    for _ in range(runs):
        lab.run("more", None)
        lab.unplug("more", "xen1")
        lab.daemons.settle()
        plug.append(timed(lambda: (lab.plug("more", "xen1"), lab.wait_ready("more"))) * 1000)
        lab.run("more", "xen1")
    restart = timed(lambda: restart_both(lab))
    figures = {"empty_ms": median(empty), "plug_ms": median(plug), "restart_s": restart, "kept": in_zone(lab, OTHERS)}
    return Result(f"beside {count:,} connections", FIGURES, {"vnet": figures}, runs)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--connections", type=int, nargs="*", default=[0, 25_000, 100_000])
    parser.add_argument("--here", action="store_true", help="on this machine's kernel, which has Open vSwitch")
    options = parser.parse_args()
    if not options.here:
        words = [sys.executable, "-m", "benchmarks.zone_flush", "--here", *sys.argv[1:]]
        sys.exit(run(f"cd {shlex.quote(str(ROOT))} && exec {shlex.join(words)}"))
    os.environ["VNET_LAB_DATAPATH_TYPE"] = "system"
    subprocess.run(["sysctl", "-qw", "net.netfilter.nf_conntrack_max=400000"], check=True)
    results = []
    for count in options.connections:
        with running("netns", DOCUMENT) as lab:
            if not isinstance(lab, Lab):
                raise TypeError("no lab in namespaces")
            results.append(measure(lab, count, options.runs))
    report(results, options.json)


if __name__ == "__main__":
    main()
