"""Builds the Debian packages: `make deb`, or `build_deb.py --debian 12 --to DIRECTORY [PACKAGE...]`.

One rule: a package carries all of its Python code, at the versions and hashes of requirements/run.lock, in a tree of its own under
/usr/lib/vnet. Debian's own Python packages are neither read nor touched, and the same commit gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import grimp
import manpages

from vnet import VERSION
from vnet.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "run.lock"
SOURCES = ("vnet", "ovsctl", "topologies", "pyproject.toml", "README.md", "LICENSE")
DEBIANS = {"12": (3, 11), "13": (3, 13)}  # release: its Python, which compiled wheels bind to
WHEELS = {  # dpkg's architecture: platforms of wheels whose C library is not newer than Debian 12's
    "amd64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "arm64": ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
}
MAINTAINER = "The vnet developers <vnet@localhost>"
OVS = "openvswitch-switch (>= 2.17)"


@dataclass(frozen=True, slots=True)
class Package:
    """tree: its directory in /usr/lib/vnet. extras: of the wheel. entries: modules that it starts with, () for all there are.

    programs: /usr/bin names, each with the arguments that stand before its own.
    """

    name: str
    summary: str
    text: str
    tree: str
    extras: str
    entries: tuple[str, ...]
    programs: dict[str, tuple[str, ...]]
    depends: tuple[str, ...]
    recommends: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()


PACKAGES = (
    Package(
        name="vnet-agent",
        summary="virtual network of a virtualization host: the host's agent",
        text="The agent programs this host's Open vSwitch as the pool database says.\nPackets flow on while it is stopped.",
        tree="agent",
        extras="",
        entries=(
            "vnet.cli.main",
            "vnet.cli.agent",
            "vnet.agent.daemon",
            "vnet.cli.wireguard",
            "vnet.wireguard.service",
        ),
        programs={"vnet-agent": ("agent",), "vnet-wireguard": ("wireguard",)},
        depends=(OVS,),
        # For encrypted networks; wireguard-go where the kernel has no WireGuard.
        recommends=("vnet", "iproute2", "wireguard-tools", "nftables", "wireguard-go"),
        units=("vnet-agent.service", "vnet-agents.service", "vnet-wireguard.service"),
        samples=("agent.conf", "agents.conf"),
    ),
    Package(
        name="vnet-controller",
        summary="virtual network of virtualization hosts: controller and database",
        text="The controller serves the REST API, and the pool database unless that is\na cluster of servers.",
        tree="controller",
        extras="[controller]",
        entries=("vnet.cli.main", "vnet.cli.controller", "vnet.cli.pool", "vnet.cli.pki", "vnet.controller.daemon"),
        programs={"vnet-controller": ("controller",), "vnet-pool": ("pool",)},
        depends=("openvswitch-common (>= 2.17)",),
        recommends=("vnet",),
        units=("vnet-controller.service", "vnet-pool.service"),
        samples=("controller.conf", "pool.conf"),
    ),
    Package(
        name="vnet-xapi",
        summary="virtual network of virtualization hosts: XenServer and XCP-ng",
        text="Follows the VMs of a pool of XenServer or XCP-ng, and publishes networks\nto it.",
        tree="xapi",
        extras="[xapi]",
        entries=("vnet.cli.main", "vnet.cli.xapi", "vnet.xapi.service", "vnet.xapi.publishing", "vnet.client.local"),
        programs={"vnet-xapi": ("xapi",)},
        depends=(),
        recommends=("vnet",),
        units=("vnet-xapi.service",),
        samples=("xapi.conf",),
    ),
    Package(
        name="vnet",
        summary="virtual network of virtualization hosts: command line and lab",
        text="The vnet command, the Python client, the digital twin, and labs that are\nwhole pools on one machine.",
        tree="cli",
        extras="[all]",
        entries=(),
        programs={"vnet": (), "vnet-libvirt": ("libvirt",)},
        depends=(),
        recommends=(OVS, "iproute2"),
        units=("vnet-libvirt.service",),
        samples=("libvirt.conf",),
    ),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--debian", choices=DEBIANS, action="append", help="the release; all, if none is named")
    options.add_argument("--to", type=Path, default=ROOT / "dist", help="the directory of the packages")
    options.add_argument("--wheel", action="store_true", help="keep our wheel there, too")
    options.add_argument("packages", nargs="*", metavar="PACKAGE", help="all, if none is named")
    chosen = options.parse_args()
    if unknown := set(chosen.packages) - {package.name for package in PACKAGES}:
        options.error(f"no package {', '.join(sorted(unknown))}")
    os.environ.setdefault("SOURCE_DATE_EPOCH", _date())
    os.umask(0o022)
    chosen.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vnet-deb-") as name:
        work = Path(name)
        wheel = _wheel(work)
        if chosen.wheel:
            print(shutil.copy(wheel, chosen.to))
        for debian in chosen.debian or DEBIANS:
            wheels = _download(work, debian)
            for package in PACKAGES:
                if not chosen.packages or package.name in chosen.packages:
                    print(_build(package, debian, wheel, wheels, chosen.to))


def _date() -> str:
    """The time of the last commit, in seconds; that of the changelog where the sources are no checkout."""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or str(int((ROOT / "CHANGELOG.md").stat().st_mtime))


def _architecture() -> str:
    return subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()


def _pip(*args: str | Path, hermetic: bool) -> None:
    """Run pip. hermetic: without the user's configuration, so without any index."""
    env = {key: value for key, value in os.environ.items() if not hermetic or not key.startswith("PIP_")}
    env |= {"PIP_CONFIG_FILE": os.devnull} if hermetic else {}
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet", *map(str, args)]
    subprocess.run(command, env=env, check=True)


def _wheel(work: Path) -> Path:
    """Our own wheel, built from a copy, so that nothing is left in the sources."""
    source = work / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", work, source, hermetic=True)
    (wheel,) = work.glob("vnet-*.whl")
    return wheel


def _target(debian: str) -> list[str]:
    major, minor = DEBIANS[debian]
    platforms = [f"--platform={platform}" for platform in (*WHEELS[_architecture()], "any")]
    python = [
        f"--python-version={major}.{minor}",
        "--implementation=cp",
        f"--abi=cp{major}{minor}",
        "--abi=abi3",
        "--abi=none",
    ]
    return ["--only-binary=:all:", *python, *platforms]


def _download(work: Path, debian: str) -> Path:
    """The wheels of the lock file for this release; pip compares each with its hash."""
    wheels = work / f"wheels{debian}"
    _pip("download", "--no-deps", "--require-hashes", "-r", LOCK, "-d", wheels, *_target(debian), hermetic=False)
    return wheels


def _build(package: Package, debian: str, wheel: Path, wheels: Path, to: Path) -> Path:
    architecture = _architecture()
    with tempfile.TemporaryDirectory(prefix="vnet-deb-") as name:
        root = Path(name) / package.name
        tree = root / "usr/lib/vnet" / package.tree
        tree.mkdir(parents=True)
        requirement = f"vnet{package.extras} @ {wheel.as_uri()}"
        _pip("install", "--no-index", "--find-links", wheels, "--target", tree, "--no-compile", *_target(debian), requirement,
             hermetic=True)  # fmt: skip
        _strip(tree, package.entries)
        _add_files(package, root)
        _add_control(package, debian, architecture, root)
        _set_times(root)
        made = to / f"{package.name}_{_version(debian)}_{architecture}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zzstd", "--build", root, made], check=True, stdout=subprocess.DEVNULL
        )
    return made


def _strip(tree: Path, entries: tuple[str, ...]) -> None:
    """Remove what names the build, programs of libraries, and those of our packages that no entry reaches."""
    for path in (tree / "bin", tree / "share"):
        shutil.rmtree(path, ignore_errors=True)
    for record in ("RECORD", "REQUESTED", "direct_url.json", "INSTALLER"):
        for path in tree.glob(f"*.dist-info/{record}"):
            path.unlink()
    if entries:
        kept = reached(entries)
        for path in sorted(tree.glob("vnet/*")) + sorted(tree.glob("vnet/cli/*")) + sorted(tree.glob("ovsctl/*")):
            module = ".".join(path.relative_to(tree).with_suffix("").parts)
            if path.suffix in ("", ".py") and path.stem != "__init__" and module not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def reached(entries: Iterable[str]) -> set[str]:
    """The modules that these import, also inside of functions, and the packages that hold them."""
    graph = grimp.build_graph("vnet", "ovsctl", exclude_type_checking_imports=True, cache_dir=None)
    modules = set(entries).union(*(graph.find_upstream_modules(entry) for entry in entries))
    return {".".join(parts[:size]) for parts in (m.split(".") for m in modules) for size in range(1, len(parts) + 1)}


LAUNCHER = """\
#!/usr/bin/python3 -IS
# Only the Python code of this package is read, not that of the machine or of who calls.
import sys

sys.path.insert(0, "/usr/lib/vnet/{tree}")
sys.argv[1:1] = {arguments!r}

from vnet.cli.main import main

main()
"""


def _add_files(package: Package, root: Path) -> None:
    for program, arguments in package.programs.items():
        _write(root / "usr/bin" / program, LAUNCHER.format(tree=package.tree, arguments=list(arguments)), 0o755)
    for unit in package.units:
        _write(root / "lib/systemd/system" / unit, (ROOT / "packaging" / unit).read_text())
    for sample in package.samples:
        _write(root / "etc/vnet" / sample, (ROOT / "packaging" / sample).read_text())
    documents = root / "usr/share/doc" / package.name
    _write(documents / "copyright", f"vnet, under the Apache License 2.0:\n\n{(ROOT / 'LICENSE').read_text()}")
    for program, arguments in package.programs.items():
        date = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC).date().isoformat()
        page = manpages.manpage(program, _command(arguments), VERSION, date)
        _write(root / f"usr/share/man/man1/{program}.1.gz", gzip.compress(page.encode(), mtime=0))
    if not package.entries:
        shutil.copytree(ROOT / "topologies", documents / "examples")
        shutil.copytree(ROOT / "docs", documents / "docs")
        # Whoever has libvirt links it into /etc/libvirt/hooks/qemu.d; hosts of xapi take theirs as /etc/xapi.d/vif-hotplug.
        _write(root / "usr/lib/vnet/libvirt/qemu", (ROOT / "packaging/libvirt/hooks/qemu").read_text(), 0o755)
        _write(root / "usr/lib/vnet/xapi/vif-hotplug", (ROOT / "packaging/xapi/vif-hotplug").read_text(), 0o755)
        for shell, path in manpages.SHELLS.items():
            _write(root / path.format("vnet"), manpages.completion(shell, cli))


def _command(arguments: tuple[str, ...]) -> click.Command:
    """The click command of a program."""
    if not arguments:
        return cli
    (name,) = arguments
    found = cli.get_command(click.Context(cli), name)
    if found is None:
        raise ValueError(f"no command {name}")
    return found


def _add_control(package: Package, debian: str, architecture: str, root: Path) -> None:
    major, minor = DEBIANS[debian]
    python = (f"python3 (>= {major}.{minor})", f"python3 (<< {major}.{minor + 1})", "libc6 (>= 2.28)", "passwd")
    fields = {
        "Package": package.name,
        "Version": _version(debian),
        "Architecture": architecture,
        "Maintainer": MAINTAINER,
        "Section": "net",
        "Priority": "optional",
        "Installed-Size": str(sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024),
        "Depends": ", ".join((*python, *package.depends)),
        "Recommends": ", ".join(package.recommends),
        "Description": "\n ".join((package.summary, *package.text.splitlines())),
    }
    control = root / "DEBIAN"
    _write(control / "control", "".join(f"{name}: {value}\n" for name, value in fields.items() if value))
    values = {"TREE": f"/usr/lib/vnet/{package.tree}", "UNITS": " ".join(package.units)}
    for script in ("postinst", "prerm", "postrm"):
        text = (ROOT / "packaging" / f"deb.{script}").read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        _write(control / script, text, 0o755)
    if package.samples:
        _write(control / "conffiles", "".join(f"/etc/vnet/{sample}\n" for sample in package.samples))


def _version(debian: str) -> str:
    return f"{VERSION}+deb{debian}"


def _set_times(root: Path) -> None:
    seconds = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (seconds, seconds))


def _write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


if __name__ == "__main__":
    main()
