"""100,000 flows of five matches and four actions into ovs-vswitchd in one bundle, against ovs-ofctl.

`python -m benchmarks.flow_bundle`. Ours starts from Flow values and encodes them; ovs-ofctl starts from a file
of text. Both times are the wall time until the switch has committed; the process of ovs-ofctl is included, since
without it there is no way to call it. Both empty the same real ovs-vswitchd (dummy datapath) between runs.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

from benchmarks.common import Figure, arguments, compare, report
from ovsctl.openflow import Flow, FlowMod, Match, Output, SetField
from ovsctl.openflow.client import OpenFlowClient
from tests.ovsctl.openflow.support import Bridge, bridge

FLOWS = 100_000


def flows(count: int) -> list[Flow]:
    """Flows of five matches and four actions, each with its own source address."""
    return [
        Flow(
            Match(in_port=1, eth_type=0x0800, ip_src=0x0A000000 + n, ip_proto=6, tcp_dst=80),
            (SetField("reg0", n), SetField("reg1", 7), SetField("metadata", n), Output(2)),
            priority=100,
            cookie=n,
        )
        for n in range(count)
    ]


def text(count: int) -> str:
    """The same flows as ovs-ofctl reads them."""
    return "".join(
        f"cookie={n},priority=100,tcp,in_port=1,nw_src={10}.{n >> 16}.{n >> 8 & 255}.{n & 255},tp_dst=80,"
        f"actions=set_field:{n}->reg0,set_field:7->reg1,set_field:{n}->metadata,output:2\n"
        for n in range(count)
    )


def ours(br: Bridge, desired: list[Flow]) -> dict[str, float]:
    async def run() -> float:
        async with OpenFlowClient(br.remote, timeout_s=300) as of:
            started = time.perf_counter()
            await of.bundle([FlowMod.add(flow) for flow in desired])
            taken = time.perf_counter() - started
            _check((await of.aggregate()).n_flows, len(desired))
            return taken

    br.ofctl("del-flows")
    return {"wall_s": asyncio.run(run())}


def theirs(br: Bridge, file: Path, count: int) -> dict[str, float]:
    br.ofctl("del-flows")
    command = ["ovs-ofctl", "-vconsole:err", "-O", "OpenFlow15", "--bundle", "add-flows", br.remote, str(file)]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    taken = time.perf_counter() - started
    _check(int(br.ofctl("dump-aggregate").rpartition("flow_count=")[2]), count)
    return {"wall_s": taken}


def _check(found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"{found} flows in the switch, not {expected}")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--flows", type=int, default=FLOWS)
    options = parser.parse_args()
    desired = flows(options.flows)
    with bridge() as br:
        file = br.switch.server.dir / "flows.txt"
        file.write_text(text(options.flows))
        peers = {
            "ovsctl bundle": lambda: ours(br, desired),
            "ovs-ofctl --bundle add-flows": lambda: theirs(br, file, options.flows),
        }
        figures = [Figure("wall_s", "s", reach=1.0)]
        result = compare(f"{options.flows} flows in one bundle", peers, figures, options.runs)
    report([result], options.json)


if __name__ == "__main__":
    main()
