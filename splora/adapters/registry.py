"""The one place that makes SPLoPA and SPLoRA known to PEFT, under the plain strings ``SPLOPA`` and ``SPLORA``.

PEFT's own `register_peft_method` takes only members of its `PeftType` enumeration, so the entries are written into the
registries that it would fill. They are no promise of PEFT; should a release change them, `register` says so.
"""

from __future__ import annotations

from typing import Any

from splora.errors import InputError

#: Registry of `peft.mapping` → what this project writes into it.
_REGISTRIES = ("PEFT_TYPE_TO_CONFIG_MAPPING", "PEFT_TYPE_TO_TUNER_MAPPING", "PEFT_TYPE_TO_PREFIX_MAPPING")


def register(name: str, config_class: type[Any], model_class: type[Any]) -> None:
    """Make the PEFT method `name` (``SPLOPA``) usable by `get_peft_model` and `PeftModel.from_pretrained`.

    Registering the same classes again changes nothing.

    Raises:
        InputError: this release of PEFT keeps its methods elsewhere, or something else goes by that name.
    """
    import peft
    import peft.mapping

    entries: list[tuple[dict[str, Any], Any]] = []
    for registry, entry in zip(_REGISTRIES, (config_class, model_class, model_class.prefix), strict=True):
        found = getattr(peft.mapping, registry, None)
        if not isinstance(found, dict):
            raise InputError(
                f"PEFT {peft.__version__} has no dictionary peft.mapping.{registry}, where the adapter method {name} "
                f"belongs; install a release that has it: pip install 'peft>=0.21,<0.22'."
            )
        if found.get(name, entry) != entry:
            raise InputError(
                f"PEFT {peft.__version__} already knows a method {name} ({found[name]!r}), so this project's cannot be "
                f"registered; install a release that does not: pip install 'peft>=0.21,<0.22'."
            )
        entries.append((found, entry))
    for found, entry in entries:
        found[name] = entry
