"""The commands of a page, run as they stand on bare machines: `# on xen1 xen2` names those of a block.

One rule: a machine differs from a real host in its kernel alone, which has no Open vSwitch. So the datapath is the userspace one, and
the host's address is on a bridge that is there before.
"""

from __future__ import annotations

import doctest
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.debian.machines import ROOT, Machine
from tests.polling import wait_until

# A comment of a page is what happened before: <!-- on xen3: systemctl poweroff -->
EVENT = r"<!-- on (?P<where>\w+): (?P<event>.*?) -->\n"
CODE = r"```(?:sh\n# on (?P<hosts>[\w ]+)|(?P<yaml>yaml))\n(?P<text>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?"
BLOCK = re.compile(f"^(?:{EVENT}|{CODE})", re.M | re.S)
INVITATION = re.compile(r"echo (vnet1\.\S+) \| vnet host join")  # printed on one machine, and run on another
ADDRESSES = {"xen1": "10.0.0.1", "xen2": "10.0.0.2", "xen3": "10.0.0.3"}
# The machines reach no package source. What Python has compiled once, on any of them, is current wherever the same packages come.
PRELUDE = r"""
cd /root
apt-get() {
    shift 2
    dpkg --unpack "$@" >/dev/null
    [ ! -e compiled.tar ] || tar x -C /usr/lib/vnet -f compiled.tar
    dpkg --configure -a >/dev/null
    (cd /usr/lib/vnet; find . -name __pycache__ | tar c -T - -f /root/compiled.tar)
}
"""
UNDERLAY = """
ovs-vsctl add-br br-underlay -- set bridge br-underlay datapath_type=netdev -- add-port br-underlay eth0
ip address add {address}/24 dev br-underlay
ip link set eth0 up
ip link set br-underlay up
"""
SWITCH = "ip link set lo up; ip link add name lan type bridge; ip link set lan up; echo ready; exec sleep infinity"


@contextmanager
def network() -> Iterator[int]:
    """A switch of its own namespace; its process."""
    command = ["unshare", "-n", "--kill-child=SIGKILL", "--fork", "sh", "-c", SWITCH]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield int(child)
        finally:
            process.kill()


@contextmanager
def three_hosts(root: Path, debs: list[Path], work: Path) -> Iterator[Mapping[str, Machine]]:
    """Three machines on one network, each with the packages in /root, and nothing of them installed."""
    with ExitStack() as stack:
        switch = stack.enter_context(network())
        machines = {name: stack.enter_context(Machine(name, root, work)) for name in ADDRESSES}
        for name, machine in machines.items():
            machine.boot()
            machine.put(*debs)
            end = f"link add {name} type veth peer name eth0 netns {machine.pid}"
            for line in (end, f"link set {name} master lan up"):
                subprocess.run(["nsenter", "-t", str(switch), "-n", "ip", *line.split()], check=True)
            machine.run(UNDERLAY.format(address=ADDRESSES[name]))
            _use_userspace(machine)
        yield machines


def _use_userspace(machine: Machine) -> None:
    (command,) = re.findall(r"^ExecStart=.*$", (ROOT / "packaging/vnet-agent.service").read_text(), re.M)
    command = command.replace("$VNET_AGENT_OPTIONS", "--datapath-type netdev $VNET_AGENT_OPTIONS")
    directory = Path(f"/proc/{machine.pid}/root/etc/systemd/system/vnet-agent.service.d")
    directory.mkdir(parents=True)
    (directory / "userspace.conf").write_text(f"[Service]\nExecStart=\n{command}\n")


def run_page(page: str, machines: Mapping[str, Machine]) -> int:
    """Runs all blocks in their order, and returns how many there are. Output is compared where the page has it; hosts see each other's
    changes a moment later, so a block with output is repeated until it agrees."""
    found = list(BLOCK.finditer((ROOT / "docs" / page).read_text()))
    invitation = ""
    for block in found:
        if block["event"]:
            machines[block["where"]].run(f"cd /root; {block['event']}", check=block["event"] != "systemctl poweroff")
        elif block["yaml"]:
            (Path(f"/proc/{machines['xen1'].pid}/root/root") / "pool.vnet.yaml").write_text(block["text"])
        else:
            script = PRELUDE + block["text"].replace("vnet1.…", invitation)
            for host in block["hosts"].split():
                printed = _run(script, block["output"], machines[host])
                invitation = next(iter(INVITATION.findall(printed)), invitation)
                if "apt-get install" in script:
                    _spread_compiled(machines[host], machines.values())
    return len(found)


def _spread_compiled(source: Machine, machines: Iterable[Machine]) -> None:
    """Give other machines the code that Python compiled on this one, for what they install later."""
    file = Path(f"/proc/{source.pid}/root/root/compiled.tar")
    for machine in machines:
        if machine is not source and machine.pid:  # one may be off
            machine.put(file)


def _run(script: str, output: str | None, machine: Machine) -> str:
    """What a block prints, once it is what the page has."""
    if output is None:
        return machine.run(script)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

    printed = ""

    def agrees() -> bool:
        nonlocal printed
        printed = machine.run(script)
        return doctest.OutputChecker().check_output(output, printed + "\n", options)

    try:
        wait_until(agrees, f"on {machine.name}: {script} to print\n{output}")
    except TimeoutError as error:
        error.add_note(f"instead of\n{printed}")
        raise
    return output
