"""Whether a checkpoint brings a task's trained head: its configuration says so, or the names of its weights do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from splora import anatomy
from splora.export.storage import weight_files
from splora.tasks.registry import REGISTRY

#: Classes whose heads have the names of a sentence classifier's.
_OTHERS = ("ForTokenClassification", "ForMultipleChoice")
#: What lies between an encoder and a classifier of sentences, and not of tokens.
_BETWEEN = {"pooler", "pre_classifier"}


def has_head(name: str, config: Any, task: str) -> bool:
    """Whether a model was fine-tuned with the task's kind of head.

    A configuration may name no class, or that of the pretrained model: then the weights that lie beside it decide, so
    that nobody's trained head is taken for a new one and its labels go unread.

    Args:
        name: a folder, a hub name whose files are in the cache, or `embedded`.
        config: its configuration.
        task: by the program's own name.

    Raises:
        InputError: its weights cannot be read without running code.
    """
    head = f"For{REGISTRY[task].head}"
    made_for = [str(kind) for kind in getattr(config, "architectures", None) or []]
    if any(kind.endswith(head) for kind in made_for):
        return True
    if any(kind.endswith(_OTHERS) for kind in made_for):
        return False
    heads = set(anatomy.family_of(config).task_heads)
    answers = "qa_outputs"
    wanted = heads & {answers} if head == "ForQuestionAnswering" else heads - {answers}
    tensors = [tensor.split(".") for file in weight_files(name) for tensor in _names(file)]
    if head == "ForTokenClassification":
        bare = any(names[-2:] == ["classifier", "weight"] for names in tensors)
        return bare and not any(_BETWEEN & {*names} for names in tensors)
    return any(wanted & {*names} for names in tensors)


def _names(file: Path) -> Iterable[str]:
    """Names of a file's tensors; none of them is read where the format allows."""
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as opened:
                return list(opened.keys())
        except (SafetensorError, OSError):  # told where the weights are loaded
            return []
    from splora.checkpoints.pickled_weights import check_pickle

    return check_pickle(file)
