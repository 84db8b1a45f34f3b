"""`vnet lab`: a pool on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vnet.cli.exits import CommandError, ExitCode
from vnet.cli.output import echo

if TYPE_CHECKING:
    from vnet.lab import Lab
    from vnet.objects import PoolState
    from vnet.topology.document import Document

F = TypeVar("F", bound=Callable[..., Any])


def name_option(function: F) -> F:
    """`--name`: which lab. Left out, it is the one that is up."""
    return click.option("--name", envvar="VNET_LAB_NAME", metavar="LAB", help="Which lab, where several are up.")(
        function
    )


def reports_errors(function: F) -> F:
    """A lab's error is one line and exit code 1."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from vnet.lab import LabError  # noqa: PLC0415 - the group must load fast

        try:
            return function(*args, **kwargs)
        except LabError as error:
            raise CommandError(str(error)) from error

    return wrapped  # type: ignore[return-value]


def find(name: str | None) -> Lab:
    """The lab of this name, or the only one. Raises LabError, CommandError."""
    from vnet.lab import Lab, labs  # noqa: PLC0415

    if name is not None:
        return Lab.attach(name)
    up = labs()
    if not up:
        raise CommandError("no lab is up: 'vnet lab up FILE' starts one")
    if len(up) > 1:
        raise CommandError(f"several labs are up ({', '.join(up)}): choose one with --name", ExitCode.USAGE)
    return Lab.attach(up[0])


def document_of(file: Path) -> tuple[Document, PoolState]:
    """A document and the pool it describes. Raises CommandError with all of the document's errors."""
    from vnet.objects import PoolState as State  # noqa: PLC0415
    from vnet.plan import desired_state  # noqa: PLC0415
    from vnet.topology import TopologyErrors, load, read_file  # noqa: PLC0415

    try:
        document = load(read_file(file), str(file))
        return document, desired_state(document, State())
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", ExitCode.INVALID_INPUT) from error
    except TopologyErrors as error:
        raise CommandError(str(error), ExitCode.INVALID_INPUT) from error


@click.group()
def lab() -> None:
    """A pool on this machine, to try and to test with: hosts, their network, VMs."""


@lab.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="LAB", help="The lab's name; the pool's name if left out.")
@click.option("--driver", type=click.Choice(["netns", "dummy"]), default="netns", show_default=True)
@reports_errors
def up(file: Path, name: str | None, driver: str) -> None:
    """Build the hosts and VMs of document FILE and start them."""
    from vnet.lab import Driver, Lab  # noqa: PLC0415

    _, pool = document_of(file)
    chosen = name or (pool.pool.name if pool.pool else "lab")
    built = Lab.up(pool, name=chosen, driver=Driver(driver), daemons=True, document=str(file.resolve()))
    try:
        built.start_all()
    except BaseException:
        built.down()
        raise
    hosts, vms = len(built.spec.hosts), len(built.spec.guests)
    echo(f"lab {chosen} is up: {hosts} hosts, {vms} VMs; 'vnet lab status' shows it", err=True)
    echo(f"its controller: export VNET_CONTROLLER=unix:{built.daemons.controller_socket}", err=True)


@lab.command()
@name_option
@click.option("--all", "every", is_flag=True, help="All labs of this user.")
@reports_errors
def down(name: str | None, every: bool) -> None:
    """Remove a lab: processes, namespaces, devices, files. Also the remains of one that crashed."""
    from vnet.lab import labs, remove  # noqa: PLC0415

    if every and name is not None:
        raise click.UsageError("--all and --name exclude each other")
    for one in labs() if every else [name or find(None).spec.name]:
        remove(one)
        echo(f"lab {one} is down", err=True)


@lab.command(name="list")
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")
def list_labs(output: str) -> None:
    """The labs that are up, or half up after a crash."""
    from vnet.lab import labs  # noqa: PLC0415

    echo(json.dumps(labs()) if output == "json" else "\n".join(labs()), nl=output == "json" or bool(labs()))


@lab.command(context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("vm")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@reports_errors
def exec(name: str | None, vm: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in a VM, as in: vnet lab exec web1 -- ping 10.1.0.11"""
    found = find(name)
    replace_by(found.vm_argv(vm, command), found.vm_env())


@lab.command(context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@reports_errors
def host(name: str | None, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on a host: ovs-vsctl, ovs-ofctl and ovs-appctl reach its Open vSwitch, vnet its agent and the controller."""
    found = find(name)
    replace_by(found.host_argv(host, command), found.host_env(host))


def replace_by(argv: list[str], env: dict[str, str]) -> None:
    """Become the command, so that its exit code, signals and terminal are its own."""
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, {**os.environ, **env})  # noqa: S606 - the person's own command
    except OSError as error:
        raise CommandError(f"{argv[0]}: {error.strerror}", ExitCode.FAILED) from error


@lab.command()
@name_option
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Of 127.0.0.1.")
@reports_errors
def web(name: str | None, port: int) -> None:
    """Serve the lab's web page to this machine until Ctrl-C, by a controller of its own, and print a token for it."""
    from vnet import api  # noqa: PLC0415
    from vnet.client import Client  # noqa: PLC0415 - loads an HTTP library

    found = find(name)
    if not found.spec.daemons:
        raise CommandError(f"lab {found.spec.name} has no controller")
    with Client(f"unix:{found.daemons.controller_socket}") as client:
        token = client.make_token("lab-web", api.TokenCall(role="network-admin", days=1.0, replace=True)).secret
    echo(f"http://127.0.0.1:{port}/ with the token\n{token}")
    own = found.spec.dir / "web"
    directories = ["--run-dir", str(own), "--state-dir", str(own)]
    sockets = ["--pool", f"unix:{found.daemons.pool_socket}", "--listen", f"tcp:127.0.0.1:{port}"]
    replace_by([sys.executable, "-m", "vnet.cli.main", "controller", *directories, *sockets], found.daemons.env)


@lab.command()
@name_option
@click.argument("vm")
@reports_errors
def pause(name: str | None, vm: str) -> None:
    """Pause a VM: it neither sends nor receives, and nothing announces it."""
    find(name).pause(vm)


@lab.command()
@name_option
@click.argument("vm")
@reports_errors
def resume(name: str | None, vm: str) -> None:
    """Let a paused VM run on."""
    find(name).resume(vm)


@lab.command()
@name_option
@click.argument("vm")
@click.option("--on", "host", metavar="HOST", help="Another host than the document's.")
@reports_errors
def start(name: str | None, vm: str, host: str | None) -> None:
    """Start a VM, as a toolstack does: plug its VIFs, and let its guest run."""
    find(name).start(vm, host)


@lab.command()
@name_option
@click.argument("vm")
@reports_errors
def stop(name: str | None, vm: str) -> None:
    """Stop a VM: its guest runs no more, and its ports go."""
    find(name).stop(vm)


@lab.command()
@name_option
@click.argument("host")
@reports_errors
def crash(name: str | None, host: str) -> None:
    """Take a HOST's power away, and that of the VMs on it."""
    find(name).lose_power(host)


@lab.command()
@name_option
@click.argument("host")
@reports_errors
def boot(name: str | None, host: str) -> None:
    """Start a crashed HOST again. VMs that ran on it stay off."""
    find(name).boot_host(host)


@lab.command()
@name_option
@click.argument("vm")
@click.option("--to", "host", required=True, metavar="HOST", help="The destination.")
@click.option("--pause-ms", default=0, show_default=True, help="How long the guest stands still at the switch-over.")
@reports_errors
def migrate(name: str | None, vm: str, host: str, pause_ms: int) -> None:
    """Migrate a running VM, as a toolstack does: `vnet vm migrate` moves VIFs, but nobody's guest."""
    from vnet.api.errors import ClientError  # noqa: PLC0415 - loads an HTTP library

    try:
        find(name).migrate(vm, host, pause_s=pause_ms / 1000)
    except ClientError as error:
        raise CommandError(str(error)) from error
    echo(f"{vm} runs on {host}", err=True)


@lab.command()
@name_option
@click.argument("link", required=False)
@click.option("--delay", "delay_ms", type=click.FloatRange(0, 10_000), default=0, metavar="MS", help="So many milliseconds later, each way.")  # fmt: skip
@click.option("--loss", "loss_percent", type=click.FloatRange(0, 100), default=0, metavar="PERCENT", help="Of the frames, each way.")  # fmt: skip
@click.option("--rate", metavar="RATE", help="As 10mbit, each way.")
@click.option("--mtu", type=click.IntRange(68, 9216), metavar="BYTES", help="Of IP packets: what is larger is lost.")
@click.option("--without-vlan", "without_vlans", type=click.IntRange(0, 4094), multiple=True, metavar="TAG", help="Frames of this VLAN are lost, 0: those without a tag. May be given several times.")  # fmt: skip
@click.option("--cut", is_flag=True, help="Nothing passes; a NIC has no link.")
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")
@reports_errors
def impair(name: str | None, link: str | None, rate: str | None, output: str, **faults: Any) -> None:
    """Make a LINK late, lossy, slow, narrow or dead, at once; without options a cable again. Without LINK, list those that are none.

    LINK is xen1:underlay (to the other hosts), xen1:database, a NIC as xen1:eth1, or a VIF as web1/0.
    """
    from vnet.lab.impairments import Impairment  # noqa: PLC0415

    found = find(name)
    if link is not None:
        found.impair(link, Impairment(rate_bps=rate_of(rate), **faults))
        return
    listed = found.impaired()
    if output == "json":
        echo(json.dumps({key: item.as_request() for key, item in listed.items()}, indent=2))
    else:
        echo("\n".join(f"{key}: {item}" for key, item in listed.items()), nl=bool(listed))


def rate_of(text: str | None) -> int | None:
    """Bits per second of a rate such as 10mbit."""
    from vnet.grammar.value_types import ValueRefused  # noqa: PLC0415
    from vnet.objects.qos import RATE  # noqa: PLC0415

    try:
        return None if text is None else RATE.parse(text)
    except ValueRefused as error:
        raise click.BadParameter(error.message, param_hint="--rate") from error


@lab.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="LAB", default="demo", show_default=True)
@reports_errors
def demo(file: Path, name: str) -> int:
    """Show a pool at work: start document FILE, measure reachability, migrate a VM, repair a host; then take it down."""
    from vnet.lab.demo import run_demo  # noqa: PLC0415

    document, pool = document_of(file)
    return int(ExitCode.OK if run_demo(document, pool, file, name, echo) else ExitCode.EXPECTATION_FAILED)


@lab.command()
@name_option
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")
@reports_errors
def status(name: str | None, output: str) -> None:
    """Namespaces, interfaces, addresses, sockets and processes of a lab's hosts and VMs."""
    from vnet.lab.status import status as describe  # noqa: PLC0415

    found = describe(find(name))
    echo(json.dumps(found, indent=2) if output == "json" else as_text(found))


@lab.group()
def scenario() -> None:
    """Pools with a fault, to learn with: find it, mend it, have it checked."""


@scenario.command(name="list")
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")
def list_scenarios(output: str) -> None:
    """The scenarios that there are."""
    from vnet.lab.scenarios import SCENARIOS  # noqa: PLC0415

    listed = {item.name: item.title for item in SCENARIOS.values()}
    width = max(map(len, listed))
    echo(
        json.dumps(listed)
        if output == "json"
        else "\n".join(f"{key:{width}}  {title}" for key, title in listed.items())
    )


@scenario.command(name="start")
@click.argument("scenario_name", metavar="SCENARIO")
@click.option("--name", metavar="LAB", help="The lab's name; the scenario's if left out.")
@click.option("--to", "file", type=click.Path(path_type=Path), metavar="FILE", help="Where the document is written, SCENARIO.vnet.yaml if left out.")  # fmt: skip
@reports_errors
def start_scenario(scenario_name: str, name: str | None, file: Path | None) -> None:
    """Start a lab with the fault of SCENARIO, and say what is to be done."""
    from vnet.lab.scenarios import Lesson, scenario_named  # noqa: PLC0415

    found = scenario_named(scenario_name)
    lesson = Lesson.start(found, name or found.name, file or Path(f"{found.name}.vnet.yaml"))
    echo(f"export VNET_CONTROLLER=unix:{lesson.lab.daemons.controller_socket}")
    echo(f"\n{found.task.replace('FILE', str(lesson.file))}\n", err=True)
    echo(f"Its document is {lesson.file}. 'vnet lab scenario hint', 'vnet lab scenario check', at last 'vnet lab down'.", err=True)  # fmt: skip


@scenario.command()
@name_option
@reports_errors
def task(name: str | None) -> None:
    """Say again what is to be done."""
    from vnet.lab.scenarios import Lesson  # noqa: PLC0415

    lesson = Lesson.of(find(name))
    echo(lesson.scenario.task.replace("FILE", str(lesson.file)))


@scenario.command()
@name_option
@reports_errors
def hint(name: str | None) -> None:
    """Give the next hint. The last one is the commands that mend it."""
    from vnet.lab.scenarios import Lesson  # noqa: PLC0415

    echo(Lesson.of(find(name)).hint() or "There are no more hints.")


@scenario.command(name="check")
@name_option
@reports_errors
def check_scenario(name: str | None) -> int:
    """Send packets, and say what does not work yet. Exits with 3 unless it is solved."""
    from vnet.lab.scenarios import Lesson  # noqa: PLC0415

    still = Lesson.of(find(name)).open()
    echo("\n".join(still) or "Solved. 'vnet lab down' removes the lab.")
    return int(ExitCode.EXPECTATION_FAILED if still else ExitCode.OK)


def as_text(found: dict[str, Any]) -> str:
    """A status for people."""
    lines = [f"lab {found['name']} ({found['driver']}) in {found['directory']}; wires {found['wires']}"]
    for name, host in found["hosts"].items():
        running = ", ".join(f"{server} {pid or 'not running'}" for server, pid in host["processes"].items())
        uplinks = ", ".join(f"{uplink} ({' '.join(nics)})" for uplink, nics in host["uplinks"].items())
        lines.append(
            f"host {name}: {host['address'] or 'no VTEP'}; {uplinks or 'no uplinks'}; netns {host['netns']}; {running}"
        )
    for name, vm in found["vms"].items():
        state = "paused on" if vm["paused"] else "on"
        where = f"{state} {vm['host']}" if vm["host"] else "not started"
        lines.append(f"VM {name}: {where}; netns {vm['netns']}")
        lines += [
            f"  {device}: {nic['network']} {nic['mac']} {' '.join(nic['addresses'])}"
            for device, nic in vm["interfaces"].items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    lab()
