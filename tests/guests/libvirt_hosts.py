"""libvirt on a lab's hosts: each has a libvirtd of its own, with guests of QEMU without KVM.

One rule: all of a host's libvirt is in namespaces of one process, of mounts, processes and names, and goes with it. The machine's own is neither read nor touched.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.polling import wait_until
from vnet.lab import Lab
from vnet.lab.names import host_netns, management_address
from vnet.lab.processes import start, stop

HOOK = Path(__file__).parents[2] / "packaging" / "libvirt" / "hooks" / "qemu"
TIMEOUT_S = 120
# libvirt's paths are compiled in. Its user for guests is made by a package that the tests do without.
SCRIPT = """
mount --make-rprivate /
for file in passwd group; do
    cp /etc/$file {directory}/$file
done
echo libvirt-qemu:x:64055:64055::/:/bin/false >>{directory}/passwd
echo libvirt-qemu:x:64055: >>{directory}/group
for file in passwd group; do
    mount --bind {directory}/$file /etc/$file
done
mount --bind {directory}/etc /etc/libvirt
for path in /run/libvirt /var/lib/libvirt /var/log/libvirt /run/lock; do
    mkdir -p $path
    mount -t tmpfs libvirt $path
done
hostname {host}
libvirtd --pid-file {directory}/libvirtd.pid &
wait
"""
LIBVIRTD = """
unix_sock_dir = "{directory}/sockets"
auth_unix_rw = "none"
host_uuid = "5a1f8d1e-0000-4000-a000-{number:012}"
log_outputs = "2:file:{directory}/libvirtd.log"
"""
QEMU = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
stdio_handler = "file"
cgroup_controllers = []
"""
# A userspace datapath fills in no checksum, so the guest does.
OFFLOADS = "<driver name='qemu'><host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/><guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/></driver>"


@dataclass(frozen=True, slots=True)
class LibvirtHost:
    """One host's libvirtd, and the follower of its events."""

    lab: Lab
    host: str
    directory: Path
    pids: tuple[int, ...]

    @classmethod
    def up(cls, lab: Lab, host: str, directory: Path) -> LibvirtHost:
        """Starts it, and waits until it answers."""
        number = [found.name for found in lab.spec.hosts].index(host) + 1
        hooks = directory / "etc" / "hooks" / "qemu.d"
        hooks.mkdir(parents=True)
        (directory / "sockets").mkdir()
        (directory / "etc" / "libvirtd.conf").write_text(LIBVIRTD.format(directory=directory, number=number))
        (directory / "etc" / "qemu.conf").write_text(QEMU)
        sockets = {
            "VNET_CONTROLLER": f"unix:{lab.daemons.controller_socket}",
            "VNET_AGENT_SOCKET": str(lab.daemons.agent_socket(host)),
        }
        conf = directory / "vnet.conf"
        conf.write_text("".join(f"{name}={value}\n" for name, value in sockets.items()))
        hook = hooks / "vnet"
        hook.write_text(f'#!/bin/sh\nVNET_LIBVIRT_CONF={conf} exec {HOOK} "$@"\n')
        hook.chmod(0o755)
        script = SCRIPT.format(directory=shlex.quote(str(directory)), host=host)
        alone = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", script]
        netns = host_netns(lab.spec.name, host)
        pids = [start(alone, log=directory / "log", env=lab.ovs(host).env, netns=netns, preferred=False)]
        uri = f"qemu+unix:///system?socket={directory}/sockets/libvirt-sock"
        made = cls(lab, host, directory, tuple(pids))
        wait_until(lambda: made._asked("list").returncode == 0, f"libvirtd of {host}")
        watch = ["vnet", "libvirt", "watch", "--connect", f"{uri}-ro"]
        env = {**lab.ovs(host).env, **sockets}
        return cls(lab, host, directory, (start(watch, log=directory / "watch.log", env=env), *pids))

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.directory}/sockets/libvirt-sock"

    @property
    def address(self) -> str:
        """Where memory is copied to."""
        return management_address([found.name for found in self.lab.spec.hosts].index(self.host))

    def _asked(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = ["virsh", "--quiet", "--connect", self.uri, *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    def virsh(self, *args: str) -> str:
        """A command's output."""
        done = self._asked(*args)
        assert done.returncode == 0, (
            f"virsh {' '.join(args)}: {done.returncode}, {done.stdout}{done.stderr}\n{(self.directory / 'libvirtd.log').read_text()[-2000:]}"
        )
        return done.stdout

    def refused(self, *args: str) -> str:
        """Why a command fails."""
        done = self._asked(*args)
        assert done.returncode != 0
        return done.stderr

    def create(self, xml: str) -> None:
        path = self.directory / "domain.xml"
        path.write_text(xml)
        self.virsh("create", str(path))

    def migrate(self, domain: str, to: LibvirtHost, *options: str) -> None:
        """All that one types; and where memory goes, as hosts of a lab have no names."""
        self.virsh("migrate", "--live", domain, to.uri, "--migrateuri", f"tcp://{to.address}", *options)

    def down(self) -> None:
        stop(list(self.pids))


def guest_xml(name: str, uuid: str, image: Path, console: Path, vifs: Mapping[str, tuple[str, str]]) -> str:
    """A guest with an interface per VIF; vifs: the MAC and the address with its prefix's length, by the VIF's id."""
    addresses = " ".join(f"address.{index}={address}" for index, (_, address) in enumerate(vifs.values()))
    interfaces = "".join(
        f"""<interface type='bridge'><mac address='{mac}'/><source bridge='br-int'/>
        <virtualport type='openvswitch'><parameters interfaceid='{id}'/></virtualport><model type='virtio'/>{OFFLOADS}</interface>"""
        for id, (mac, _) in vifs.items()
    )
    return f"""<domain type='qemu'>
    <name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>96</memory><vcpu>1</vcpu>
    <os>
      <type arch='x86_64' machine='pc'>hvm</type>
      <kernel>{image / "kernel"}</kernel><initrd>{image / "initrd"}</initrd><cmdline>console=ttyS0 quiet {addresses}</cmdline>
    </os>
    <features><acpi/></features>
    <devices>
      <emulator>/usr/bin/qemu-system-x86_64</emulator>{interfaces}
      <controller type='usb' model='none'/><memballoon model='none'/>
      <serial type='file'><source path='{console}' append='on'/></serial>
    </devices></domain>"""
