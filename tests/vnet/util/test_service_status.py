"""What the service manager and the log are sent of a daemon's state."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servicemanager import ServiceManager
from vnet.util.service_status import AGAIN_S, LASTING_S, Obstacle, ServiceStatus

SLOW = Obstacle("database", "the database does not answer")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify") as made:
        monkeypatch.setenv("NOTIFY_SOCKET", str(made.path))
        yield made


def test_ready_comes_once_with_the_first_work(manager: ServiceManager) -> None:
    status = ServiceStatus(Clock())
    for obstacle in (SLOW, SLOW, None, None, SLOW, None):
        status.show(obstacle, "serves")
    assert not manager.status.startswith("READY")
    waits = f"STATUS={SLOW.text}"
    assert manager.sent == [waits, "READY=1", "STATUS=serves", waits, "STATUS=serves"]


def test_an_obstacle_is_logged_once_it_lasts_and_then_each_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    status = ServiceStatus(clock)

    def lines(seconds: float, obstacle: Obstacle | None) -> list[str]:
        clock.now_s += seconds
        caplog.clear()
        status.show(obstacle, "serves")
        return caplog.messages

    assert lines(0, SLOW) == []
    assert lines(LASTING_S / 2, None) == [], "part of a start"
    assert lines(0, SLOW) == []
    assert lines(LASTING_S, SLOW) == ["waits: the database does not answer"]
    other = Obstacle(SLOW.topic, "the database does not answer either")
    assert [lines(AGAIN_S / 4, other) for _ in range(4)] == [[], [], [], [f"waits: {other.text}"]]
    assert lines(0, None) == ["works"]
    assert lines(AGAIN_S * 2, None) == []
    assert lines(0, SLOW) == []


@pytest.mark.parametrize(("pid", "wanted"), [("own", True), ("1", False), (None, True)])
def test_the_watchdog_is_kept_alive_at_a_quarter_of_its_time(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch, pid: str | None, wanted: bool
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    clock = Clock()
    status = ServiceStatus(clock)
    for _ in range(21):
        status.alive()
        clock.now_s += 1
    assert not manager.ready
    assert manager.beats == (5 if wanted else 0)


def test_without_a_service_manager_nothing_is_sent_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ServiceStatus().show(None, "serves")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    ServiceStatus().show(None, "serves")
