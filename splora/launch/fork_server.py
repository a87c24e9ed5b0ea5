"""Workers without the seconds that importing torch, Lightning and transformers takes: forks of a process that has them.

The driver starts ``python -m splora.launch.fork_server`` once and sends it the arguments and the log of each
row. The server forks twice, and Linux gives the orphan to the driver: a worker is the driver's own child, as if it had
started it. So it is watched and stopped like any other, and outlives the server. The server imports and does nothing
else: a CUDA context, or a pool of threads in use, would not survive a fork.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36
#: Bytes of a request at most, and seconds that the server may take to answer: the first time, it is still importing.
_LARGEST, _PATIENCE = 2**20, 300.0


class ForkedProcess:
    """A worker, with what `subprocess.Popen` has of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for the signal that killed it; None while it runs."""
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status


class ForkServer:
    """The driver's end.

    Args:
        environment: of the server and all workers.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(_PATIENCE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "splora.launch.fork_server", str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        # Workers whose parent ends at once become children of this process.
        if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1) != 0:
            self.close()

    def start(self, arguments: list[str], log: int) -> ForkedProcess | None:
        """Start a worker in a session of its own; None where the server does not live.

        Args:
            arguments: of `splora.launch.worker.main`.
            log: descriptor of the file that takes what it prints.
        """
        try:
            socket.send_fds(self._channel, [json.dumps(arguments).encode()], [log])
            return ForkedProcess(int(self._channel.recv(_LARGEST)))
        except (OSError, ValueError):
            self.close()
            return None

    def close(self) -> None:
        """End the server; workers go on."""
        self._channel.close()
        self._process.kill()
        self._process.wait()


def main() -> int:
    """The server; and, in each fork, a worker."""
    from splora.launch.worker import die_with

    die_with(int(sys.argv[1]))
    channel = socket.socket(fileno=0)
    _import_what_runs_need()
    gc.freeze()  # what is imported stays; looking through it would copy its pages
    while True:
        request, (*logs,), _, _ = socket.recv_fds(channel, _LARGEST, 1)
        if not request:
            return 0
        child = os.fork()
        if child == 0:
            return _work(channel, request, logs[0])
        os.waitpid(child, 0)
        os.close(logs[0])


def _work(channel: socket.socket, request: bytes, log: int) -> int:
    """Become a worker that is a child of the driver, tell the driver its number, and run the row."""
    between = os.getpid()
    if os.fork():
        os._exit(0)
    os.setsid()
    while os.getppid() == between:
        time.sleep(0.001)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    channel.send(str(os.getpid()).encode())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    channel.detach()
    from splora.launch.worker import main as run

    sys.argv = ["worker", *json.loads(request)]
    return run(sys.argv[1:])


def _import_what_runs_need() -> None:
    # Where something is missing, the workers' logs say so.
    with suppress(ImportError):
        import lightning  # noqa: F401
        import transformers  # noqa: F401

        import splora.callbacks
        import splora.tasks.glue
        import splora.tasks.squad
        import splora.training.module  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
