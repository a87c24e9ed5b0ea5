"""Where modules went whose names are known from before: importing one says so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

_POST = "splora.posttraining"
#: By their room, modules that kept their names, and those that lost a prefix to a folder.
_ROOMS = {
    f"{_POST}.core": "budget calibration choices compute drift evaluation gram outcome precision request sensitivity "
    "stages states subject sublayers text_evaluation",
    f"{_POST}.fisher": "least_squares rearrange rescale search",
    f"{_POST}.stat": "elimination folding interpolative reconstruct",
    f"{_POST}.quantize": "gptq",
    "splora.checkpoints": "checkpoint heads pickled_weights weight_names",
    "splora.export": "plan",
}
_PREFIXES = {
    "fisher": "correction gradients",
    "latency": "budget conditions fit measure search table",
    "quantize": "model options pipeline request",
    "stat": "budget default options published",
}
#: By the old name.
MOVED: dict[str, str] = {
    **{f"{_POST}.{name}": f"{room}.{name}" for room, names in _ROOMS.items() for name in names.split()},
    **{
        f"{_POST}.{room}_{name}": f"{_POST}.{room}.{name}"
        for room, names in _PREFIXES.items()
        for name in names.split()
    },
    f"{_POST}.block_surgeon": f"{_POST}.blocks.surgeon",
    f"{_POST}.stat_grams": f"{_POST}.core.layer_grams",
    f"{_POST}.quantization_grid": f"{_POST}.quantize.grid",
    "splora.scripts.launch": "splora.launch",
    "splora.scripts.plan": "splora.launch.plan",
    "splora.scripts.run_row": "splora.launch.run_row",
    "splora.scripts.console": "splora.console",
    "splora.scripts.option_help": "splora.option_help",
    "splora.scripts.opt_names": f"{_POST}.core.names",
    "splora.scripts.prune_options": f"{_POST}.command",
    "splora.training.small_opt": "splora.training.small_decoder",
}


class MovedModules(MetaPathFinder):
    """Asked last, when nobody else knows a module."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Find nothing.

        Raises:
            ModuleNotFoundError: the module is known from before.
        """
        if fullname in MOVED:
            raise ModuleNotFoundError(f"{fullname} is {MOVED[fullname]} now (CHANGELOG.md)", name=fullname)


def watch() -> None:
    """Let imports of moved modules say where these are."""
    sys.meta_path.append(MovedModules())
