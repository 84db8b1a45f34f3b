"""The Debian packages on a bare machine: installed, started under their hardened units, upgraded, removed."""

from __future__ import annotations

import hashlib
import re
import runpy
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian.machines import ROOT, Machine, build
from tests.polling import wait_until

DAEMONS = "vnet-agent vnet-controller"
DOCUMENT = """
apiVersion: vnet/v1
pool: first
networks: {lan: {type: internal}}
hosts: {xen1: {}}
vms: {web1: {vifs: [{network: lan}]}}
"""
IMPORT_ALL = """
import importlib, pathlib, sys
tree = pathlib.Path('/usr/lib/vnet/agent')
sys.path.insert(0, str(tree))
for path in sorted([*tree.glob('vnet/**/*.py'), *tree.glob('ovsctl/**/*.py')]):
    importlib.import_module('.'.join(path.relative_to(tree).with_suffix('').parts).removesuffix('.__init__'))
"""
# The same packages as two versions, without the time that it takes to compress them and to compile their code again.
REPACK = r"""
mkdir /root/0.1.0 /root/0.1.1
for package in /root/*.deb; do
    dpkg-deb -R $package /root/unpacked
    (cd /root/unpacked/usr/lib/vnet; find . -name '*.py' -printf '%h/__pycache__\n' | sort -u) >/root/compiled
    tar c -C /usr/lib/vnet -T /root/compiled | tar x -C /root/unpacked/usr/lib/vnet
    for version in 0.1.0 0.1.1; do
        sed -i "s/^Version: 0.1../Version: $version/" /root/unpacked/DEBIAN/control
        dpkg-deb -Znone -b /root/unpacked /root/$version/
    done
    rm -r /root/unpacked
done
"""


@pytest.fixture
def machine(root: Path, debs: list[Path], tmp_path: Path) -> Iterator[Machine]:
    with Machine("xen1", root, tmp_path) as made:
        made.boot()
        made.put(*debs)
        (Path(f"/proc/{made.pid}/root/root") / "pool.vnet.yaml").write_text(DOCUMENT)
        yield made


def files(machine: Machine) -> set[str]:
    """All that could be a package's."""
    return set(machine.run("find /bin/ /lib/ /usr /etc -xdev -path /etc/openvswitch -prune -o -print").splitlines())


def main_pids(machine: Machine) -> set[str]:
    return set(machine.run(f"systemctl show --value --property=MainPID {DAEMONS}").split())


def test_the_packages(machine: Machine) -> None:
    run, before = machine.run, files(machine)
    run("dpkg -i /root/*.deb")
    is_installed(machine)
    works(machine)
    run(REPACK)
    for version in ("0.1.1", "0.1.0"):
        outlives_another_version(machine, f"/root/{version}/*.deb")
        assert run("dpkg-query -W -f '${Version} ' vnet-agent vnet-controller vnet").count(version) == 3

    flows = run("ovs-ofctl dump-flows br-int | wc -l")
    run("dpkg -r vnet-agent vnet-controller vnet-xapi vnet")
    assert "vnet" not in run("ps ax -o command | grep -v grep")
    assert run("ovs-ofctl dump-flows br-int | wc -l") == flows  # stopping an agent stops no packet
    run("dpkg --purge vnet-agent vnet-controller vnet-xapi vnet")
    left = {path for path in files(machine) - before if "/systemd/" in path or "vnet" in path}
    assert left == set()
    assert "pool.db" in run("ls /var/lib/vnet")


def is_installed(machine: Machine) -> None:
    run = machine.run
    assert "Usage: vnet agent" in run("vnet-agent --help")
    assert "Usage: vnet controller" in run("vnet-controller --help")
    assert "vnet, version 0.1.0" in run("vnet --version")
    for program in (
        "vnet",
        "vnet-agent",
        "vnet-wireguard",
        "vnet-controller",
        "vnet-pool",
        "vnet-xapi",
        "vnet-libvirt",
    ):
        assert run(f"zcat /usr/share/man/man1/{program}.1.gz").startswith(f".TH {program.upper()} 1")
    assert "migrate" in run("COMP_WORDS='vnet vm mig' COMP_CWORD=2 _VNET_COMPLETE=bash_complete vnet")
    run("vnet-xapi follow --help && vnet-xapi publish --help")
    run("bash -n /usr/share/bash-completion/completions/vnet")
    carried = set(run("ls /usr/lib/vnet/agent").splitlines())
    assert {"click", "msgspec", "netaddr", "ovsctl", "vnet"} == {name for name in carried if "." not in name}
    assert run("find /usr/lib/vnet/agent -name '*.pyc' | wc -l") != "0"
    run(f'python3 -IS -c "{IMPORT_ALL}"')
    for data in ("vnet/db/vnet.ovsschema", "vnet/topology/vnet.schema.json", "vnet/py.typed", "ovsctl/py.typed"):
        run(f"test -f /usr/lib/vnet/cli/{data}")
    units = "vnet-agent.service vnet-controller.service vnet-pool.service vnet-xapi.service vnet-libvirt.service"
    assert run(f"systemd-analyze verify --man=no {units}") == ""
    for unit in units.split():
        (exposure,) = re.findall(
            r"exposure level for \S+: ([0-9.]+)", run(f"systemd-analyze security --offline=true {unit}")
        )
        assert float(exposure) <= (2.0 if unit == "vnet-agent.service" else 1.8), unit
    # Its rights are another unit's for that.
    assert run("systemd-analyze verify --man=no vnet-wireguard.service") == ""
    assert run(f"systemctl is-enabled {DAEMONS}", check=False).split() == ["disabled"] * 2
    assert run(f"systemctl is-active {DAEMONS}", check=False).split() == ["inactive"] * 2


def works(machine: Machine) -> None:
    """Started by their units, controller and agent make a VIF's port work."""
    run = machine.run
    # The kernel here has no Open vSwitch.
    run("""echo 'VNET_AGENT_OPTIONS="--datapath-type netdev"' >/etc/vnet/agent.conf""")
    run("systemctl enable --now vnet-controller && systemctl enable --now --no-block vnet-agent")
    run("vnet apply --yes /root/pool.vnet.yaml || test $? = 7")  # no host is alive yet
    run("systemctl start vnet-agent")  # returns once it is ready
    run("ovs-vsctl add-port br-int web1 -- set interface web1 type=internal external_ids:iface-id=web1/0")
    wait_until(lambda: "1 ready" in run("vnet status"), "the VIF to be ready")
    assert "not as desired" not in run("vnet status")
    assert (
        run("stat -c '%U %G %a' /run/vnet/controller.sock /run/vnet/agent.sock").splitlines() == ["root vnet 660"] * 2
    )
    assert run("find /var/lib/vnet /run/vnet -type f -perm /077") == ""


def outlives_another_version(machine: Machine, packages: str) -> None:
    """A newer or an older one: the daemons are other processes, the database is not, and the VIF is ready."""
    run, before = machine.run, main_pids(machine)
    database = run("cat /run/vnet/pool.pid")
    run(f"dpkg -i {packages}")
    wait_until(lambda: not main_pids(machine) & (before | {"0"}), "both daemons to be restarted")
    wait_until(
        lambda: run(f"systemctl is-active {DAEMONS}", check=False).split() == ["active"] * 2,
        "both to work",
    )
    assert run("cat /run/vnet/pool.pid") == database
    wait_until(lambda: "1 ready" in run("vnet status"), "the VIF to be ready")


@pytest.mark.usefixtures("netns")  # it downloads, so it is none of the fast tests
def test_the_same_sources_make_the_same_bytes(debs: list[Path], tmp_path: Path) -> None:
    """And packages for another release, whose Python the builder need not have."""
    build(tmp_path, *(f"--debian={version}" for version in ("12", "13")), "vnet-agent")
    made = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    ours = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in debs}
    assert len(made) == 2
    (same,) = made.keys() & ours.keys()
    assert made[same] == ours[same]


@pytest.mark.usefixtures("netns")
def test_a_release_has_notes_and_checksums_of_all_that_was_built(debs: list[Path], tmp_path: Path) -> None:
    made = Path(shutil.copytree(debs[0].parent, tmp_path / "release"))
    finish = runpy.run_path(str(ROOT / "packaging" / "release.py"))["finish"]
    for _ in range(2):
        assert finish(made, "The first version.") == len(debs) + 2
        checked = subprocess.check_output(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=made, text=True)
        names = {line.removesuffix(": OK") for line in checked.splitlines()}
        assert names == {path.name for path in made.iterdir()} - {"SHA256SUMS"}
    assert (made / "NOTES.md").read_text() == "# vnet 0.1.0\n\nThe first version.\n"


@pytest.mark.usefixtures("netns")
def test_the_wheel_carries_everything_and_needs_for_an_agent_three_libraries(debs: list[Path]) -> None:
    (wheel,) = debs[0].parent.glob("vnet-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in carried if name.endswith(".dist-info/METADATA"))
    kept = subprocess.check_output(["git", "ls-files", "vnet", "ovsctl"], cwd=ROOT, text=True).splitlines()
    assert set(kept) - carried == set()
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert [re.split(r"[ :>=]+", line)[1] for line in needed] == ["click", "msgspec", "netaddr"]


@pytest.mark.parametrize("sample", ["agent", "controller", "pool"])
def test_samples_are_encrypted(sample: str) -> None:
    text = (ROOT / "packaging" / f"{sample}.conf").read_text()
    assert re.search(r"\bp?ssl:", text)
    assert "--pki-dir" in text
    assert "tcp:" not in text
