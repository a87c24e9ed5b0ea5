"""What a teacher makes of a student: the losses of its logits and states, and how far predictions are from its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from splora.tasks.data_module import TaskDataModule
from splora.tasks.hub import load_config
from splora.training.losses import distillation_loss, predictions_of, states_loss, task_loss
from splora.training.options import DistillationOptions, layer_weights
from splora.training.sense import ask
from splora.training.signals import Signals
from splora.training.teacher import Teacher, check_states, feed, load_teacher


class Teaching:
    """A frozen teacher, and the weights of what is learned from it.

    Args:
        teacher: in evaluation mode, without gradients.
        options: the weights, and the temperature.
    """

    def __init__(self, teacher: Teacher, options: DistillationOptions) -> None:
        self.teacher = teacher
        self.options = options
        #: Which states are learned.
        self.hidden, self.attention = options.alpha_hidden > 0, options.alpha_attention > 0
        self._held: dict[tuple[int, ...], dict[str, Tensor]] = {}

    def to(self, device: torch.device) -> None:
        """Bring the teacher where the student is."""
        self.teacher.to(device)

    def loss(
        self, student: Signals, batch: Mapping[str, Tensor], *, labelled: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its parts by name: `distillation`, `hidden`, `attention`, those that have a weight.

        Args:
            student: its logits, and the states that are learned.
            batch: a training batch.
            labelled: whether it has labels: then the task's loss is in the sum.
        """
        options = self.options
        with torch.no_grad():
            teacher = self.teacher.signals(batch, hidden=self.hidden, attention=self.attention)
        loss = next(iter(student.logits.values())).new_zeros(())
        if labelled:
            loss = options.alpha_ce * task_loss(student.logits, batch)
        parts: dict[str, Tensor] = {}
        if options.alpha_distil > 0:
            parts["distillation"] = distillation_loss(
                predictions_of(student.logits, batch), predictions_of(teacher.logits, batch), options.temperature
            )
            loss = loss + options.alpha_distil * parts["distillation"]
        for name, weight in (("hidden", options.alpha_hidden), ("attention", options.alpha_attention)):
            if weight > 0:
                found, target = getattr(student, name), getattr(teacher, name)
                layers = torch.tensor(layer_weights(options.hidden_weights, len(target)))
                parts[name] = states_loss(found, target, batch["attention_mask"], layers)
                loss = loss + weight * parts[name]
        return loss, parts

    @torch.no_grad()
    def divergence(self, logits: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """KL(teacher ‖ student) of a held-out batch, mean over its rows; of a regression the squared difference.

        Held-out batches come alike at every evaluation: what the teacher says of them is computed once.
        """
        rows = tuple(batch["index"].tolist())
        if rows not in self._held:
            self._held[rows] = {name: values.cpu() for name, values in self.teacher(batch).items()}
        said = {name: values.to(logits[name].device) for name, values in self._held[rows].items()}
        return distillation_loss(predictions_of(logits, batch), predictions_of(said, batch), temperature=1.0)


def find_teaching(
    options: DistillationOptions, task: str, label2id: dict[str, int] | None, student: str, data: TaskDataModule
) -> Teaching:
    """Load a teacher, check it against the model that learns from it, and make what of the data is made for it.

    Args:
        options: name the teacher.
        task: what both are for.
        label2id: the student's labels; None or empty where the task has none.
        student: the model that learns.
        data: whose training and held-out rows it will see.

    Raises:
        InputError: it cannot teach (see `load_teacher`, `check_states`, `feed`, `ask`).
    """
    teacher = load_teacher(options, task, data.tokenizer, label2id)
    check_states(teacher, load_config(student), options)
    feed(teacher, options.teacher_name_or_path, data)
    ask(f"The teacher {options.teacher_name_or_path}", teacher, data)
    return Teaching(teacher, options)
