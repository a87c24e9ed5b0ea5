"""Configurations written while the callbacks were a package of their own, `callbacks`, are read as they are."""

from __future__ import annotations

import re
from typing import Any

_OLD = re.compile(r"""(class_path["']?\s*:\s*["']?)callbacks\.""")


def renamed(text: str) -> str:
    """`text` with the class paths ``callbacks.X`` as they are now: ``splora.callbacks.X``."""
    return _OLD.sub(r"\1splora.callbacks.", text)


def read_old_names() -> None:
    """Make jsonargparse's loader of YAML read the old class paths, too."""
    import yaml
    from jsonargparse import get_loader, set_loader

    load: Any = get_loader("yaml")
    if getattr(load, "reads_old_names", False):
        return

    def loader(stream: str) -> Any:
        return load(renamed(stream) if isinstance(stream, str) else stream)

    loader.reads_old_names = True  # type: ignore[attr-defined]
    set_loader("yaml", loader, (yaml.YAMLError,))
