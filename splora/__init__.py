"""splora: smaller and faster transformers, with an honest account of the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splora.export.folder import load_pruned
    from splora.export.quantized import load_quantized
    from splora.training.adapter_folder import load_adapter

__all__ = ["load_adapter", "load_pruned", "load_quantized"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # On demand: torch and transformers take seconds to import, and most imports of this package do not need them.
    if name == "load_adapter":
        from splora.training.adapter_folder import load_adapter

        return load_adapter
    if name == "load_pruned":
        from splora.export.folder import load_pruned

        return load_pruned
    if name == "load_quantized":
        from splora.export.quantized import load_quantized

        return load_quantized
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
