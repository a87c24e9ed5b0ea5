"""The teacher of a distillation: frozen, fine-tuned, and speaking the student's vocabulary."""

from __future__ import annotations

from typing import Any

from torch import nn

from splora.errors import InputError
from splora.training.model import load_base
from splora.training.options import DistillationOptions


def load_teacher(
    options: DistillationOptions, task: str, tokenizer: Any, label2id: dict[str, int] | None = None
) -> nn.Module:
    """The teacher in evaluation mode, without gradients.

    Raises:
        InputError: no such model, another family than `teacher_type` says, another vocabulary than the
            student's, other labels or another order of them, or a model without a trained head for the task.
    """
    from splora.tasks.hub import load_config, load_tokenizer

    path = options.teacher_name_or_path
    config = load_config(path)
    if options.teacher_type is not None and config.model_type != options.teacher_type:
        raise InputError(
            f"teacher_type is {options.teacher_type!r}, but the teacher {path} is a {config.model_type!r} model."
        )
    architectures = " ".join(getattr(config, "architectures", None) or [])
    head = "QuestionAnswering" if task.startswith("squad") else "SequenceClassification"
    if head not in architectures:
        raise InputError(
            f"The teacher {path} is no fine-tuned {head} model; its config says {architectures or 'nothing'}."
        )
    if load_tokenizer(path).get_vocab() != tokenizer.get_vocab():
        raise InputError(f"The teacher {path} has another vocabulary than the student; their tokens would not match.")
    own = {str(name): int(number) for name, number in (config.label2id or {}).items()}
    unnamed = all(name.upper().startswith("LABEL_") for name in own)
    if label2id and (own != label2id and not (unnamed and len(own) == len(label2id))):
        raise InputError(f"The teacher {path} has the labels {own}, the student {label2id}; they must be the same.")
    teacher = load_base(path, task)
    return teacher.eval().requires_grad_(False)
