"""One task model of every family, for tests that see all families; heads take turns."""

from __future__ import annotations

from splora import anatomy

#: By class name, in the order of `anatomy.FAMILIES`; of decoders the one that writes text.
ONE_OF_EACH = [
    family.task_models[-1] if family.causal else family.task_models[number % 2]
    for number, family in enumerate(anatomy.FAMILIES.values())
]
#: Those that rows train.
TRAINED = [
    f"{family.classes}For{family.tasks[number % 2]}"
    for number, family in enumerate(anatomy.FAMILIES.values())
    if family.is_trained
]
