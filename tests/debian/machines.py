"""Bare Debian machines: systemd and Open vSwitch as installed, each in namespaces of its own over one root that the test run made.

One rule: the root is made from the package sources of the machine that the tests run on, and holds nothing of vnet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.polling import wait_until

ROOT = Path(__file__).parents[2]
# Of Debian's essential packages nothing starts a service or calls another machine.
INCLUDED = ("python3", "systemd", "openvswitch-switch", "iproute2", "iputils-ping")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
RELEASES = {"12": "bookworm", "13": "trixie"}
BOOT = r"""
set -e
mount -t tmpfs tmpfs "$WORK"
mkdir "$WORK/up" "$WORK/work" "$WORK/root"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$WORK/up,workdir=$WORK/work" "$WORK/root"
cd "$WORK/root"
mount -t proc proc proc
# The kernel's settings are those of everybody, but for the network's, which are the namespace's.
mount --bind proc/sys proc/sys; mount --bind proc/sys/net proc/sys/net; mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm
for device in $DEVICES; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
ip link set lo up
echo "$NAME" >etc/hostname
hostname "$NAME"
exec env -i container=vnet-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --log-target=console
"""


def release() -> tuple[str, str]:
    """('12', 'bookworm'), which packages are built and roots made for: of this machine, unless VNET_TEST_DEBIAN names another."""
    found = platform.freedesktop_os_release()
    chosen = os.environ.get("VNET_TEST_DEBIAN", found["VERSION_ID"])
    return chosen, RELEASES[chosen]


def _sources(codename: str) -> list[str]:
    """The release's main component where this machine has its own from, without updates and without anybody else's."""
    own = platform.freedesktop_os_release()["VERSION_CODENAME"]
    command = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Identifier: Packages"]
    lines = subprocess.check_output(command, text=True).splitlines()
    sites = sorted({line.split()[0] for line in lines if line.endswith(f" {own} main")})
    assert sites, f"apt has no source of Debian's {own} main: {lines}"
    return [f"deb {site} {codename} main" for site in sites]


@contextlib.contextmanager
def _once(directory: Path) -> Iterator[bool]:
    """Whether to make the directory now: workers share it, and the first one makes it."""
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = directory.with_suffix(".done")
        yield not done.exists()
        done.touch()


def bare_root() -> Path:
    """A root without vnet. It is kept for later runs: half a minute of a processor, of which nothing is of this checkout."""
    _, codename = release()
    options = ["--variant=essential", "--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"']
    command = ["mmdebstrap", "--quiet", *options, f"--include={','.join(INCLUDED)}", codename]
    sources = _sources(codename)
    kept = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "vnet" / "debian"
    kept.mkdir(parents=True, exist_ok=True)
    root = kept / f"{codename}-{sha256(repr((command, sources)).encode()).hexdigest()[:10]}"
    with _once(root) as missing:
        if missing:
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run([*command, str(root), *sources], check=True, stdin=subprocess.DEVNULL)
    return root


def packages(shared: Path) -> list[Path]:
    """The packages of this checkout for the release of this machine; the wheel lies beside them."""
    made, (version, _) = shared / "packages", release()
    with _once(made) as missing:
        if missing:
            build(made, "--debian", version, "--wheel")
    return sorted(made.glob("*.deb"))


def build(to: Path, *args: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "packaging" / "build_deb.py"), "--to", str(to), *args], check=True)


def _cgroups() -> Path:
    """Where the kernel's cgroup2 is mounted."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return Path(next(mount for _, mount, kind, *_ in mounts if kind == "cgroup2"))


class Machine:
    """A machine that has booted. A context manager: it is gone at the end, with all that it ran and held."""

    def __init__(self, name: str, root: Path, work: Path) -> None:
        self.name = name
        self.log = work / f"{name}.log"
        self._mount = work / name
        self._mount.mkdir()
        self._cgroup = _cgroups() / f"vnet-test-{os.getpid()}-{name}"
        self._cgroup.mkdir()
        env = {**os.environ, "BASE": str(root), "WORK": str(self._mount), "NAME": name, "DEVICES": " ".join(DEVICES)}
        command = ["unshare", "-mpCnui", "--fork", "--kill-child=SIGKILL", "--propagation=private", "sh", "-c", BOOT]
        enter = f'echo $$ >"{self._cgroup}/cgroup.procs"; exec "$@"'
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", enter, "sh", *command], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def boot(self) -> None:
        """Returns once all that starts with the machine has started."""
        wait_until(
            lambda: self.run("systemctl is-system-running", check=False) == "running",
            f"{self.name} to boot: {self.log}",
        )

    @property
    def pid(self) -> int:
        """Of its first process, 0 before there is one."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def run(self, script: str, *, check: bool = True, limit_s: float = 300) -> str:
        """What a shell on it prints, both streams; with check it must exit with 0."""
        if not (pid := self.pid):
            return ""
        enter = ["nsenter", "-t", str(pid), "-m", "-p", "-C", "-n", "-u", "-i", "-r", "-w"]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        done = subprocess.run([*enter, "bash", "-ec", script], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False, timeout=limit_s)  # fmt: skip
        assert not check or done.returncode == 0, f"on {self.name}: {script}\n{done.stdout}\n{self._journal()}"
        return done.stdout.strip()

    def _journal(self) -> str:
        return self.run("journalctl --no-pager -n 60 -u 'vnet*'", check=False)

    def put(self, *files: Path) -> None:
        """Copies files to its /root."""
        for file in files:
            shutil.copy(file, f"/proc/{self.pid}/root/root/{file.name}")

    def stop(self) -> None:
        if self._process.poll() is None:
            pid = self.pid
            self._process.kill()
            self._process.wait()
            wait_until(lambda: not pid or not Path(f"/proc/{pid}").exists(), f"{self.name} to end")
        for directory in sorted((path for path in self._cgroup.rglob("*") if path.is_dir()), reverse=True):
            directory.rmdir()
        self._cgroup.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
