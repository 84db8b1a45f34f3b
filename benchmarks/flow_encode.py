"""100,000 flows of five matches and four actions: values to wire, against os-ken's OpenFlow 1.5 encoder.

    python -m benchmarks.flow_encode [--flows N] [--runs N] [--json]

Two figures, each for both peers, one process per peer and run:
  encode      only the encoding; all flows exist as values (os-ken: as message objects, never serialized before)
  both        construction of those values, with all that each checks, and their encoding
Both peers make the same flow-mods, and the fields and actions differ from flow to flow alike.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import Figure, arguments, compare, in_process, report

FIGURES = (Figure("encode", "s", reach=10), Figure("both", "s"))


def ours() -> tuple[Callable[[int], Any], Callable[[Any], bytes]]:
    from ovsctl.openflow import DecTtl, Flow, Match, Output, SetField, encode_flow_mod

    def make(n: int) -> Flow:
        return Flow(
            Match(in_port=n & 0xFFF, eth_dst=0x0A0000000000 + n, eth_type=0x0800, ip_src="10.0.0.0/8", metadata=n),
            (SetField("eth_src", "0a:00:00:00:00:01"), SetField("tun_id", n), DecTtl(), Output(n & 0xFF)),
            table=10,
            priority=100,
            cookie=n,
        )

    return make, encode_flow_mod


def os_ken() -> tuple[Callable[[int], Any], Callable[[Any], bytes]]:
    from os_ken.ofproto import ofproto_v1_5 as ofp
    from os_ken.ofproto import ofproto_v1_5_parser as parser

    class Datapath:
        ofproto = ofp
        ofproto_parser = parser

    datapath = Datapath()

    def make(n: int) -> Any:
        match = parser.OFPMatch(
            in_port=n & 0xFFF,
            eth_dst=f"0a:00:{n >> 24 & 255:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}",
            eth_type=0x0800,
            ipv4_src=("10.0.0.0", "255.0.0.0"),
            metadata=n,
        )
        actions = [
            parser.OFPActionSetField(eth_src="0a:00:00:00:00:01"),
            parser.OFPActionSetField(tunnel_id=n),
            parser.OFPActionDecNwTtl(),
            parser.OFPActionOutput(n & 0xFF, 0),
        ]
        apply = parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions)
        return parser.OFPFlowMod(datapath, cookie=n, table_id=10, priority=100, match=match, instructions=[apply])

    def encode(message: Any) -> bytes:
        message.serialize()
        encoded: bytes = message.buf[8:]
        return encoded

    return make, encode


PEERS = {"ovsctl": ours, "os-ken": os_ken}


def measure(peer: str, count: int) -> dict[str, float]:
    """Seconds that `count` flows take."""
    make, encode = PEERS[peer]()
    for n in range(100):
        encode(make(n))
    gc.collect()
    start = time.perf_counter()
    flows = [make(n) for n in range(count)]
    made = time.perf_counter()
    size = sum(len(encode(flow)) for flow in flows)
    done = time.perf_counter()
    if size != count * 160:
        raise RuntimeError(f"{peer}: {size} bytes, not {count * 160}")
    return {"encode": done - made, "both": done - start}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--flows", type=int, default=100_000)
    parser.add_argument("--peer", choices=PEERS, help="measure one peer once, in this process")
    given = parser.parse_args()
    if given.peer:
        print(json.dumps(measure(given.peer, given.flows)))
        return
    peers = {name: in_process(__file__, "--peer", name, "--flows", str(given.flows)) for name in PEERS}
    report([compare(f"{given.flows} flows to wire", peers, FIGURES, given.runs)], given.json)


if __name__ == "__main__":
    sys.path.insert(0, ".")
    main()
