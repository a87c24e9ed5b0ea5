"""A run, complete, as one frozen value: the field names are the column names of the workbook.

What a cell may hold (type, choices, bounds, meaning) is said once, in the field's metadata; the workbook's drop-down
lists, its page of explanations, the command line's ``--set`` and `specification.check` all read it. Imports neither
torch nor lightning, so that a sheet is listed and checked in an instant.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from splora.adapter_defaults import PROTOTYPE_RANGE, PROTOTYPE_RANK, PROTOTYPES, SPLORA_RANGE, SPLORA_RANK
from splora.anatomy import FAMILIES
from splora.masks import criteria
from splora.masks.criteria import CRITERIA, INITS, PENALTIES, UNITS, Criterion
from splora.posttraining.core.method import methods
from splora.tasks.registry import TRAINED as TASKS

#: Families that a row may train, and learn from.
ENCODERS = tuple(name for name, family in FAMILIES.items() if not family.causal)
#: Every way to prune, `none` among them: names of what `splora.masks.criteria` holds at the moment.
METHODS = CRITERIA.keys()
#: What people call the methods, in small letters without hyphens.
METHOD_ALIASES = criteria.aliases()
#: What held-out examples are judged by: the task's score, or how far predictions are from the teacher's.
DIVERGENCE = "divergence"
JUDGES = ("score", DIVERGENCE)
#: Ways to prune before training.
PRUNERS = ("none", *methods())
#: What the threshold of a global criterion is a fraction of.
THRESHOLDS_OF = ("units", "macs")
ADAPTERS = ("none", "splopa", "splora", "lora")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "auto")
#: The largest whole number that any setting holds (a seed).
LARGEST = 2**32 - 1
#: No AdamW rate above this one has ever trained a transformer: it is a slip of the keyboard.
HIGHEST_RATE = 1.0


def column(default: Any, group: str, help: str, **limits: Any) -> Any:
    """A field with its meaning; limits: `choices`, `minimum`, `maximum`, `above`, `unit`."""
    return field(default=default, metadata={"group": group, "help": help, **limits})


@dataclass(frozen=True)
class Problem:
    """Something a field may not be: the field's name, and a sentence's predicate."""

    field: str
    message: str


@dataclass(frozen=True)
class RunSpecification:
    """One run. Shapes are rows × cols of a weight of shape (out_features, in_features); rates are per step."""

    exp_id: int | str = column("", "Identity", "Name of the row; an integer, unique in the project's workbook.")
    sheet: str = column("", "Identity", "Sheet the row stands in; names the folder of its results.")
    model: str = column("", "Identity", "What the row shows, in words.")
    task: str = column("squad", "Task", "What is learned.", choices=TASKS)
    model_name_or_path: str = column(
        "bert-base-uncased",
        "Task",
        "Pretrained encoder: hub name, folder, `embedded` (small, from scratch) or `run:ID`, the model of that row.",
    )
    train_file: str | None = column(None, "Task", "Training data: a file or GLUE folder, `embedded`, or empty: hub.")
    predict_file: str | None = column(None, "Task", "Evaluation data: a file, GLUE folder, `embedded`, or empty: hub.")
    max_seq_length: int = column(384, "Task", "Tokens per window or example.", minimum=8)
    doc_stride: int = column(
        128, "Task", "Overlap of neighbouring windows of a long context.", minimum=0, unit="tokens"
    )
    max_train_examples: int | None = column(None, "Task", "Use only so many training examples.", minimum=1)
    held_out: int = column(
        0,
        "Task",
        "Hold back about so many training examples (whole texts, a fifth of all at most), by which evaluations while "
        "training judge.",
        minimum=0,
    )
    labelled: bool = column(
        True,
        "Task",
        "Training data have labels. FALSE: none are read, a teacher alone is learned from, and held-out examples are "
        "judged_by divergence.",
    )
    seed: int = column(92, "Task", "Seed of data order, initialization, dropout and gates.", minimum=0, maximum=LARGEST)

    per_gpu_train_batch_size: int = column(16, "Training", "Examples per process and step.", minimum=1)
    per_gpu_eval_batch_size: int = column(64, "Training", "Examples per process in evaluation.", minimum=1)
    gradient_accumulation_steps: int = column(1, "Training", "Batches per optimizer step.", minimum=1)
    num_train_epochs: float = column(3.0, "Training", "Passes over the training data.", above=0, maximum=10_000)
    max_steps: int | None = column(None, "Training", "Optimizer steps; replaces num_train_epochs.", minimum=1)
    warmup_steps: int = column(
        0, "Training", "Linear warm-up of the learning rates; unit of both warm-ups below.", minimum=0
    )
    schedule_total_steps: int | None = column(
        None,
        "Training",
        "Steps of the run that warmup_steps was chosen for: a run of T steps uses "
        "warmup_steps · T / schedule_total_steps. Empty: warmup_steps as it is.",
        minimum=1,
    )
    learning_rate: float = column(
        3e-5, "Learning rate", "AdamW rate of weights, adapters, biases and head.", above=0, maximum=HIGHEST_RATE
    )
    mask_scores_learning_rate: float | None = column(
        None, "Learning rate", "AdamW rate of the mask scores.", minimum=0, maximum=HIGHEST_RATE
    )
    position_weights_learning_rate: float | None = column(
        None,
        "Learning rate",
        "Rate of the adapter's position weights; empty: learning_rate.",
        above=0,
        maximum=HIGHEST_RATE,
    )
    adapter_learning_rate: float | None = column(
        None,
        "Learning rate",
        "Rate of the adapter's other parameters; empty: learning_rate.",
        above=0,
        maximum=HIGHEST_RATE,
    )
    weight_decay: float = column(
        0.0, "Learning rate", "Decay of weights and adapters (not biases, norms, scores).", minimum=0, maximum=1
    )
    max_grad_norm: float = column(1.0, "Learning rate", "Gradient norm is clipped to this; 0 turns it off.", minimum=0)
    early_stopping: int | None = column(
        None,
        "Training",
        "Stop after so many evaluations without a better score, counted once the schedule holds its final threshold; "
        "empty: never.",
        minimum=1,
    )
    best_checkpoint: bool = column(
        False,
        "Training",
        "Save the weights of the best evaluation (since the final threshold) instead of the last; with held_out, those "
        "of the start count, too.",
    )
    judged_by: str = column(
        "score",
        "Training",
        "What best_checkpoint and early_stopping look at on held_out examples: the task's score, or the divergence of "
        "predictions from the teacher's, which is far steadier.",
        choices=JUDGES,
    )
    dropout: float | None = column(
        None, "Training", "Dropout everywhere; empty: the model's own.", minimum=0, maximum=0.9
    )

    initial_threshold: float = column(1.0, "Scheduling", "Threshold v at the start.")
    final_threshold: float = column(1.0, "Scheduling", "Threshold v at the end.")
    initial_warmup: float = column(1.0, "Scheduling", "v stays initial for initial_warmup · warmup_steps.", minimum=0)
    final_warmup: float = column(
        1.0, "Scheduling", "v stays final for the last final_warmup · warmup_steps.", minimum=0
    )

    prune_first: str = column(
        "none",
        "Pruning",
        "Prune the model without training before this row trains it: heads and neurons by stat or fisher, or blocks.",
        choices=PRUNERS,
    )
    prune_first_budget: str | None = column(
        None,
        "Pruning",
        "Fraction of the dense MACs (of blocks) that prune_first leaves; after each of several, as 0.7,0.5, the row "
        "trains.",
        numbers=True,
    )
    prune_first_samples: int = column(512, "Pruning", "Training examples that prune_first looks at.", minimum=1)
    pruning_method: str = column("none", "Pruning", "How the mask is made.", choices=METHODS)
    pruning_units: str = column(
        "blocks",
        "Pruning",
        "What is kept or goes as one: blocks of weights; heads and neurons, which can be cut out; hybrid: blocks in "
        "attention weights and whole neurons; hybrid_filled: what stays of a head is dense again at the end.",
        choices=UNITS,
    )
    threshold_of: str = column(
        "units",
        "Pruning",
        "What topK_global's threshold is a fraction of: units (heads compete with heads, neurons with neurons), or "
        "MACs, for which heads and neurons compete together.",
        choices=THRESHOLDS_OF,
    )
    mask_init: str = column(
        "constant",
        "Pruning",
        "Initial scores; magnitude, fisher and stat: by rank, as large, as sensitive or as hard to spare as blocks "
        "or units are.",
        choices=INITS,
    )
    mask_scale: float = column(
        0.0, "Pruning", "Parameter of mask_init; of magnitude, fisher and stat, ranks lie between its negative and it."
    )
    attention_block_rows: int = column(32, "Pruning", "Rows of a block in attention weights.", minimum=1)
    attention_block_cols: int = column(32, "Pruning", "Columns of a block in attention weights.", minimum=1)
    ffn_block_rows: int = column(32, "Pruning", "Rows of a block in feed-forward weights.", minimum=1)
    ffn_block_cols: int = column(32, "Pruning", "Columns of a block in feed-forward weights.", minimum=1)
    regularization: str = column("none", "Regularization", "Penalty on the scores.", choices=PENALTIES)
    final_lambda: float = column(0.0, "Regularization", "Weight of the penalty at the end.", minimum=0)

    teacher_type: str | None = column(
        None,
        "Distillation",
        "Family of the teacher.",
        choices=ENCODERS,
    )
    teacher_name_or_path: str | None = column(None, "Distillation", "Fine-tuned teacher: hub name, folder or `run:ID`.")
    alpha_ce: float = column(0.5, "Distillation", "Weight of the task's loss (with a teacher).", minimum=0)
    alpha_distil: float = column(0.5, "Distillation", "Weight of the distillation loss.", minimum=0)
    temperature: float = column(
        2.0, "Distillation", "Softmax temperature T of the distillation.", above=0, maximum=1000
    )
    alpha_hidden: float = column(
        0.0,
        "Distillation",
        "Weight of the layers' hidden states: squared difference from the teacher's over the teacher's own squares; "
        "needs a teacher of the same depth and width.",
        minimum=0,
    )
    alpha_attention: float = column(
        0.0, "Distillation", "The same of the states after each layer's attention part.", minimum=0
    )
    hidden_weights: str | None = column(
        None,
        "Distillation",
        "Weights of the layers in both, from the first on, as 1,1,2; empty: all the same.",
        numbers=True,
    )

    adapter: str = column("none", "Adapter", "ΔW: none trains the weights themselves.", choices=ADAPTERS)
    num_splopa_prototypes: int = column(PROTOTYPES, "Adapter", "Prototypes K.", minimum=1)
    splopa_prototype_rank: int = column(PROTOTYPE_RANK, "Adapter", "Rank R of a prototype.", minimum=1)
    splopa_init_range: float = column(
        PROTOTYPE_RANGE,
        "Adapter",
        "Initial range of prototypes; published rows state 1e-4, which hardly learns.",
        above=0,
        maximum=10,
    )
    splopa_shared_prototypes: bool = column(True, "Adapter", "One set of prototypes for all layers of a block shape.")
    splopa_shared_pos_weights: bool = column(False, "Adapter", "One set of position weights for layers of a shape.")
    splora_rank: float = column(float(SPLORA_RANK), "Adapter", "Rank r; below 1: fraction of out_features.", above=0)
    splora_init_range: float = column(SPLORA_RANGE, "Adapter", "Initial range of SPLoRA's A.", above=0, maximum=10)
    lora_rank: int = column(8, "Adapter", "Rank r of PEFT's LoRA.", minimum=1)
    lora_alpha: float = column(16.0, "Adapter", "LoRA's ΔW is scaled by lora_alpha / lora_rank.", above=0)

    precision: str = column(
        "32-true", "Machine", "Lightning's precision; auto: bf16-mixed where native.", choices=PRECISIONS
    )
    checkpoint_every_n_steps: int = column(
        500, "Machine", "Optimizer steps between checkpoints to resume from.", minimum=1
    )
    val_check_per_epoch: int = column(1, "Machine", "Evaluations per epoch.", minimum=1)
    evaluate_every_n_steps: int | None = column(
        None, "Machine", "Optimizer steps between evaluations; replaces val_check_per_epoch.", minimum=1
    )
    logger: str | None = column(
        None, "Machine", "Also log to: wandb, mlflow, comet, litlogger, csv, or the class path of a Lightning logger."
    )

    reported_density: float | None = column(None, "Reported", "Published remaining encoder weights.", unit="%")
    reported_exact_match: float | None = column(None, "Reported", "Published exact match.", unit="%")
    reported_f1: float | None = column(None, "Reported", "Published F1.", unit="%")
    reported_accuracy: float | None = column(None, "Reported", "Published accuracy.", unit="%")
    reported_accuracy_mismatched: float | None = column(None, "Reported", "Published MNLI-MM accuracy.", unit="%")

    @property
    def criterion(self) -> Criterion:
        """What decides which blocks or units stay."""
        return criteria.named(self.pruning_method)

    @property
    def kept_by_masks(self) -> float:
        """The fraction of the heads and neurons of its start that the run's masks keep; 1 where columns do not tell."""
        whole = self.criterion.is_fraction and self.pruning_units == "heads_and_neurons"
        return self.final_threshold if whole else 1.0

    @property
    def budgets(self) -> list[float]:
        """Fractions of the dense MACs that are pruned to before training, one after the other; see `check`."""
        if self.prune_first == "none" or self.prune_first_budget is None:
            return []
        try:
            return [float(part) for part in str(self.prune_first_budget).split(",")]
        except ValueError:  # told by `check`
            return []

    @property
    def target_density(self) -> float | None:
        """Fraction of blocks kept at the end where the threshold says so directly, else None."""
        if self.criterion.is_fraction:
            return self.final_threshold
        return 1.0 if self.pruning_method == "none" else None


FIELDS: dict[str, dataclasses.Field[Any]] = {f.name: f for f in dataclasses.fields(RunSpecification)}


def methods_named(name: str) -> set[str]:
    """The values of `pruning_method` that a name means: itself, what people call so, and other spellings of it."""
    meant = criteria.named(name if name in METHODS else criteria.aliases().get(_folded(name), ""))
    spellings = {meant.name, meant.same_as or meant.name}
    known = name in METHODS or _folded(name) in criteria.aliases()
    return {each.name for each in CRITERIA.values() if known and {each.name, each.same_as} & spellings}


def _folded(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", str(name)[:200].strip().lower()))
