"""Memory that was freed goes back to the system."""

from __future__ import annotations

import pytest
import torch

from splora import memory
from splora.memory import FreeMemory

MIB = 2**20

needs_glibc = pytest.mark.skipif(memory._trim() is None, reason="the C library cannot give memory back")


@needs_glibc
@pytest.mark.parametrize(("room", "given_back"), [(2**40, False), (32 * MIB, True)])
def test_what_lies_free_between_what_is_held_goes_back_where_a_process_has_outgrown_its_room(
    room: int, given_back: bool
) -> None:
    memory.return_free_memory()
    free = FreeMemory(room)
    pieces = [torch.ones(2**14) for _ in range(2048)]  # 64 KiB each
    full = memory.resident_bytes()
    held = pieces[::64]
    del pieces
    free.limit()
    gone = full - memory.resident_bytes()
    assert gone > 96 * MIB if given_back else gone < 32 * MIB
    assert all(bool((piece == 1).all()) for piece in held)


def test_where_the_library_cannot_do_it_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", lambda: None)
    monkeypatch.setattr(memory, "resident_bytes", lambda: pytest.fail("nobody asked"))
    FreeMemory(0).limit()
    memory.return_free_memory()
