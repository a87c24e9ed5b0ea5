"""Rows on a Ray cluster: every row is a task with its resources, started again elsewhere when its node dies.

A task starts the same worker process that the local launcher starts, on whatever node Ray chooses. All nodes must see
the output folder (and the data) under the same path and have this project installed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import appending
from splora.launch.local import threads_of, worker_command
from splora.launch.work import Work
from splora.training.state import LOG

#: Starts of a row after its node died.
RETRIES = 10
#: Seconds that a cluster may take to answer, and its nodes to look at a folder.
_ANSWER, _LOOK = 10.0, 60.0
#: Rows submitted at once where nothing else is asked; Ray keeps those that do not fit yet.
_MANY = 10_000


class RayRun:
    """A row that is a task of a cluster."""

    def __init__(self, ray: Any, task: Any) -> None:
        self._ray = ray
        self._task = task

    def outcome(self) -> int | None:
        """Exit status of the worker process on whatever node it ran last; None while it waits or runs."""
        done, _ = self._ray.wait([self._task], timeout=0)
        if not done:
            return None
        try:
            return int(self._ray.get(self._task))
        except self._ray.exceptions.TaskCancelledError:
            return -signal.SIGINT
        except self._ray.exceptions.WorkerCrashedError:
            return -signal.SIGKILL
        except self._ray.exceptions.RayError as error:
            print(f"warning: Ray: {str(error).strip().splitlines()[-1]}", flush=True)
            return -signal.SIGKILL if isinstance(error, self._ray.exceptions.NodeDiedError) else 1

    def interrupt(self) -> None:
        """Ask it to write a checkpoint and stop: Ray raises KeyboardInterrupt in the task."""
        self._ray.cancel(self._task, force=False)

    def kill(self) -> None:
        """Stop it now; the worker process dies with its task's."""
        self._ray.cancel(self._task, force=True)


class RayLauncher:
    """Starts rows as tasks of a Ray cluster.

    Args:
        root: the output folder, which all nodes share.
        address: ``host:port`` of a cluster, or ``auto``: the one of this machine; None: a local one is started, which
            listens on the loopback interface alone.
        gpus: GPUs of a row; None: 1 where the cluster has any.
        cpus: cores of a row, and its threads; None: 1.
        jobs: rows at once at most; None or ``auto``: as many as fit.

    Raises:
        InputError: Ray is missing, no cluster answers, no node is large enough, or the folder is not shared.
    """

    def __init__(
        self,
        root: Path,
        address: str | None = None,
        gpus: float | None = None,
        cpus: int | None = None,
        jobs: str | None = None,
    ) -> None:
        if jobs not in (None, "auto") and not (jobs.isdigit() and int(jobs) > 0):
            raise InputError(f"--jobs: is {jobs!r}; allowed are whole numbers from 1, and auto.")
        self._ray = _connected(address)
        try:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            most = max((node["Resources"].get("GPU", 0.0) for node in nodes), default=0.0)
            self._gpus = gpus if gpus is not None else min(1.0, most)
            self._cpus = cpus or 1
            _refuse_too_much(nodes, self._gpus, self._cpus)
            _refuse_unshared(self._ray, nodes, root.resolve())
        except BaseException:
            self._ray.shutdown()
            raise
        self.slots = int(jobs) if jobs not in (None, "auto") else _MANY

    def start(self, work: Work) -> RayRun:
        """Submit a row; it runs when its resources are free."""
        # Ray sets CUDA_VISIBLE_DEVICES for the task, and the worker process inherits it.
        task = self._ray.remote(run_worker).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_retries=RETRIES, name=f"EXP ID {work.name}"
        )
        folder = work.folder.resolve()
        words = worker_command(work, self._cpus)
        words[words.index(str(work.folder))] = str(folder)
        # The interpreter is the node's own.
        return RayRun(self._ray, task.remote(words[1:], str(folder), str(Path.cwd()), self._cpus))

    def close(self) -> None:
        """Leave the cluster, or stop the local one."""
        self._ray.shutdown()


def run_worker(words: list[str], folder: str, place: str, threads: int) -> int:
    """The task: run the worker process of a row to its end, on this node; returns its exit status.

    Args:
        words: the worker's command, without the interpreter.
        folder: the run's folder.
        place: folder that relative paths of the row start from.
    """
    import sys

    # Ray interrupts only where Python listens; a cluster started in the background of a script does not.
    with suppress(ValueError):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with appending(Path(folder) / LOG) as log:
        process = subprocess.Popen(
            [sys.executable, *words, "--parent", str(os.getpid())],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **threads_of(threads)},
            start_new_session=True,
        )
    while process.poll() is None:
        try:
            time.sleep(0.2)  # Ray cancels a task by an interruption that a wait without end would not notice
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
    return process.returncode


def look_for(path: str) -> bool:
    """Whether this node sees that file."""
    return Path(path).is_file()


def _connected(address: str | None) -> Any:
    """Ray, connected to the cluster at `address` or to a new local one.

    Raises:
        InputError: Ray is missing, or no cluster answers.
    """
    # Workers inherit the environment of the command's own process where Ray would give each an environment anew.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        # Whoever reaches Ray's ports runs what he likes, and by default they are open on all interfaces. Ray reads this
        # when it is imported: without clusters, on whatever system, it takes the loopback address for this machine's.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise InputError("--launcher ray: Ray is not installed; pip install 'splora[ray]'.") from None
    if address not in (None, "auto"):
        _refuse_silent(str(address))
    try:
        ray.init(address=address or "local", log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises bare ones, too, where a busy machine is slow to start it
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = "no Ray cluster answers" if address else "no Ray cluster of this machine alone can be started"
        raise InputError(f"--address {address or 'local'}: {reason} ({first}).") from error
    return ray


def _refuse_silent(address: str) -> None:
    """Ray itself waits long for an address where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--address: is {address!r}; allowed are auto and host:port, as in 10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--address {address}: no Ray cluster answers there ({reason}).") from error


def _refuse_too_much(nodes: list[dict[str, Any]], gpus: float, cpus: int) -> None:
    """Ray would wait forever for a node that does not exist."""
    problems = []
    for option, name, asked in (("--gpus-per-run", "GPU", gpus), ("--cpus-per-run", "CPU", cpus)):
        most = max((node["Resources"].get(name, 0.0) for node in nodes), default=0.0)
        if asked > most:
            problems.append(f"{option}: is {asked:g}; the largest node of the cluster has {most:g} {name}s.")
    if problems:
        raise InputError(problems)


def _refuse_unshared(ray: Any, nodes: list[dict[str, Any]], root: Path) -> None:
    """Every node must see what is written into the output folder here."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = root / f".shared.{uuid.uuid4().hex[:8]}.tmp"
    token.touch()
    try:
        looks = {}
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            task = ray.remote(look_for).options(num_cpus=0, scheduling_strategy=here)
            looks[task.remote(str(token))] = str(node["NodeManagerAddress"])
        # A node that is too busy to look is believed: its first row would tell.
        done, _ = ray.wait(list(looks), num_returns=len(looks), timeout=_LOOK)
        blind = sorted({looks[look] for look in done if not ray.get(look)})
    finally:
        with suppress(OSError):
            token.unlink()
    if blind:
        raise InputError(
            f"{root}: is not shared with {', '.join(blind)}; choose an --output-dir that all nodes of the cluster see."
        )
