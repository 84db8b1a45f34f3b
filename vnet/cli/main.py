"""The `vnet` command: its groups, loaded only when used, and its exit codes.

One rule: nothing heavy is imported here, so that `vnet --help`, completion and short commands start at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vnet import VERSION
from vnet.cli.exits import CommandError, ExitCode, colour
from vnet.cli.options import FORMATS, RootOptions, with_connection

LOCAL = (
    "validate",
    "schema",
    "explain",
    "fmt",
    "doctor",
    "pool",
    "pki",
    "lab",
    "controller",
    "agent",
    "wireguard",
    "completion",
)  # call no controller
# Command: (module and attribute, one line of help).
COMMANDS: dict[str, tuple[str, str]] = {
    "validate": ("vnet.cli.topology:validate", "Check a topology document; changes nothing."),
    "schema": ("vnet.cli.topology:schema", "Print the JSON Schema of topology documents."),
    "explain": ("vnet.cli.explain:explain", "Say what a key of topology documents means."),
    "fmt": ("vnet.cli.fmt:fmt", "Lay topology documents out; comments stay."),
    "plan": ("vnet.cli.topology:plan", "Show what applying a document would change, and why."),
    "apply": ("vnet.cli.topology:apply", "Make the pool as a document says."),
    "export": ("vnet.cli.topology:export", "Write the pool as a document."),
    "trace": ("vnet.cli.trace:trace", "Follow a packet through the pool: why it arrives, or does not."),
    "capture": ("vnet.cli.capture:capture", "Capture the frames of VIFs, wherever they are, into one file."),
    "check": ("vnet.cli.check:check", "Check a document's expectations on its twin."),
    "matrix": ("vnet.cli.check:matrix", "Reachability of every pair: a table, JSON or a picture."),
    "status": ("vnet.cli.show:status", "The pool, and everything in it that is not as desired."),
    "doctor": ("vnet.cli.doctor:doctor", "Examine this host: what is wrong around its agent, and what to do."),
    "show": ("vnet.cli.show:show", "List objects, bindings or a host's flows."),
    "events": ("vnet.cli.show:events", "The events of the pool."),
    "history": ("vnet.cli.history:history", "The changes of the pool: who made them, from where, why."),
    "bisect": ("vnet.cli.bisect:bisect", "Name the change that broke a way between two VMs."),
    "diff": ("vnet.cli.history:diff", "What differs between the pool at two revisions, or times."),
    "rollback": ("vnet.cli.topology:rollback", "Make the pool what it was at a revision."),
    "confirm": ("vnet.cli.trial:confirm", "Keep the revision that is on trial ('vnet apply --try')."),
    "revert": ("vnet.cli.trial:revert", "Take the revision that is on trial back."),
    "token": ("vnet.cli.token:token", "Tokens of people and toolstacks: make, list, revoke."),
    "host": ("vnet.cli.host:host", "Hosts: list, make, change, delete, evacuate."),
    "network": ("vnet.cli.nouns:network", "Networks: list, make, change, delete."),
    "subnet": ("vnet.cli.nouns:subnet", "Subnets: list, make, change, delete."),
    "security-group": ("vnet.cli.security_group:security_group", "Security groups: list, make, change, delete, count."),
    "policy": ("vnet.cli.policy:policy", "What groups in monitor mode would forbid, and rules that would allow it."),
    "address-set": ("vnet.cli.nouns:address_set", "Address sets that rules name: list, make, change, delete."),
    "plug-bridge": (
        "vnet.cli.nouns:plug_bridge",
        "Bridges that toolstacks plug VIFs into: list, make, change, delete.",
    ),
    "mirror": ("vnet.cli.nouns:mirror", "Mirrors of VIFs' frames: list, make, change, delete."),
    "flow-collector": ("vnet.cli.nouns:flow_collector", "Collectors of flows: list, make, change, delete."),
    "qos-class": ("vnet.cli.nouns:qos_class", "QoS classes, rate limits: list, make, change, delete."),
    "vm": ("vnet.cli.vm:vm", "VMs: list, make, change, delete, migrate with all their VIFs."),
    "vif": ("vnet.cli.vif:vif", "VIFs: list, make, change, delete, plug, migrate."),
    "wait": ("vnet.cli.watching:wait", "Wait until an object is ready, deleted, or as you say."),
    "expectation": ("vnet.cli.nouns:expectation", "Expectations: list, make, change, delete."),
    "xapi": ("vnet.cli.xapi:xapi", "XenServer and XCP-ng: publish networks, follow VMs."),
    "libvirt": ("vnet.cli.libvirt:libvirt", "Hosts of libvirt and QEMU: hook, events, import."),
    "pool": ("vnet.cli.pool:pool", "The pool database as a cluster of servers."),
    "rekey": ("vnet.cli.rekey:rekey", "Have hosts make new keys of encrypted tunnels."),
    "pki": ("vnet.cli.pki:pki", "The certificates of the pool: make, renew, list."),
    "lab": ("vnet.cli.lab:lab", "A pool on this machine, to try and to test with."),
    "controller": ("vnet.cli.controller:controller", "Run the controller."),
    "agent": ("vnet.cli.agent:agent", "Run a host's agent."),
    "wireguard": ("vnet.cli.wireguard:wireguard", "Run the service of a host that encrypts tunnels."),
    "completion": ("vnet.cli.completion:completion", "Print shell completion for bash, zsh or fish."),
}


@cache
def _here() -> dict[str, str]:
    """The commands whose code is here, with their line of help. Debian's vnet-agent and vnet-controller carry some only."""
    modules = {name: module.partition(":")[0].rpartition(".")[2] for name, (module, _) in COMMANDS.items()}
    return {
        name: text for name, (_, text) in COMMANDS.items() if Path(__file__).with_name(f"{modules[name]}.py").exists()
    }


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_here())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _here():
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command if cmd_name in LOCAL else with_connection(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_here().items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=text) for name, text in _here().items() if name.startswith(incomplete)
        ] + options


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--controller",
    envvar="VNET_CONTROLLER",
    metavar="ADDRESS",
    default="unix:/run/vnet/controller.sock",
    show_default=True,
    help="unix:PATH or https://HOST:PORT.",
)
@click.option(
    "--token-file",
    envvar="VNET_TOKEN_FILE",
    type=click.Path(dir_okay=False),
    help="File with the bearer token that https needs; VNET_TOKEN has the token itself.",
)
@click.option(
    "--ca",
    envvar="VNET_CA",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="The CA of an https controller: the pool's ca.pem.  [default: those that this machine trusts]",
)
@click.option("--cleartext", is_flag=True, help="Allow an http controller on another machine.")
@click.option("-m", "--message", metavar="TEXT", help="Why: what is changed is recorded with it ('vnet history').")
@click.option("-o", "--output", type=FORMATS, help="The form of what is printed.  [default: table]")
@click.version_option(VERSION, prog_name="vnet")
@click.pass_context
def cli(
    ctx: click.Context,
    controller: str,
    token_file: str | None,
    ca: str | None,
    cleartext: bool,
    message: str | None,
    output: str | None,
) -> None:
    """Networks that span a pool of virtualization hosts. The options may also stand after the command."""
    ctx.obj = RootOptions(controller, token_file, output, ca, cleartext, message)


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line; the code to exit with. Messages go to standard error."""
    try:
        result = cli.main(args, prog_name="vnet", standalone_mode=False, color=colour())
        return int(result) if isinstance(result, int) else int(ExitCode.OK)
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except CommandError as error:
        error.show()
        return error.exit
    except click.ClickException as error:
        error.show()
        return ExitCode.FAILED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("vnet", "ovsctl"):
            raise
        CommandError(f"this command needs the Python package {missing}: pip install 'vnet[all]'").show()
        return ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return ExitCode.FAILED
    except BrokenPipeError:
        # The reader of our output ended (`vnet events | head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED


def main() -> None:
    """The console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
