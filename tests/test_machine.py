"""Memory that was freed goes back to the system."""

from __future__ import annotations

import pytest
import torch

from splora import machine

MIB = 2**20


@pytest.mark.skipif(machine._glibc() is None, reason="the C library cannot tell what it keeps")
def test_freed_memory_between_what_is_held_goes_back_where_it_is_more_than_is_allowed() -> None:
    pieces = [torch.ones(2**14) for _ in range(2048)]  # 64 KiB each
    full = machine.resident_bytes()
    held = pieces[::64]
    del pieces
    machine.return_free_memory(2**40)
    assert full - machine.resident_bytes() < 32 * MIB
    machine.return_free_memory(0)
    assert full - machine.resident_bytes() > 96 * MIB
    assert all(bool((piece == 1).all()) for piece in held)


def test_where_the_library_cannot_tell_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_glibc", lambda: None)
    monkeypatch.setattr(machine, "resident_bytes", lambda: pytest.fail("nobody asked"))
    machine.return_free_memory(0)
