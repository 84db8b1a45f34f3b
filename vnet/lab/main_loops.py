"""Whether switches have forwarded what they had. One rule: silence means that nothing is under way only after each switch has gone round its main loop.

ovs-vswitchd forwards the frames of its userspace datapath in its main loop, and answers commands there (ovs-appctl(8)). While it waits for
the kernel, as where a device comes or goes beside many others, it does neither.
"""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable, Sequence
from functools import partial

ROUNDS = 3  # switches that a frame meets: its host's, the receiver's, and that of a host that relays
QUESTION = json.dumps({"id": 0, "method": "version", "params": []}).encode()


class MainLoops:
    """Asks the control sockets at `paths`, all at once and ROUNDS times, and then calls `done`. A switch that does not run forwards nothing."""

    def __init__(self, selector: selectors.BaseSelector, paths: Sequence[str], done: Callable[[], None]) -> None:
        self._selector = selector
        self._paths = paths
        self._done = done
        self._rounds = 0
        self._asked: set[socket.socket] = set()

    def ask(self) -> None:
        """Begins the next round, or ends."""
        if self._rounds == ROUNDS:
            self._done()
            return
        self._rounds += 1
        for path in self._paths:
            asked = socket.socket(socket.AF_UNIX)
            asked.setblocking(False)
            try:
                asked.connect(path)
                asked.sendall(QUESTION)
            except OSError:
                asked.close()
                continue
            self._asked.add(asked)
            self._selector.register(asked, selectors.EVENT_READ, partial(self._answered, asked))
        if not self._asked:
            self._done()

    def _answered(self, asked: socket.socket) -> None:
        self._selector.unregister(asked)
        asked.close()
        self._asked.remove(asked)
        if not self._asked:
            self.ask()
