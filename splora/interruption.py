"""Ctrl-C, a closed terminal and a polite kill end a command as its own exceptions would: tidied up, in one line."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

#: Seconds in which a second signal means the first: a closed terminal sends one from the shell and one from the system.
ONE_WISH = 2.0
#: By number, what a person did.
_TOLD = {"SIGINT": "Ctrl-C", "SIGHUP": "the terminal was closed", "SIGTERM": "asked to end"}


@contextmanager
def ending_tidily() -> Iterator[None]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP unwind it, say so in one line and leave with 128 + their number.

    What is half-written is removed on the way, by whoever was writing it. In a thread that is not the main one, only a
    `KeyboardInterrupt` is looked at. A signal that is ignored (SIGHUP under nohup) stays ignored.

    Raises:
        SystemExit: a signal came.
    """
    asked = 0.0

    def end(kind: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and time.monotonic() - asked < ONE_WISH:
            return
        asked = time.monotonic()
        raise KeyboardInterrupt(kind)

    before = {}
    try:
        for name in _TOLD:
            kind = getattr(signal, name, None)
            if kind is not None and signal.getsignal(kind) is not signal.SIG_IGN:
                with suppress(ValueError):  # not in the main thread
                    before[kind] = signal.signal(kind, end)
        yield
    except KeyboardInterrupt as error:
        kind = signal.Signals(error.args[0] if error.args else signal.SIGINT)
        with suppress(OSError, ValueError):  # the terminal is gone
            print(f"\nstopped ({_TOLD[kind.name]}); nothing half-written is left.", file=sys.stderr, flush=True)
        raise SystemExit(128 + kind) from None
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
