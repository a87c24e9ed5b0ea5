"""A process that does not see splora."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[str], dict[str, Tensor]]:
    """Runs a program in the test's folder, isolated and offline, and returns what it left in `found.safetensors`."""

    def run(program: str) -> dict[str, Tensor]:
        (tmp_path / "elsewhere.py").write_text(program)
        quiet = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-I", "elsewhere.py"],
            cwd=tmp_path,
            env=os.environ | quiet,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return load_file(tmp_path / "found.safetensors")

    return run
