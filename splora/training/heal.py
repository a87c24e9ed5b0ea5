"""Healing from Python: a pruned model in memory is trained towards the dense one on batches in memory.

Loss, adapter, optimizer and their settings are those of `splora heal`, which reads data, teacher and held-out examples
from files, goes on where it was killed, and measures what came of it.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from splora import anatomy
from splora.errors import InputError, nearest
from splora.posttraining.core.calibration import is_label, to_device
from splora.posttraining.core.examples import Batch, Examples
from splora.training.configuration import lightning_config
from splora.training.heal_pipeline import trainer_on
from splora.training.healing_defaults import COMMON, RATES
from splora.training.losses import distillation_loss, predictions_of
from splora.training.model import prepare
from splora.training.optimizer import make_optimizer
from splora.training.options import AdapterOptions, DistillationOptions, OptimizerOptions, PruningOptions
from splora.training.serving import merged
from splora.training.signals import Signals, model_inputs, signals
from splora.training.specification import ADAPTERS, RunSpecification, check, scale_steps
from splora.training.teacher import Teacher, check_states
from splora.training.teaching import Teaching

#: Heads whose labels the task's loss is of.
_LABELLED = ("ForSequenceClassification", "ForQuestionAnswering", "ForTokenClassification")


#: Options whose columns a healing in memory reads, and further ones; those that are arguments of its own.
_SECTIONS = (AdapterOptions, OptimizerOptions, DistillationOptions)
_SETTINGS = ("precision", "max_grad_norm")
_OWN = ("adapter", "teacher_name_or_path", "teacher_type")


class Healed(NamedTuple):
    """A healed model, and how far its predictions and those of the model before are from the teacher's.

    Attributes:
        model: in fp32, with what was trained merged; the one before, if training did not bring it closer.
        before, after: KL(teacher ‖ model) of both, nats per prediction; of a regression, the mean squared difference.
        steps: of the optimizer.
    """

    model: nn.Module
    before: float
    after: float
    steps: int


def heal(
    model: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    held_out: Iterable[Mapping[str, Any]] | None = None,
    epochs: float = 1.0,
    max_steps: int | None = None,
    adapter: str | None = None,
    seed: int = 0,
    **columns: Any,
) -> Healed:
    """Train a pruned model towards the dense one; both stay as they are.

    Args:
        model: a task model of transformers, cut or with zeros.
        teacher: the dense model of the same task and vocabulary.
        batches: training examples, see `Examples`, a batch to a step. Labels, where encoders' batches have them, count
            with `alpha_ce`; language models learn from the teacher alone.
        held_out: examples that decide whether the healed model is closer to the teacher; None: the training ones.
        epochs: passes over the batches.
        max_steps: optimizer steps, instead of epochs.
        adapter: what trains beside biases, norms and head: `splopa`, `splora`, `lora`; `none`: all weights; None:
            `splopa`, and of language models `none`.
        seed: of the order of batches and of new weights.
        columns: of the sheet that differ from what healing does by itself, e.g. `learning_rate`, `alpha_hidden`.

    Raises:
        InputError: a value that may not be, no examples, another number of outputs or layers than the teacher's, or a
            loss that is no number.
    """
    causal = anatomy.family_of(anatomy.config_of(model)).causal
    spec = _specification(adapter or ("none" if causal else "splopa"), epochs, max_steps, seed, columns)
    examples = Examples(batches)
    judged = list(examples if held_out is None else Examples(held_out))
    steps = max_steps or math.ceil(len(examples) * epochs)
    settings = lightning_config(spec, "")
    options = settings["model"]
    device = next(model.parameters()).device
    with torch.random.fork_rng(), _frozen(teacher):
        torch.manual_seed(seed)
        taught = _SameInputs(teacher.to(device), model)
        teaching = Teaching(taught, DistillationOptions(**options["distillation"]))
        check_states(taught, anatomy.config_of(model), teaching.options)
        student = copy.deepcopy(model).float().requires_grad_(True).eval()
        before = _divergence(student, taught, judged)
        network, _ = prepare(student, AdapterOptions(**options["adapter"]), PruningOptions(method="none"))
        labelled = type(model).__name__.endswith(_LABELLED) and all(any(map(is_label, batch)) for batch in examples)
        module = _Healing(network, teaching, OptimizerOptions(**options["optimizer"]), steps, labelled)
        trainer = Trainer(
            **trainer_on(str(device)),
            max_steps=steps,
            max_epochs=-1,
            gradient_clip_val=settings["trainer"]["gradient_clip_val"],
            precision=settings["trainer"]["precision"],
            **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of workers for data that lie in memory
            rows: Any = list(examples)
            trainer.fit(module, DataLoader(rows, batch_size=None, shuffle=True))
        healed = merged(network).to(device)
        after = _divergence(healed, taught, judged)
    if after < before:
        return Healed(healed, before, after, steps)
    return Healed(copy.deepcopy(model).float(), before, before, steps)


class _SameInputs(Teacher):
    """A teacher that takes what its student takes, and whose labels are in its student's order."""

    def __init__(self, network: nn.Module, student: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network, self.order = network, _order(network, student)

    def signals(self, batch: Mapping[str, Tensor], *, hidden: bool, attention: bool) -> Signals:
        """As of any teacher."""
        found = signals(self.network, model_inputs(batch), hidden=hidden, attention=attention)
        return found._replace(logits=self._ordered(found.logits))


class _Healing(LightningModule):
    """Trains a network towards its teacher, dropout off."""

    def __init__(
        self, network: nn.Module, teaching: Teaching, options: OptimizerOptions, steps: int, labelled: bool
    ) -> None:
        super().__init__()
        self.network, self.teaching, self.options = network, teaching, options
        self.steps, self.labelled = steps, labelled

    def on_train_epoch_start(self) -> None:
        self.network.eval()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        teaching = self.teaching
        student = signals(self.network, model_inputs(batch), hidden=teaching.hidden, attention=teaching.attention)
        loss, _parts = teaching.loss(student, batch, labelled=self.labelled)
        if not torch.isfinite(loss):
            raise InputError(f"The loss is {loss.item()} at step {self.global_step}; lower learning_rate.")
        return loss

    def configure_optimizers(self) -> Any:
        warmup = scale_steps(self.options.warmup_steps, self.options.schedule_total_steps, self.steps)
        optimizer, schedule = make_optimizer(self.network, self.options, warmup, self.steps, fused=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _order(teacher: nn.Module, student: nn.Module) -> tuple[int, ...] | None:
    """The teacher's output for each of the student's labels; None where both name the same, or names say nothing."""
    if not type(student).__name__.endswith(("ForSequenceClassification", "ForTokenClassification")):
        return None
    own, wanted = (
        [str(label).lower() for _, label in sorted(anatomy.config_of(each).id2label.items())]
        for each in (teacher, student)
    )
    if own == wanted or sorted(own) != sorted(wanted) or len({*own}) < len(own):
        return None
    return tuple(own.index(label) for label in wanted)


@torch.no_grad()
def _divergence(network: nn.Module, teacher: _SameInputs, batches: Sequence[Batch]) -> float:
    """KL(teacher ‖ network), mean over predictions.

    Raises:
        InputError: they predict different numbers of classes.
    """
    device, total, count = next(network.parameters()).device, 0.0, 0
    for given in batches:
        batch = to_device(given, device)
        own = predictions_of(signals(network, model_inputs(batch), hidden=False, attention=False).logits, batch)
        said = predictions_of(teacher.signals(batch, hidden=False, attention=False).logits, batch)
        shapes = [{name: values.shape for name, values in logits.items()} for logits in (own, said)]
        if shapes[0] != shapes[1]:
            outputs = [", ".join(f"{name} {tuple(shape)}" for name, shape in each.items()) for each in shapes]
            raise InputError(f"teacher: puts out {outputs[1]} where the model puts out {outputs[0]}; heal by its own.")
        rows = len(next(iter(own.values())))
        total, count = total + rows * float(distillation_loss(own, said, temperature=1.0)), count + rows
    return total / count


def _specification(
    adapter: str, epochs: float, max_steps: int | None, seed: int, columns: Mapping[str, Any]
) -> RunSpecification:
    """The row that heals so, which holds all defaults.

    Raises:
        InputError: one sentence for each value that may not be.
    """
    known = [field.name for field in fields(RunSpecification)]
    problems = [
        f"{name}: is no column of the sheet{nearest(name, known) or '.'}" for name in columns if name not in known
    ]
    used = {*_SETTINGS, *(name for kind in _SECTIONS for each in fields(kind) for name in each.metadata["columns"])}
    problems += [
        f"{name}: changes nothing here; columns that do are {', '.join(sorted(used - {*_OWN}))}."
        for name in columns
        if name in known and name not in used - {*_OWN}
    ]
    if adapter not in ADAPTERS:
        problems.append(f"adapter is {adapter!r}; allowed are {', '.join(ADAPTERS)}{nearest(adapter, ADAPTERS) or '.'}")
    if not 0 < epochs < float("inf"):
        problems.append(f"epochs is {epochs!r}; it must be above 0.")
    if problems:
        raise InputError(problems)
    defaults = {**COMMON, **RATES[adapter]}
    spec = RunSpecification(teacher_name_or_path="teacher", adapter=adapter, seed=seed, max_steps=max_steps, **defaults)
    spec = replace(spec, **columns)
    problems = [f"{problem.field} {problem.message.rstrip('.')}." for problem in check(spec)]
    if problems:
        raise InputError(problems)
    return spec


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode and without gradients while the block runs; afterwards where and as it was."""
    training, place = model.training, next(model.parameters()).device
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.to(place).train(training)
        for parameter, gradient in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(gradient)
