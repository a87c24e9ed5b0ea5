"""Programs of this project in processes of their own, without the seconds that importing torch and Lightning takes.

Each is the fork of a process that has imported them and done nothing else, its *nursery*; so it differs from a program
that was started anew only in what is imported already, which a test of imports must not use. A program has a nursery,
too: what it starts itself (workers, the server that they are forked from, the other processes of a run over several
devices) are its own children, with the signals, locks and exit statuses of any other process.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import inspect
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path
from typing import Any

#: What a run serves is timed on two short sequences, once: tests have hundreds of runs and look at no clock.
QUICK_LATENCIES = {"SEQUENCES": 2, "TOKENS": 16, "ROUNDS": 1}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LARGEST = 2**20
_OPTIONS = list(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]  # type: ignore[attr-defined]


#: The standard library's own, also where a test puts `Program` in its place.
_POPEN = subprocess.Popen


class Program(subprocess.Popen[Any]):
    """`subprocess.Popen`, forked where it is a program of Python (on Linux)."""

    nursery: socket.socket | None = None

    def _execute_child(self, *values: Any) -> None:
        given = dict(zip(_OPTIONS, values, strict=True))
        words = [os.fspath(word) for word in given["args"]] if isinstance(given["args"], (list, tuple)) else [""]
        if sys.platform != "linux" or words[0] != sys.executable or given["preexec_fn"] is not None:
            super()._execute_child(*values)  # type: ignore[misc]
            return
        if Program.nursery is None:
            Program.nursery = _first_nursery()
        # The process between the nursery and the program ends at once: whoever asked becomes the program's parent.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        request = {
            "words": words[1:],
            "place": os.fspath(given["cwd"] or Path.cwd()),
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "session": given.get("unused_start_new_session", given.get("start_new_session")),
        }
        ends = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        descriptors = [own if end == -1 else end for own, end in enumerate(ends)]
        socket.send_fds(Program.nursery, [json.dumps(request).encode()], descriptors)
        self.pid = int(Program.nursery.recv(_LARGEST))
        self._child_created = True
        self._close_pipe_fds(*values[10:16])  # type: ignore[attr-defined]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of a program, with what it prints."""
    timeout = options.pop("timeout", 300)
    ends = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Program(command, text=True, **(ends | options)) as program:
        try:
            out, err = program.communicate(timeout=timeout)
        except BaseException:
            program.kill()
            raise
    return subprocess.CompletedProcess(command, program.returncode, out, err)


def _first_nursery() -> socket.socket:
    """Start the nursery of a process that is no fork; returns the channel to it."""
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = _POPEN(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=theirs.fileno(),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            start_new_session=True,
        )

    def close() -> None:
        channel.close()
        process.kill()
        process.wait()

    atexit.register(close)
    return channel


def _main() -> None:
    subprocess.Popen = Program  # type: ignore[misc]
    channel = socket.socket(fileno=os.dup(0))
    _forget_output()
    from splora.launch.fork_server import _import_what_runs_need

    _import_what_runs_need()
    import splora.posttraining.pipeline  # noqa: F401
    from splora.training import serving

    for name, value in QUICK_LATENCIES.items():
        setattr(serving, name, value)
    gc.freeze()
    request, descriptors, answer = _serve(channel)
    if request["session"]:
        os.setsid()
    os.chdir(request["place"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for own, descriptor in enumerate(descriptors):
        os.dup2(descriptor, own)
        os.close(descriptor)
    answer.send(str(os.getpid()).encode())
    answer.close()
    random.seed()
    tempfile.tempdir = None  # looked up again where it is asked for: the environment names it
    status = 0
    try:
        _become(request["words"])
    except SystemExit as ended:
        if isinstance(ended.code, str):
            raise
        status = int(ended.code or 0)
    # What is imported is not taken apart again, which would copy all its pages.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)


def _serve(channel: socket.socket) -> tuple[dict[str, Any], list[int], socket.socket]:
    """Fork a program for each request, until whoever asks is gone; returns in the programs.

    Returns:
        What was asked for, the descriptors that become its input and outputs, and where to say its number.
    """
    while True:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        request, descriptors, _, _ = socket.recv_fds(channel, _LARGEST, 3)
        if not request:
            os._exit(0)
        if between := os.fork():
            os.waitpid(between, 0)
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        between = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == between:
            os.sched_yield()
        Program.nursery, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            return json.loads(request), descriptors, channel
        # The program's own nursery, which is what this process is now.
        for descriptor in descriptors:
            os.close(descriptor)
        channel.close()
        Program.nursery.close()
        os.setsid()
        channel = theirs


def _become(words: list[str]) -> None:
    """Do what `python` does with these words; exceptions end the process as they end any."""
    if words[0] == "-u" or os.environ.get("PYTHONUNBUFFERED"):
        words = words[words[0] == "-u" :]
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], str(Path.cwd())
        sys.modules.pop(words[1], None)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(words[1], vars(module))
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


def _forget_output() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for own in range(3):
        os.dup2(nothing, own)
    os.close(nothing)


if __name__ == "__main__":
    _main()
