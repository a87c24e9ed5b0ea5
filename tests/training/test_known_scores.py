"""Scores that start from knowledge, against naive loops, and thresholds in MACs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splora.training.preflight import preflight
from splora.training.run import run
from splora.training.specification import RunSpecification
from tests.training.results import read

Make = Callable[..., RunSpecification]


@pytest.mark.parametrize("units", ["blocks", "heads_and_neurons"])
def test_fisher_scores_are_mean_squared_gradients(tiny_spec: Make, tiny_model: Path, units: str) -> None:
    """By a naive loop: one backward pass per batch with everything kept."""
    from splora.masks import masked_layers
    from splora.masks.first_scores import spread
    from splora.tasks.features import Collator
    from splora.tasks.squad import SquadDataModule
    from splora.training import known_scores
    from splora.training.losses import logits_of, task_loss
    from splora.training.model import load_base, prepare
    from splora.training.options import AdapterOptions, PruningOptions
    from splora.training.signals import model_inputs

    data = SquadDataModule(str(tiny_model), "embedded", "embedded", 64, doc_stride=16, max_train_examples=8, seed=3)
    blocks = {"attention_block": (8, 8), "ffn_block": (16, 16)}
    options = PruningOptions("topK", "fisher", 1.0, units=units, **blocks)
    network, masks = prepare(load_base(str(tiny_model), "squad", dropout=0.0), AdapterOptions(), options)
    known_scores.known_scores(network, masks, "fisher", data)
    layers: dict[str, Any] = masked_layers(network)
    layer = layers["bert.encoder.layer.1.output.dense"]
    features = data.features("train")
    rows = np.random.default_rng(3).permutation(len(features))
    total = torch.zeros(layer.block_mask.grid)
    for mask in masks:
        mask.fix(torch.ones(mask.grid, dtype=torch.bool))
    for start in range(0, len(rows), known_scores.BATCH):
        batch = Collator(features, data.pad_token_id, data.width)(rows[start : start + known_scores.BATCH].tolist())
        network.eval().zero_grad()
        task_loss(logits_of(network(**model_inputs(batch))), batch).backward()
        total += layer.block_mask.scores.grad.square()
    torch.testing.assert_close(layer.block_mask.scores.flatten(), spread(total.flatten()))


@pytest.mark.parametrize(
    ("units", "adapter"), [("blocks", "none"), ("hybrid", "splopa"), ("heads_and_neurons", "none")]
)
def test_rows_start_from_what_pruning_without_training_would_keep(
    tiny_spec: Make, dense: Path, tmp_path: Path, units: str, adapter: str
) -> None:
    """By rank, whatever the wrapper calls the layers; and a run does."""
    from splora.masks import masked_layers
    from splora.masks.first_scores import spread
    from splora.tasks.squad import SquadDataModule
    from splora.training.known_scores import known_scores, stat_importances
    from splora.training.model import block_shapes, load_base, mask_placement, prepare
    from splora.training.options import AdapterOptions, PruningOptions

    data = SquadDataModule(str(dense), "embedded", "embedded", 64, doc_stride=16, max_train_examples=24, seed=3)
    options = PruningOptions("topK", "stat", 1.0, units=units, attention_block=(8, 8), ffn_block=(16, 16))
    base = load_base(str(dense), "squad", dropout=0.0)
    found = stat_importances(base, mask_placement(base, options, block_shapes(base, options)), data)
    assert base.training
    network, masks = prepare(base, AdapterOptions(adapter), options)
    known_scores(network, masks, "stat", data, found)
    layers: dict[str, Any] = masked_layers(network)
    scored = {name: layer for name, layer in layers.items() if layer.block_mask.scores is not None}
    assert len(scored) == len(found) > 1
    for name, layer in scored.items():
        wanted = found[name.removeprefix("base_model.model.")]
        torch.testing.assert_close(layer.block_mask.scores.flatten(), spread(wanted.flatten()))
    spec = tiny_spec(
        **{"model_name_or_path": str(dense), "pruning_units": units, "adapter": adapter, "pruning_method": "topK"},
        **{"mask_init": "stat", "mask_scale": 1.0, "mask_scores_learning_rate": 1e-6, "max_steps": 2},
    )
    assert not preflight(spec)
    run(spec, tmp_path)
    assert read(tmp_path)["remaining_weights_percent"] == pytest.approx(50, abs=1)


def test_a_row_keeps_a_fraction_of_the_macs(tiny_spec: Make, dense: Path, tmp_path: Path) -> None:
    """Heads and neurons share one budget, whatever kind there is more of at the end."""
    spec = tiny_spec(
        **{"model_name_or_path": str(dense), "pruning_method": "topK_global", "pruning_units": "heads_and_neurons"},
        **{"threshold_of": "macs", "mask_init": "stat", "mask_scale": 1.0, "mask_scores_learning_rate": 1e-3},
        **{"initial_threshold": 0.4, "final_threshold": 0.4, "max_steps": 2},
    )
    assert not preflight(spec)
    run(spec, tmp_path)
    result = read(tmp_path)
    assert 0.25 < result["macs_kept"] <= 0.4001
    assert result["heads_kept"] != [1, 1]  # as fractions of units would leave
    told = [f"{each.field} {each.message}" for each in preflight(replace(spec, pruning_units="blocks"))]
    assert [each for each in told if "threshold_of macs needs topK_global over heads_and_neurons" in each]


def test_magnitude_needs_no_scores_whatever_they_start_from(tiny_spec: Make, tmp_path: Path) -> None:
    run(tiny_spec(pruning_method="magnitude", mask_init="fisher"), tmp_path)
    assert read(tmp_path)["remaining_weights_percent"] == 50


def test_a_row_that_goes_on_does_not_look_for_its_first_scores_again(
    tiny_spec: Make, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning import Callback

    from splora.training import known_scores

    class Stop(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                raise KeyError("stopped")

    spec = tiny_spec(
        **{"model_name_or_path": str(dense), "pruning_method": "topK", "pruning_units": "heads_and_neurons"},
        **{"mask_init": "stat", "mask_scale": 0.5, "max_steps": 5},
    )
    with pytest.raises(KeyError):
        run(spec, tmp_path, callbacks=[Stop()])

    def again(*_: Any) -> Any:
        raise AssertionError("scores are found once")

    monkeypatch.setattr(known_scores, "stat_importances", again)
    run(spec, tmp_path)
