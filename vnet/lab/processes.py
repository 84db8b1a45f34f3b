"""Processes of a lab. One rule: each carries the lab's mark in its environment, so none is missed and no other is hit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vnet.lab.errors import CommandFailed, LabError
from vnet.lab.names import MARK, NETNS_DIR

COMMAND_TIMEOUT_S = 90.0
NICE = -10  # as the units have it, and as Open vSwitch's own daemons have (ovs-ctl(8))
START_TIMEOUT_S = 60.0  # only names a failure: a process that ends at start is an error at once
STOP_TIMEOUT_S = 30.0  # the kernel takes some 20 ms for each tap that a process leaves behind
TAIL_BYTES = 2000
EXECUTION_LOOKS = 1000  # one a millisecond


def run(args: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str | None = None) -> str:
    """A command's standard output. Raises CommandFailed with its standard error."""
    try:
        done = subprocess.run(
            args,
            env={**os.environ, **(env or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise CommandFailed(f"{args[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{' '.join(args)}: no end after {COMMAND_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CommandFailed(f"{' '.join(args)}: {said or f'exit {done.returncode}'}")
    return done.stdout


def in_netns(netns: str | None, args: Sequence[str]) -> list[str]:
    """The command line that runs `args` in a named network namespace, by exec: the process id stays."""
    return list(args) if netns is None else ["nsenter", f"--net={NETNS_DIR / netns}", "--", *args]


def start(
    args: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    netns: str | None = None,
    real_time: int = 0,
    preferred: bool = True,
) -> int:
    """Start a daemon of the lab in a session of its own; its process id. It outlives us.

    real_time: a priority of sched(7) from 1 to 99, with which the daemon runs before all others of the machine, so that frames
    do not wait for a processor; 0 for none. preferred: it has the priority of our units. A user who may not set them gets none.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            in_netns(netns, args),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            env={**os.environ, **env},
            start_new_session=True,
        )
    if preferred:
        prefer(process.pid)
    if real_time:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(process.pid, os.SCHED_RR, os.sched_param(real_time))
    process.returncode = 0  # reaped by `stop` or by init, never by Popen's finaliser, which would warn
    return process.pid


def prefer(pid: int) -> None:
    """Gives a daemon that has just begun the priority that its unit would; a user who may not gives none."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)


def wait_until(ready: Callable[[], bool], expected: str, *, pid: int = 0, log: Path | None = None) -> None:
    """Return once `ready()`. Raises LabError with the last line of `log` if process `pid` ends or time runs out first."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        ended = pid and not alive(pid)
        if ended or time.monotonic() > deadline:
            tail = ""
            if log is not None and log.exists():
                tail = ": " + log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip().rpartition("\n")[2]
            raise LabError(
                f"{expected} {'ended at start' if ended else f'is not there after {START_TIMEOUT_S:.0f} s'}{tail}"
            )
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process runs. Reaps it if it was our child and is done."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
    try:
        # A main thread is "Z" while its other threads still end, with the process's files and locks.
        return state(pid) not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_of(pid: int) -> str:
    """The name of a process's program, at most 15 bytes of it (proc(5), comm); "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def state(pid: int) -> str:
    """A process's state as proc(5) has it: a letter, "X" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if it is gone. With the id it names one process for ever."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def _pids() -> Iterable[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _environment(pid: int) -> list[bytes]:
    """What a process was executed with, as proc(5) shows it; [] for a kernel thread and one that is gone.

    A process that is being executed has its new memory before its environment is in there: that is waited for.
    """
    try:
        for _ in range(EXECUTION_LOOKS):
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            if environ or Path(f"/proc/{pid}/cmdline").read_bytes() or not os.readlink(f"/proc/{pid}/exe"):
                return environ.split(b"\0")
            time.sleep(0.001)
    except OSError:
        pass
    return []


def marked(directory: Path) -> list[int]:
    """The processes of the lab with this directory, ourselves excepted."""
    mark = f"{MARK}={directory}".encode()
    return [pid for pid in _pids() if pid != os.getpid() and mark in _environment(pid)]


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def inside(namespaces: Iterable[str]) -> list[int]:
    """The processes whose network namespace is one of these, ourselves excepted."""
    inodes = {_inode(str(NETNS_DIR / name)) for name in namespaces} - {0, _inode("/proc/self/ns/net")}
    if not inodes:
        return []
    return [pid for pid in _pids() if pid != os.getpid() and _inode(f"/proc/{pid}/ns/net") in inodes]


def stop(pids: Iterable[int], sig: int = signal.SIGKILL, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Send the signal and wait until all have ended. A process of another user, or that will not end, raises LabError."""
    waiting = [pid for pid in pids if pid > 0]  # 0 would be this process and its group
    for pid in waiting:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sig)
    deadline = time.monotonic() + timeout_s
    while waiting := [pid for pid in waiting if alive(pid)]:
        if time.monotonic() > deadline:
            raise LabError(f"processes {waiting} do not end")
        time.sleep(0.002)


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Inside, a (second) Ctrl-C does not stop the work inside. Only a main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
