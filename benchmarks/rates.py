"""Rate limits in a lab: what passes of UDP at 1.3 times the rate and of TCP with 1 and 16 streams, as a share of the rate.

`python -m benchmarks.rates [--rates 10mbit 100mbit] [--seconds 4]`. Two guests on two hosts of a VXLAN network, by their kernels. The
receiver counts payload once the burst is used up; shares are of whole Ethernet frames, as meters count them. Reach: UDP 0.95 to 1.05,
TCP 0.90 to 1.10 with the default burst.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import arguments
from vnet.lab import Driver, Lab
from vnet.objects import Host, Network, NetworkType, Pool, PoolState, QosClass, Vif, Vm
from vnet.objects.qos import RATE

MTU = 1450
UDP_PAYLOAD = MTU - 28
UDP_FRAME, TCP_FRAME, TCP_PAYLOAD = MTU + 14, MTU + 14, MTU - 52
SKIPPED_S = 2.0  # at 1.3 times the rate the burst of half a second is used up in 1.7 s
PORT = 5000

RECEIVE = """
import selectors, socket, sys, time
kind, skip, seconds, port = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
chosen = selectors.DefaultSelector()
if kind == "udp":
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    listening.bind(("0.0.0.0", port))
else:
    listening = socket.create_server(("0.0.0.0", port), backlog=64)
chosen.register(listening, selectors.EVENT_READ)
print("ready", flush=True)
begun, got = None, 0
while begun is None or time.monotonic() < begun + skip + seconds:
    for key, _ in chosen.select(0.05):
        if key.fileobj is listening and kind == "tcp":
            chosen.register(listening.accept()[0], selectors.EVENT_READ)
            continue
        size = len(key.fileobj.recv(1 << 16))
        begun = begun or time.monotonic()
        if time.monotonic() > begun + skip:
            got += size
print(got * 8 / seconds, flush=True)
"""
SEND = """
import socket, sys, threading, time
kind, address, bps = sys.argv[1], sys.argv[2], float(sys.argv[3])
streams, port, size = map(int, sys.argv[4:])
def tcp():
    with socket.create_connection((address, port), 10) as peer:
        while True:
            peer.sendall(bytes(1 << 16))
if kind == "tcp":
    for _ in range(streams):
        threading.Thread(target=tcp, daemon=True).start()
    time.sleep(3600)
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
begun, sent = time.monotonic(), 0
while True:
    while sent < (time.monotonic() - begun) * bps / 8:
        sent += peer.sendto(bytes(size), (address, port))
    time.sleep(0.002)
"""


def pool_of(qos: QosClass) -> PoolState:
    hosts = {name: Host(name, f"10.99.0.{at}") for at, name in enumerate(("xen1", "xen2"), 1)}
    vms = {"a": Vm("a", "xen1"), "b": Vm("b", "xen2")}
    vifs = {
        f"{vm}/0": Vif(
            f"{vm}/0", "t", f"0a:00:00:00:00:0{at}", vm, 0, (f"10.1.0.{at}",), qos=qos.name if vm == "a" else None
        )
        for at, vm in enumerate(vms, 1)
    }
    networks = {"t": Network("t", NetworkType.VXLAN, 1, MTU, key=5001)}
    return PoolState(Pool("rates"), hosts, networks, vms=vms, vifs=vifs, qos={qos.name: qos})


def measured(lab: Lab, source: str, target: str, kind: str, streams: int, rate_bps: int, seconds: float) -> float:
    """The share of a rate that arrives, in bits of Ethernet frames."""
    argv = [sys.executable, "-c", RECEIVE, kind, str(SKIPPED_S), str(seconds), str(PORT)]
    receiver = subprocess.Popen(lab.vm_argv(target, argv), env=lab.vm_env(), stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    receiver.stdout.readline()
    address = lab.vif(f"{target}/0").addresses[0]
    offered_bps = 1.3 * rate_bps * UDP_PAYLOAD / UDP_FRAME
    words = [kind, address, str(offered_bps), str(streams), str(PORT), str(UDP_PAYLOAD)]
    sender = lab.popen_in_vm(source, sys.executable, "-c", SEND, *words)
    try:
        payload_bps = float(receiver.stdout.readline())
    finally:
        for process in (sender, receiver):
            process.kill()
            process.wait()
    frames = UDP_FRAME / UDP_PAYLOAD if kind == "udp" else TCP_FRAME / TCP_PAYLOAD
    return payload_bps * frames / rate_bps


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rates", nargs="*", default=["10mbit", "100mbit"])
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    print(f"{'rate':>8} {'way':>8} {'UDP':>6} {'TCP, 1':>7} {'TCP, 16':>8}")
    for text in options.rates:
        rate_bps = RATE.parse(text)
        with Lab.up(pool_of(QosClass("q", rate_bps, rate_bps)), driver=Driver.NETNS, daemons=True) as lab:
            lab.start_all()
            lab.wait_ready()
            for way, source, target in (("from-vm", "a", "b"), ("to-vm", "b", "a")):
                runs = (("udp", 1), ("tcp", 1), ("tcp", 16))
                shares = [measured(lab, source, target, kind, n, rate_bps, options.seconds) for kind, n in runs]
                print(f"{text:>8} {way:>8} {shares[0]:6.3f} {shares[1]:7.3f} {shares[2]:8.3f}", flush=True)


if __name__ == "__main__":
    main()
