"""What `auto` precision means on this machine; imports no torch."""

from __future__ import annotations

from pathlib import Path

#: Instruction sets that multiply bf16 matrices natively; without one, bf16 on a CPU is slower than fp32.
_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def resolve(precision: str) -> str:
    """`precision`, with `auto` replaced: bf16-mixed where the hardware computes in bf16, else 32-true."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if _has_nvidia_gpu() or _cpu_flags() & _CPU_FLAGS else "32-true"


def _has_nvidia_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def _cpu_flags() -> set[str]:
    """Flags of the first processor; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    return set(next(lines, "").split())
