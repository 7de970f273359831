"""One component of the control plane: a process that can be paused, killed and started again."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Final

#: Seconds.
START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 5.0
#: For what comes at once on an idle machine: a busy one must not fail a test that is not about time.
PATIENCE: Final = 60.0
_POLL: Final = 0.05
#: Characters of a line of a log that is shown.
_WIDTH: Final = 300
# Below the range that Linux takes outgoing connections from: there, a client that waits for a server's return
# can meet itself, and a port that was free a moment ago may carry somebody's connection.
_PORTS: Final = range(20_000, 32_000)


class Process:
    """A server process with a log of its own, of one control plane. It also ends when this process does."""

    def __init__(self, name: str, command: Sequence[str], log: Path, health: str, variables: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.health = health
        self._command = list(command)
        self._variables = dict(variables)
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return at once; see ``wait_until_ready``."""
        if self.is_running():
            raise AssertionError(f"{self.name} is running already")
        with self.log.open("ab") as log:
            # Its own session, so that Ctrl-C reaches it through us, in order. The pipe ends with this process.
            self._running = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._variables,
            )

    def wait_until_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Return once its health check says yes; raises AssertionError with the end of the log."""
        wait_for(self._is_healthy, timeout, lambda: f"{self.name} is not ready\n{self.tail()}")

    def stop(self) -> None:
        """As an administrator stops it; killed when it takes longer than STOP_TIMEOUT."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it if it runs, start it, wait until it is ready."""
        self.stop()
        self.start()
        self.wait_until_ready()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing until ``resume``."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._send(signal.SIGCONT)

    def is_running(self) -> bool:
        """Whether the process lives, paused or not."""
        return self._running is not None and self._running.poll() is None

    def cpu_seconds(self) -> float:
        """User and system time so far; 0 once it has ended."""
        if self._running is None or not self.is_running():
            return 0.0
        fields = Path(f"/proc/{self._running.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tail(self, lines: int = 20) -> str:
        """The end of its log; long lines are cut, or a failed assertion is not found among them."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(line[:_WIDTH] for line in text.splitlines()[-lines:])

    def _send(self, number: signal.Signals) -> None:
        if self._running is not None and self.is_running():
            self._running.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._running is None:
            return
        self._send(number)
        self._send(signal.SIGCONT)  # what is paused cannot end
        try:
            self._running.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()
        if self._running.stdin is not None:
            self._running.stdin.close()
        self._running = None

    def _is_healthy(self) -> bool:
        if not self.is_running():
            raise AssertionError(f"{self.name} has ended\n{self.tail()}")
        return answers_ok(self.health)


def answers_ok(url: str) -> bool:
    """Whether a GET answers 200 within 2 s."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=2, context=trusting) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_for(condition: Callable[[], bool], timeout: float, complaint: Callable[[], str]) -> None:
    """Poll until it is so; raises AssertionError with the complaint after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s: {complaint()}")
        time.sleep(_POLL)


async def eventually(condition: Callable[[], Awaitable[bool]], complaint: Callable[[], str]) -> None:
    """The same of what is awaited, within PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {PATIENCE:g} s: {complaint()}")
        await asyncio.sleep(_POLL)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    random = SystemRandom()
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
