"""The command line's frame: what is loaded, what goes where, what it exits with."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vnet.cli import main
from vnet.cli.exits import ExitCode


def test_help_lists_every_command_without_importing_it() -> None:
    probe = (
        "import sys; from vnet.cli.main import run; code = run(['--help']);"
        "sys.exit(code or any(m in sys.modules for m in ('httpx', 'starlette', 'vnet.cli.vif', 'vnet.topology')))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in main.COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("args", [["no-such-command"], ["--no-such-option"], ["completion", "tcsh"], ["completion"]])
def test_usage_errors_exit_64_and_print_nothing_on_stdout(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(args) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: vnet" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_our_variable(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == ExitCode.OK
    assert "_VNET_COMPLETE" in capsys.readouterr().out


def test_completion_completes_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from vnet.cli.main import cli; cli(prog_name='vnet')"],
        env={"_VNET_COMPLETE": "bash_complete", "COMP_WORDS": "vnet va", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,validate"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("vnet, version ")


def test_looking_at_a_pool_and_changing_it_loads_no_declarations() -> None:
    """They are a quarter of the start of `vnet status`, which needs none; only the help of fields does."""
    statement = (
        "import sys, vnet.cli.show; from vnet.cli.main import run;"
        "run(['--controller', 'unix:/nowhere', 'network', 'set', 'a', '--mtu', '1400']); print(*sys.modules)"
    )
    listed = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True).stdout
    assert {"vnet.api", "vnet.cli.fields"} <= {*listed.split()}
    assert "vnet.objects" not in listed.split()
