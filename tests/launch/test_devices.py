"""Which devices and threads each job gets."""

from __future__ import annotations

import pytest

from splora.errors import InputError
from splora.launch import devices
from splora.launch.devices import Slot, named_gpus, slots


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight cores, 18 GiB, and no GPU."""
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.setattr(devices, "free_memory", lambda: 18 * 2**30)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return monkeypatch


def test_threads_of_a_cpu_are_divided(machine: pytest.MonkeyPatch) -> None:
    assert slots("2", 10) == [Slot(None, 4)] * 2
    assert slots("3", 10) == [Slot(None, 2)] * 3
    assert slots("5", 2) == [Slot(None, 4)] * 2  # never more jobs than rows
    assert slots("16", 20) == [Slot(None, 1)] * 16
    assert slots("2", 2, devices=2) == [Slot(None, 2)] * 2  # two processes a row
    assert len(slots("auto", 10)) == 4  # 18 GiB are enough for four
    machine.setenv("OMP_NUM_THREADS", "1")
    assert slots("2", 10) == [Slot(None, 1)] * 2


def test_each_job_sees_its_own_gpus(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert [slot.gpus for slot in slots("auto", 10)] == ["4", "5", "6"]
    assert [slot.gpus for slot in slots("auto", 2)] == ["4", "5"]
    assert [slot.gpus for slot in slots("auto", 10, devices=2)] == ["4,5"]
    assert [slot.gpus for slot in slots("5", 10)] == ["4", "5", "6", "4", "5"]
    assert {slot.gpus for slot in slots("2", 2, accelerator="cpu")} == {""}


def test_gpus_are_named_as_the_driver_lists_them() -> None:
    listing = (
        "GPU 0: NVIDIA H100 (UUID: GPU-a)\n  MIG 3g.40gb Device 0: (UUID: MIG-b)\n"
        "  MIG 3g.40gb Device 1: (UUID: MIG-c)\nGPU 1: NVIDIA H100 (UUID: GPU-d)\n"
    )
    assert named_gpus(listing) == ["MIG-b", "MIG-c", "1"]
    assert named_gpus("No devices found.\n") == []


def test_numbers_that_cannot_be(machine: pytest.MonkeyPatch) -> None:
    for jobs in ("0", "-1", "two", "1.5", ""):
        with pytest.raises(InputError, match=r"--jobs: is .*auto"):
            slots(jobs, 3)
    machine.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(InputError, match="this machine has 1 GPU"):
        slots("auto", 3, devices=2)
