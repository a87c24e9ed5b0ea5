"""The LightningModule: one network, its masks, its losses. Callbacks schedule it; data modules score it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from splora.checkpoints.heads import has_head
from splora.errors import InputError
from splora.export.zeros import zeros_of
from splora.files import write_json
from splora.machine import is_first_process
from splora.masks import BlockMask, penalties, update_global_cutoffs
from splora.tasks.data_module import TaskDataModule
from splora.training.checkpoint_files import checkpoint_of
from splora.training.counting import WeightCounts, count_weights, mask_density
from splora.training.evaluation import DivergenceMeter, OutputCollector
from splora.training.filling import fill_heads
from splora.training.half_base import keep_trained_in_single
from splora.training.known_scores import prepare_to_train
from splora.training.losses import logits_of, task_loss
from splora.training.model import load_base
from splora.training.optimizer import make_optimizer
from splora.training.options import (
    AdapterOptions,
    DistillationOptions,
    OptimizerOptions,
    PruneFirstOptions,
    PruningOptions,
    check_model_section,
    described,
)
from splora.training.prune_first import pruned_start
from splora.training.saving import check_fits, load_run
from splora.training.sense import ask
from splora.training.signals import Signals, model_inputs, signals
from splora.training.specification import DIVERGENCE, scale_steps
from splora.training.teaching import Teaching, find_teaching
from splora.training.threads import fit_threads

#: Share of zeros among an encoder's weights that somebody must have pruned.
_MANY_ZEROS = 0.01


@described(task="task")
class PruningModule(LightningModule):
    """Fine-prunes a pretrained encoder for question answering or sequence classification.

    Args:
        model_name_or_path: pretrained encoder: hub name, folder, or `embedded`.
        adapter: ΔW over frozen weights; `none` trains the weights themselves.
        pruning: block masks; method `none` is dense fine-tuning.
        prune_first: pruning without training, before that.
        optimizer: learning rates and warm-up.
        distillation: a teacher, or None.
        seed: of new parameters, dropout and sampled gates.
        dropout: replaces the model's dropout probabilities; None keeps them.
        trained_run: folder of a finished run whose weights are loaded (to validate, test or predict).
    """

    def __init__(
        self,
        model_name_or_path: str = "bert-base-uncased",
        task: str = "squad",
        adapter: AdapterOptions = AdapterOptions(),
        pruning: PruningOptions = PruningOptions(),
        prune_first: PruneFirstOptions = PruneFirstOptions(),
        optimizer: OptimizerOptions = OptimizerOptions(),
        distillation: DistillationOptions | None = None,
        seed: int = 92,
        dropout: float | None = None,
        trained_run: str | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.model_name_or_path = model_name_or_path
        self.adapter = adapter
        self.pruning = pruning
        self.prune_first = prune_first
        self.optimizer_options = optimizer
        self.distillation = distillation
        self.seed = seed
        self.dropout = dropout
        self.trained_run = trained_run
        self.label2id: dict[str, int] | None = None
        check_model_section(self.settings())
        #: Scores of the last evaluation by name, in percent.
        self.scores: dict[str, float] = {}
        #: λ of the penalty on the scores; a callback schedules it.
        self.penalty_weight = 0.0
        self.network: nn.Module | None = None
        self.block_masks: list[BlockMask] = []
        #: What a teacher makes of it; no module, so that state_dict(), parameters() and checkpoints are without it.
        self.teaching: Teaching | None = None
        self._outputs = OutputCollector()
        self._divergences = DivergenceMeter()
        # Checkpoints leave out what is frozen (see on_save_checkpoint).
        self.strict_loading = False

    def setup(self, stage: str) -> None:
        """What trains is kept in fp32 whatever the precision.

        Raises:
            InputError: the Trainer's strategy cannot.
        """
        keep_trained_in_single(self.trainer)

    def configure_model(self) -> None:
        """Build the network once, when the Trainer is ready for it."""
        if self.network is not None:
            return
        data = self.trainer.datamodule
        if data.task != self.task:
            raise InputError(f"The module's task is {self.task!r}, but the data module's is {data.task!r}.")
        self.label2id = getattr(data, "label2id", None)
        if self.trained_run is not None:
            check_fits(self.trained_run, data)
            self.network = load_run(self.trained_run)
            return
        if self.trainer.training:
            self._check_labels(data)
        if self.distillation is not None and self.trainer.training:
            # Before anything costly.
            self.teaching = find_teaching(self.distillation, self.task, self.label2id, self.model_name_or_path, data)
        source = self.model_name_or_path
        if self.prune_first.method != "none":
            blocks = self.pruning.attention_block, self.pruning.ffn_block
            folder, local = Path(self.trainer.default_root_dir), not self.pruning.criterion.is_global
            source = pruned_start(source, self.prune_first, blocks, data, folder, each_weight=local)
        base = load_base(source, self.task, label2id=self.label2id, dropout=self.dropout, seed=self.seed)
        if self.trainer.training and has_head(source, base.config, self.task):
            base.eval()
            ask(self.model_name_or_path, lambda batch: logits_of(base(**model_inputs(batch))), data)
            base.train()
        if self.trainer.training and self.pruning.method == "none" and (zeros := zeros_of(base)) > _MANY_ZEROS:
            told = f"{100 * zeros:.1f} % of the encoder's weights are zeros, which this training fills again"
            if is_first_process():
                print(f"warning: {source}: {told}; masks of blocks would keep them.", file=sys.stderr, flush=True)
        # A checkpoint brings its own scores; Lightning tells of it only after this.
        begins = self.trainer.training and checkpoint_of(Path(self.trainer.default_root_dir)) is None
        device = self.trainer.strategy.root_device if begins else None
        self.network, self.block_masks = prepare_to_train(base, self.adapter, self.pruning, data, device)

    def _check_labels(self, data: TaskDataModule) -> None:
        """Refuse to learn from labels that are not read."""
        options, told = self.distillation, ""
        if options is None:
            told = "there is no teacher"
        elif options.alpha_ce:
            told = f"model.distillation.alpha_ce is {options.alpha_ce:g}"
        elif self.pruning.mask_init == "fisher" and self.pruning.criterion.has_scores:
            told = "model.pruning.mask_init is fisher"
        if told and not data.labelled:
            raise InputError(
                f"data.labelled is false, but {told}; without labels a teacher, alpha_ce 0 and another mask_init are "
                f"needed."
            )

    def on_fit_start(self) -> None:
        """Bring the teacher to the device (it is no submodule, so Lightning does not); choose threads of a CPU.

        Raises:
            InputError: there are masks, but nothing that schedules them: nothing would be pruned.
        """
        scheduled = any(hasattr(callback, "final_threshold") for callback in self.trainer.callbacks)
        if self.pruning.method != "none" and not scheduled:
            raise InputError(
                f"model.pruning.method is {self.pruning.method!r}, but trainer.callbacks has no "
                "splora.callbacks.SparsitySchedule; add one with final_threshold, else nothing is pruned."
            )
        if self.teaching is not None:
            self.teaching.to(self.device)
        if self.device.type == "cpu" and self.network is not None:
            data = self.trainer.datamodule
            fit_threads(self.network, data.train_batch_size * data.max_seq_length)

    def set_threshold(self, threshold: float) -> None:
        """Set the threshold v of all masks."""
        for mask in self.block_masks:
            mask.set_threshold(threshold)

    def end_of_schedule(self) -> None:
        """The threshold is final from now on: what stays of a head is dense again where that was asked for."""
        filled = self.block_masks and all(mask.fixed is not None for mask in self.block_masks if mask.unit == "block")
        if self.pruning.units == "hybrid_filled" and not filled:
            assert self.network is not None
            update_global_cutoffs(self.block_masks)
            fill_heads(self.network)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits in fp32: start_logits and end_logits (batch, tokens), or logits (batch, labels)."""
        return self._signals(batch, hidden=False, attention=False).logits

    def _signals(self, batch: dict[str, Tensor], *, hidden: bool, attention: bool) -> Signals:
        assert self.network is not None
        if self.pruning.criterion.is_global:
            update_global_cutoffs(self.block_masks)
        return signals(self.network, model_inputs(batch), hidden=hidden, attention=attention)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed this batch's randomness from its number alone, so that a resumed run repeats a quiet one."""
        number = self.current_epoch * 10_000_000 + batch_idx
        # Ranks must draw different dropout but the same gates: the gates have a generator of their own.
        torch.manual_seed(hash((self.seed, number, self.global_rank)) % 2**63)
        for mask in self.block_masks:
            mask.seed(self.seed, number)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Task loss, mixed with distillation, plus the weighted penalty on the scores."""
        loss = task_loss(self(batch), batch) if self.teaching is None else self._taught(batch, self.teaching)
        scores = [mask.scores for mask in self.block_masks if mask.scores is not None]
        if self.pruning.regularization != "none" and scores:
            penalty = penalties.penalty(self.pruning.regularization, scores)
            self.log("train/penalty", penalty.detach())
            loss = loss + self.penalty_weight * penalty
        if not torch.isfinite(loss):
            raise InputError(
                f"The loss is {loss.item()} at step {self.global_step}; "
                "lower learning_rate or mask_scores_learning_rate."
            )
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Collect logits; the score needs all of them at once. Held-out ones are compared with the teacher's."""
        logits, data = self(batch), self.trainer.datamodule
        if data.judged == "held" and self.teaching is not None:
            self._divergences.add(self.teaching.divergence(logits, batch), len(batch["index"]))
        if data.has_labels(data.judged):
            self._outputs.add(batch["index"], logits)

    test_step = validation_step

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Row numbers and logits of one batch."""
        logits = self(batch)
        self._outputs.add(batch["index"], logits)
        return {"index": batch["index"], **logits}

    def on_predict_epoch_end(self) -> None:
        """Write predictions (and n-best lists) into `default_root_dir`."""
        predicted = self._outputs.predict(self.trainer.datamodule)
        if self.trainer.is_global_zero:
            for name, value in predicted.items():
                write_json(Path(self.trainer.default_root_dir) / f"{name}.json", value)

    def on_validation_epoch_end(self) -> None:
        """Gather all ranks' logits, score them, log ``val/<metric>`` and keep artifacts for the run's result.

        Scores on what the training holds out for its own evaluations are ``held/<metric>``, where there are labels,
        and with a teacher ``held/divergence``: KL(teacher ‖ student), nats per example (of a regression, the squared
        difference).
        """
        data = self.trainer.datamodule
        if data.has_labels(data.judged):
            self._score("held" if data.judged == "held" else "val")
        if data.judged == "held" and self.teaching is not None:
            self.log(f"held/{DIVERGENCE}", self._divergences.value(), sync_dist=False)

    def on_test_epoch_end(self) -> None:
        """As for validation, under ``test/``."""
        self._score("test")

    def weight_counts(self) -> WeightCounts:
        """Remaining and learned weights as they are now."""
        assert self.network is not None
        return count_weights(self.network)

    def mask_density(self) -> float:
        """Fraction of all masked weights that is kept now."""
        assert self.network is not None
        return mask_density(self.network)

    def settings(self) -> dict[str, Any]:
        """What this module was made of, as plain values."""
        return {
            "model_name_or_path": self.model_name_or_path,
            "task": self.task,
            "label2id": self.label2id,
            "adapter": asdict(self.adapter),
            "pruning": asdict(self.pruning),
            "prune_first": asdict(self.prune_first),
            "optimizer": asdict(self.optimizer_options),
            "distillation": None if self.distillation is None else asdict(self.distillation),
            "seed": self.seed,
            "dropout": self.dropout,
        }

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule over the run's optimizer steps."""
        total = int(self.trainer.estimated_stepping_batches)
        options = self.optimizer_options
        warmup = scale_steps(options.warmup_steps, options.schedule_total_steps, total)
        assert self.network is not None
        optimizer, schedule = make_optimizer(self.network, options, warmup, total, fused=not self._scales_loss)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by norm. Lightning refuses to with a fused optimizer, although only a scaled loss would be harmed."""
        if self._scales_loss:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val and gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        elif gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    @property
    def _scales_loss(self) -> bool:
        return str(self.trainer.precision).startswith("16")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave frozen parameters out: they are the pretrained model's own and are read from there again."""
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name not in frozen
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A run that goes on takes its data from where it was."""
        if self.trainer.training:
            self.trainer.datamodule.resume(checkpoint)

    @property
    def artifacts(self) -> dict[str, Any]:
        """Files of the last evaluation by name (predictions, n-best lists)."""
        return self._outputs.artifacts

    def _taught(self, batch: dict[str, Tensor], teaching: Teaching) -> Tensor:
        """The task's loss and those of the teacher's logits and states, each with its weight."""
        student = self._signals(batch, hidden=teaching.hidden, attention=teaching.attention)
        loss, parts = teaching.loss(student, batch, labelled=self.trainer.datamodule.labelled)
        self.log_dict({f"train/{name}_loss": value.detach() for name, value in parts.items()})
        return loss

    def _score(self, stage: str) -> None:
        data = self.trainer.datamodule
        self.scores = self._outputs.score(data)
        self.log_dict({f"{stage}/{name}": value for name, value in self.scores.items()}, sync_dist=False)
        primary = self.scores.get(data.primary_metric)
        if primary is not None:
            self.log(data.primary_metric, primary, prog_bar=True, logger=False, sync_dist=False)
