"""Model families, one file each: a file that defines `FAMILY` is all that a new one needs."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from splora.anatomy.family import Family


def _found() -> dict[str, Family]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    families = [import_module(f"{__name__}.{name}").FAMILY for name in names]
    return {family.model_type: family for family in sorted(families, key=lambda family: family.causal)}


#: By model type, encoders first.
FAMILIES: dict[str, Family] = _found()
