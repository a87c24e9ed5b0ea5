"""The teacher of a distillation: frozen, fine-tuned, speaking the student's vocabulary, fed what was made for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from splora.anatomy import config_of
from splora.errors import InputError, named
from splora.tasks.data_module import Split, TaskDataModule
from splora.tasks.features import WIDTH_MULTIPLE
from splora.tasks.model_inputs import SEGMENTS, check_length, fit_tokenizer, padding
from splora.tasks.registry import REGISTRY
from splora.training.losses import logits_of
from splora.training.options import DistillationOptions, layer_weights
from splora.training.signals import TEACHER_SEGMENTS, Signals, signals


class Teacher(nn.Module):
    """Gives a student's batch the form that the teacher was trained on, and its answers that of the student's.

    Args:
        network: the teacher's own model.
        tokenizer: its own, too.
        order: for each of the student's outputs, the teacher's output of that label; None: the same ones.
    """

    def __init__(self, network: nn.Module, tokenizer: Any, order: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.order = order
        self.pad_token_id = padding(network.config, tokenizer)

    @property
    def needs_segments(self) -> bool:
        """Whether its own tokenizer makes segments for it."""
        return SEGMENTS in self.tokenizer.model_input_names

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits, fp32, in the student's order of labels (see `losses.logits_of`), of a training batch."""
        return self._ordered(logits_of(self.network(**self._inputs(batch))))

    def signals(self, batch: Mapping[str, Tensor], *, hidden: bool, attention: bool) -> Signals:
        """As `forward`, with what the layers put out (see `signals.signals`)."""
        found = signals(self.network, self._inputs(batch), hidden=hidden, attention=attention)
        return found._replace(logits=self._ordered(found.logits))

    def _inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        mask = batch["attention_mask"]
        inputs = {"input_ids": batch["input_ids"].masked_fill(mask == 0, self.pad_token_id), "attention_mask": mask}
        if self.needs_segments:
            inputs[SEGMENTS] = batch[TEACHER_SEGMENTS]
        return inputs

    def _ordered(self, logits: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.order is None:
            return logits
        return {name: values[..., list(self.order)] for name, values in logits.items()}


def load_teacher(
    options: DistillationOptions, task: str, tokenizer: Any, label2id: dict[str, int] | None = None
) -> Teacher:
    """The teacher in evaluation mode, without gradients.

    Args:
        tokenizer: the student's.
        label2id: the student's labels; None or empty where the task has none.

    Raises:
        InputError: no such model, another family than `teacher_type` says, another vocabulary than the
            student's, other labels, or a model without a trained head for the task (see `checkpoint.load_weights`).
    """
    from splora.checkpoints.checkpoint import check_outputs, load_weights
    from splora.checkpoints.heads import has_head
    from splora.tasks.hub import load_config, load_tokenizer

    path = options.teacher_name_or_path
    config = load_config(path)
    if options.teacher_type is not None and config.model_type != options.teacher_type:
        raise InputError(
            f"teacher_type is {options.teacher_type!r}, but the teacher {path} is a {config.model_type!r} model."
        )
    if not has_head(path, config, task):
        head = REGISTRY[task].head
        architectures = " ".join(getattr(config, "architectures", None) or [])
        raise InputError(
            f"The teacher {path} is no fine-tuned {head} model; its config says {architectures or 'nothing'}."
        )
    own = fit_tokenizer(path, load_tokenizer(path), config)
    if own.get_vocab() != tokenizer.get_vocab():
        raise InputError(f"The teacher {path} has another vocabulary than the student; their tokens would not match.")
    check_outputs(path, config, task)
    network = load_weights(path, config, task).eval().requires_grad_(False)
    return Teacher(network, own, _order(path, config, task, label2id)).eval()


def feed(teacher: Teacher, name: str, data: TaskDataModule) -> None:
    """Add to the training rows of a data module what the teacher needs besides the student's inputs.

    The rows that are held out are compared with what the teacher says of them, and are fed to it, too.

    Raises:
        InputError: the teacher has fewer positions than rows have tokens, or its tokenizer cuts texts otherwise.
    """
    splits: tuple[Split, ...] = ("train", "held") if data.held_out else ("train",)
    for split in splits:
        features = data.features(split)
        # As wide as the widest batch is padded.
        width = min(-(-int(features.lengths.max()) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE, data.width)
        check_length(f"the teacher {name}", teacher.network.config, width, "The length of training rows")
        segments = data.teacher_segments(name, teacher.tokenizer, split)
        if teacher.needs_segments:
            features.columns[TEACHER_SEGMENTS] = segments


def check_states(teacher: Teacher, student: Any, options: DistillationOptions) -> None:
    """Refuse a teacher whose states have no counterparts in the student, where they are to be learned.

    Args:
        student: the configuration of the model that learns.

    Raises:
        InputError: another number of layers, or of channels, or of weights for layers.
    """
    if not (options.alpha_hidden or options.alpha_attention):
        return
    shapes = [(config.num_hidden_layers, config.hidden_size) for config in (config_of(teacher.network), student)]
    if shapes[0] != shapes[1]:
        (layers, width), (own_layers, own_width) = shapes
        raise InputError(
            f"The teacher {options.teacher_name_or_path} has {layers} layers, {width} wide, and the student "
            f"{own_layers} layers, {own_width} wide; alpha_hidden and alpha_attention need the same of both."
        )
    layer_weights(options.hidden_weights, shapes[0][0])


def _order(path: str, config: Any, task: str, label2id: dict[str, int] | None) -> tuple[int, ...] | None:
    """The teacher's output for each output of the student; None where they are the same."""
    if not label2id or not REGISTRY[task].classes:
        return None
    known = REGISTRY[task]
    teacher = [known.meaning(label) for _, label in sorted(config.id2label.items())]
    student = [known.meaning(label) for label, _ in sorted(label2id.items(), key=lambda item: item[1])]
    if sorted(map(str, teacher)) != sorted(map(str, student)):
        raise InputError(f"The teacher {path} has other labels than the student: {named(map(str, teacher))}.")
    order = tuple(teacher.index(label) for label in student)
    return None if order == tuple(range(len(order))) else order
