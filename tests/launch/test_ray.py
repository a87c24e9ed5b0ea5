"""Rows on a real Ray cluster of two nodes on loopback; one of them dies while it runs a row."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splora.errors import InputError
from splora.launch.ray_launcher import RayLauncher, _refuse_too_much, _refuse_unshared
from splora.launch.start import check
from splora.locks import RUN_LOCK, is_held

ALONE = ("--set", "model_name_or_path=embedded", "--set", "teacher_name_or_path=")
#: The cluster in a process of its own: this one must stay free of Ray's threads and handlers. It kills its second node
#: when a line comes in.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=2)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print("killed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[SimpleNamespace]:
    """Two nodes, of one core and of two."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'splora[ray]'")
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address

    def kill_second() -> None:
        print(file=process.stdin, flush=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "killed"

    yield SimpleNamespace(address=address, kill_second=kill_second)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_row_goes_on_from_its_checkpoint_when_its_node_dies(cluster: SimpleNamespace, sweep: SimpleNamespace) -> None:
    there = ("--launcher", "ray", "--address", cluster.address)
    refused = sweep.finish("--exp-id", "2", *ALONE, *there, "--gpus-per-run", "1", "--cpus-per-run", "9")
    assert (refused.status, len(refused.lines)) == (2, 2), refused.lines
    assert "--gpus-per-run: is 1; the largest node of the cluster has 0 GPUs." in refused.lines[0]
    process = sweep.start("--exp-id", "2", "4", *ALONE, *there, steps=100)
    checkpoints = [sweep.folder / str(row) / "checkpoints" / "last.ckpt" for row in (2, 4)]
    deadline = time.monotonic() + 150
    while process.poll() is None and not all(path.exists() for path in checkpoints):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.poll() is None
    cluster.kill_second()
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "2 rows: 2 finished, 0 failed."
    logs = [(sweep.folder / str(row) / "log.txt").read_text(encoding="utf-8") for row in (2, 4)]
    assert sum("going on from the last checkpoint" in log for log in logs) >= 1
    assert all(log.count("EXP ID") >= 2 for log in logs)
    assert not any(is_held(sweep.folder / str(row) / RUN_LOCK) for row in (2, 4))


def test_an_address_where_no_cluster_answers(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'splora[ray]'")
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        RayLauncher(tmp_path, address="127.0.0.1:9")
    for address in ("nowhere", "a:b", ":1"):
        with pytest.raises(InputError, match="host:port"):
            RayLauncher(tmp_path, address=address)


def test_ray_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return importing(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'splora\[ray\]'"):
        RayLauncher(tmp_path)


@pytest.mark.parametrize("address", [None, "auto"])
def test_without_an_address_nothing_listens_beyond_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    seen: list[Any] = []

    def init(**options: Any) -> None:
        seen.append((options["address"], os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")))
        raise Exception("The current node timed out during startup.")

    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "")  # restored afterwards
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with pytest.raises(InputError, match="timed out during startup"):
        RayLauncher(tmp_path, address=address)
    assert seen == [("local", "0") if address is None else ("auto", None)]


@pytest.mark.slow
def test_a_cluster_of_this_machine_listens_on_loopback_only(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'splora[ray]'")
    psutil = pytest.importorskip("psutil")
    code = "import sys, pathlib; from splora.launch.ray_launcher import RayLauncher as Start; "
    code += "Start(pathlib.Path(sys.argv[1])).close()"
    words = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    listening: dict[str, set[str]] = {}
    try:
        while process.poll() is None and not {"gcs_server", "raylet"} <= listening.keys():
            time.sleep(0.2)
            names = {child.pid: child.name() for child in psutil.Process(process.pid).children(recursive=True)}
            for found in psutil.net_connections("tcp"):
                if found.status == "LISTEN" and found.pid in names:
                    listening.setdefault(names[found.pid], set()).add(found.laddr.ip.removeprefix("::ffff:"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert {address for addresses in listening.values() for address in addresses} == {"127.0.0.1"}, listening


def test_more_than_any_node_has() -> None:
    nodes = [{"Resources": {"CPU": 8.0, "GPU": 2.0}}, {"Resources": {"CPU": 16.0}}]
    _refuse_too_much(nodes, 2.0, 16)
    with pytest.raises(InputError) as caught:
        _refuse_too_much(nodes, 4.0, 32)
    assert len(caught.value.problems) == 2
    assert "the largest node of the cluster has 2 GPUs" in caught.value.problems[0]


def test_options_that_do_not_go_together(options: Namespace) -> None:
    vars(options).update(jobs=None, launcher="local", address="auto", gpus_per_run=1.0, cpus_per_run=None)
    with pytest.raises(InputError) as caught:
        check(options)
    assert caught.value.problems == ["--address: needs --launcher ray.", "--gpus-per-run: needs --launcher ray."]
    vars(options).update(launcher="ray", gpus_per_run=-1.0, cpus_per_run=0)
    with pytest.raises(InputError, match=r"--gpus-per-run: is -1.0; at least 0 is needed.\n--cpus-per-run"):
        check(options)
    vars(options).update(launcher="slurm", address=None, gpus_per_run=None, cpus_per_run=None)
    with pytest.raises(InputError, match="allowed are local, ray"):
        check(options)


def test_an_output_folder_that_a_node_does_not_see(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'splora[ray]'")

    class Elsewhere:
        """A cluster whose second node has another file system."""

        def __init__(self) -> None:
            self.looks = 0

        def remote(self, look: Any) -> Any:
            """A task that looks for the file, on the second node in vain."""

            def submit(path: str) -> tuple[int, bool]:
                self.looks += 1
                return self.looks, look(path) and self.looks == 1

            return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=submit))

        def wait(self, looks: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
            """All are done."""
            return looks, []

        def get(self, look: tuple[int, bool]) -> bool:
            """What it saw."""
            return look[1]

    nodes = [{"NodeID": 2 * "0" * 28, "NodeManagerAddress": name} for name in ("one", "two")]
    with pytest.raises(InputError, match=r"is not shared with two; choose an --output-dir"):
        _refuse_unshared(Elsewhere(), nodes, tmp_path)
    assert list(tmp_path.iterdir()) == []
