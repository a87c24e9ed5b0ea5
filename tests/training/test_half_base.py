"""Whatever the base is stored in, what trains is fp32 and moves: counted over adapters, methods and precisions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.plugins.precision import Precision

from splora.callbacks import SparsitySchedule
from splora.errors import InputError
from splora.tasks.squad import SquadDataModule
from splora.training.half_base import keep_trained_in_single
from splora.training.module import PruningModule
from splora.training.options import AdapterOptions, OptimizerOptions, PruningOptions

STEPS, RATE = 30, 3e-5
_KINDS = ("scores", "position_weights", "splopa_columns", "splopa_rows", "splora_A", "splora_B", "Norm.", "bias")
Train = Callable[[str, str, str], tuple[PruningModule, dict[str, float]]]


@pytest.fixture(scope="module")
def train(tiny_model: Path) -> Train:
    """Trains for `STEPS` steps at `RATE`; returns the module and, by kind, the fraction of trained weights that moved.

    Runs that were made before are handed out again.
    """
    data = SquadDataModule(
        model_name_or_path=str(tiny_model), train_file="embedded", predict_file="embedded", max_seq_length=48,
        doc_stride=16, max_train_examples=8, train_batch_size=2,
    )  # fmt: skip
    made: dict[tuple[str, str, str], tuple[PruningModule, dict[str, float]]] = {}

    def run(adapter: str, method: str, precision: str) -> tuple[PruningModule, dict[str, float]]:
        key = (adapter, method, precision)
        if key not in made:
            module = PruningModule(
                str(tiny_model),
                adapter=AdapterOptions(adapter, num_prototypes=4, init_range=0.02, rank=4),
                pruning=PruningOptions(method, attention_block=(8, 8), ffn_block=(16, 16)),
                optimizer=OptimizerOptions(RATE, mask_scores_learning_rate=RATE, adapter_learning_rate=RATE),
                dropout=0.0,
            )
            trainer = Trainer(
                accelerator="cpu", precision=precision, max_steps=STEPS, logger=False, enable_checkpointing=False,  # type: ignore[arg-type]
                enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
                callbacks=[] if method == "none" else [SparsitySchedule(final_threshold=0.5)],
            )  # fmt: skip
            before: dict[str, Any] = {}
            remember = lambda: before.update(  # noqa: E731
                {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
            )
            module.on_train_start = remember  # type: ignore[method-assign]
            trainer.fit(module, datamodule=data)
            changed: dict[str, list[torch.Tensor]] = {}
            for name, parameter in module.named_parameters():
                if name in before:
                    kind = next((kind for kind in _KINDS if kind in name), "weights")
                    changed.setdefault(kind, []).append((parameter.detach() != before[name]).flatten())
            made[key] = module, {kind: float(torch.cat(all_).double().mean()) for kind, all_ in changed.items()}
        return made[key]

    return run


@pytest.mark.parametrize(
    ("adapter", "method", "precision"),
    [
        ("none", "none", "bf16-true"),
        ("none", "none", "16-true"),
        ("none", "topK", "bf16-true"),
        ("none", "l0", "bf16-true"),
        ("splopa", "none", "bf16-true"),
        ("splopa", "topK", "bf16-true"),
        ("splopa", "topK", "16-true"),
        ("splora", "l0", "bf16-true"),
        ("splora", "l0", "16-true"),
    ],
)
def test_as_many_weights_move_as_in_fp32(train: Train, adapter: str, method: str, precision: str) -> None:
    _, wanted = train(adapter, method, "32-true")
    module, found = train(adapter, method, precision)
    types = {wanted: {p.dtype for p in module.parameters() if p.requires_grad is wanted} for wanted in (True, False)}
    assert types[True] == {torch.float32}
    half = torch.bfloat16 if precision == "bf16-true" else torch.float16
    assert types[False] == (set() if adapter == "none" else {half})
    assert found.keys() == wanted.keys()
    assert wanted["bias"] > 0.5
    for kind, fraction in wanted.items():
        assert found[kind] > 0.9 * fraction, kind
    assert module.trainer.precision == precision


def test_a_strategy_that_casts_by_itself_is_refused() -> None:
    trainer: Any = SimpleNamespace(precision="bf16-true", precision_plugin=Precision(), strategy=object())
    with pytest.raises(InputError, match=r"trainer\.precision: is 'bf16-true'.*bf16-mixed is allowed"):
        keep_trained_in_single(trainer)
