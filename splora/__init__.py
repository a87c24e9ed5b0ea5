"""splora: smaller and faster transformers, with an honest account of the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splora.moved import watch

if TYPE_CHECKING:
    from splora.api import Pruned, Quantized, prune, quantize
    from splora.evaluation import evaluate
    from splora.export.cut import cut
    from splora.export.folder import load_pruned, save_pruned
    from splora.export.plan import Plan
    from splora.export.quantized import load_quantized
    from splora.training.adapter_folder import load_adapter
    from splora.training.heal import Healed, heal

#: Where each public name stands. On demand: torch and transformers take seconds to import, and most imports of this
#: package do not need them.
_PLACES = {
    "Healed": "splora.training.heal",
    "Plan": "splora.export.plan",
    "Pruned": "splora.api",
    "Quantized": "splora.api",
    "cut": "splora.export.cut",
    "evaluate": "splora.evaluation",
    "heal": "splora.training.heal",
    "load_adapter": "splora.training.adapter_folder",
    "load_pruned": "splora.export.folder",
    "load_quantized": "splora.export.quantized",
    "prune": "splora.api",
    "quantize": "splora.api",
    "save_pruned": "splora.export.folder",
}
__all__ = [
    "Healed",
    "Plan",
    "Pruned",
    "Quantized",
    "cut",
    "evaluate",
    "heal",
    "load_adapter",
    "load_pruned",
    "load_quantized",
    "prune",
    "quantize",
    "save_pruned",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)


watch()
