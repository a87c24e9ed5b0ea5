"""Rows whose model is pruned before they train it: budgets, one after another or refused, and blocks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from splora import anatomy
from splora.export.folder import load_pruned
from splora.training.preflight import preflight
from splora.training.run import run
from splora.training.specification import RunSpecification, check
from tests.training.results import read

Make = Callable[..., RunSpecification]


def test_a_row_prunes_heals_and_prunes_again(tiny_spec: Make, dense: Path, tmp_path: Path) -> None:
    taught = {"teacher_name_or_path": str(dense), "alpha_hidden": 1.0, "model_name_or_path": str(dense)}
    first = {"prune_first": "stat", "prune_first_budget": "0.8,0.6", "prune_first_samples": 64}
    spec = tiny_spec(adapter="splopa", max_steps=2, **taught, **first)
    assert not preflight(spec)
    run(spec, tmp_path)
    result = read(tmp_path)
    assert 0.4 < result["macs_kept"] <= 0.6 < read(tmp_path / "before" / "0-0.8")["macs_kept"] <= 0.8
    ids = torch.randint(5, 60, (2, 9))
    # The adapter lies over the pruned model, wherever the row began.
    from splora.training.saving import load_run

    torch.testing.assert_close(
        load_pruned(tmp_path / "model")(ids).start_logits, load_run(tmp_path)(ids).start_logits, atol=1e-5, rtol=1e-4
    )
    # The folder of a run is a model's name like any other.
    after = tiny_spec(model_name_or_path=str(tmp_path), max_steps=1)
    assert not preflight(after)
    run(after, tmp_path / "after")
    assert read(tmp_path / "after")["macs_kept"] == pytest.approx(result["macs_kept"])


def test_what_rows_may_not_ask_for(tiny_spec: Make, dense: Path, pruned: Path, tmp_path: Path) -> None:
    def told(**changes: Any) -> str:
        return " ".join(f"{each.field} {each.message}" for each in preflight(tiny_spec(**changes)))

    wide = tmp_path / "wide"
    shutil.copytree(dense, wide)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    deep = {"teacher_name_or_path": str(wide), "alpha_hidden": 1.0}
    assert "of 4 layers 32 wide, and alpha_hidden compares its states" in told(**deep)
    assert "of 2 layers 32 wide; name a teacher of the same depth and width" in told(**deep)
    first = {"prune_first": "stat", "prune_first_budget": "0.5"}
    assert "has no head for squad yet" in told(**first)
    assert "train a dense row first" in told(**first)
    assert "keeps 0.28" in told(**first, model_name_or_path=str(pruned))
    assert "each smaller than the one before" in told(**{**first, "prune_first_budget": "0.5,0.7"})
    assert "but prune_first is none" in told(prune_first_budget="0.5")
    assert "there are no states to learn from" in told(alpha_hidden=1.0)
    assert "numbers from 0 on are needed" in told(hidden_weights="1,x", **{**deep, "teacher_name_or_path": str(dense)})
    assert "is lora, whose layers have no masks" in told(adapter="lora", pruning_method="topK")
    # Blocks need not divide where no mask has them.
    assert not told(model_name_or_path=str(pruned), adapter="splopa")
    assert "do not divide 37" in told(model_name_or_path=str(pruned), adapter="splopa", pruning_method="topK")


@pytest.mark.parametrize(("adapter", "method"), [("none", "topK"), ("splopa", "topK"), ("splopa", "topK_global")])
def test_blocks_that_were_chosen_before_training(
    tiny_spec: Make, dense: Path, tmp_path: Path, adapter: str, method: str
) -> None:
    """The row's masks keep what the surgery kept: zero blocks have the smallest magnitude."""
    spec = tiny_spec(
        **{"model_name_or_path": str(dense), "prune_first": "blocks", "prune_first_budget": "0.5"},
        **{"pruning_method": method, "mask_init": "magnitude", "mask_scale": 1.0, "prune_first_samples": 24},
        **{"initial_threshold": 0.5, "final_threshold": 0.5, "mask_scores_learning_rate": 1e-6, "adapter": adapter},
    )
    assert not preflight(spec)
    run(spec, tmp_path)
    assert read(tmp_path)["remaining_weights_percent"] == 50
    pruned, trained = (anatomy.layers(load_pruned(tmp_path / folder)) for folder in ("before/pruned", "model"))
    pairs = [
        (linear.weight, after.linears[role].weight)
        for before, after in zip(pruned, trained, strict=True)
        for role, linear in before.linears.items()
    ]
    assert all(torch.equal(before == 0, after == 0) for before, after in pairs)
    assert not all(torch.equal(before, after) for before, after in pairs)
    # One budget over all weights where the masks have one, else each its own.
    assert (len({float((before != 0).float().mean()) for before, _ in pairs}) > 1) == (method == "topK_global")


def test_what_pruning_first_may_not_ask_for(tiny_spec: Make, dense: Path, tmp_path: Path) -> None:
    def told(**changes: Any) -> str:
        return " ".join(f"{each.field} {each.message}" for each in preflight(tiny_spec(**changes)))

    blocks = {"model_name_or_path": str(dense), "prune_first": "blocks", "prune_first_budget": "0.5"}
    scores = {"pruning_method": "topK", "mask_scale": 1.0, "mask_scores_learning_rate": 1e-2}
    assert "mask_init is constant, and only magnitude and stat rank the zeros" in told(**blocks, **scores)
    assert "initial_threshold is 1, and prune_first blocks leaves 0.5" in told(
        **blocks, **scores, mask_init="magnitude", initial_threshold=1.0
    )
    masks = scores | {"mask_init": "magnitude", "initial_threshold": 0.5, "final_threshold": 0.7}
    assert "final_threshold is 0.7, and prune_first blocks leaves 0.5" in told(**blocks, **masks)
    assert "the masks of a row keep one fraction of its blocks; give one budget" in told(
        **{**blocks, "prune_first_budget": "0.7,0.5"}, **masks
    )
    # Whatever number of heads is left, blocks of attention weights must fit into it.
    hybrid = {
        "pruning_units": "hybrid",
        "pruning_method": "topK",
        "attention_block_rows": 32,
        "attention_block_cols": 16,
    }
    first = {"model_name_or_path": str(dense), "prune_first": "stat", "prune_first_budget": "0.5"}
    assert "attention_block_rows is 32, and blocks must fit into what is left of heads of 16" in told(**hybrid, **first)
    assert not told(**hybrid, model_name_or_path=str(dense))
    filled = {"pruning_units": "hybrid_filled", "pruning_method": "magnitude", "warmup_steps": 0}
    assert "nothing would train what was filled" in told(**filled)
    teacher = {"teacher_name_or_path": str(dense), "model_name_or_path": str(dense), "alpha_hidden": 1.0}
    assert "hidden_weights is '1,1,2', 3 numbers, and" in told(**teacher, hidden_weights="1,1,2")
    quantized = tmp_path / "quantized"
    shutil.copytree(dense, quantized)
    config = json.loads((quantized / "config.json").read_text())
    (quantized / "config.json").write_text(json.dumps(config | {"splora_quantization": {}}))
    for name in ("model_name_or_path", "teacher_name_or_path"):
        assert "is quantized, and trains and teaches no more" in told(**{name: str(quantized)})


def test_rows_that_build_on_rows_that_prune_first(tiny_spec: Make) -> None:
    from splora.hparams.lineage import check_lineage

    first = tiny_spec(exp_id=1, prune_first="stat", prune_first_budget="0.7,0.5")
    between = tiny_spec(exp_id=2, model_name_or_path="run:1")
    specs = {"1": first, "2": between}
    # What masks keep of it counts, too: 0.4 of these 0.5.
    masks = {"pruning_method": "topK_global", "pruning_units": "heads_and_neurons", "final_threshold": 0.4}
    masked = replace(between, exp_id=4, **masks)
    again = tiny_spec(exp_id=3, model_name_or_path="run:4", prune_first="stat", prune_first_budget="0.3")
    assert "no more than 0.2 of the dense MACs" in " ".join(
        each.message for each in check_lineage(again, {**specs, "4": masked})
    )
    between_budgets = tiny_spec(prune_first="stat", prune_first_budget="0.7,0.4", **{**masks, "final_threshold": 0.5})
    assert "each smaller than the one before times the 0.5 that the row's masks keep" in " ".join(
        each.message for each in check(between_budgets)
    )
    for budget, wrong in (("0.5", True), ("0.6,0.2", True), ("0.4", False)):
        again = tiny_spec(exp_id=3, model_name_or_path="run:2", prune_first="fisher", prune_first_budget=budget)
        told = [f"{each.field} {each.message}" for each in check_lineage(again, specs)]
        found = (
            f"prune_first_budget is {budget}, and 'run:2' keeps no more than 0.5 of the dense MACs; give less than that"
        )
        assert (found in told) == wrong


def test_a_teacher_that_a_row_makes_is_as_deep_as_the_model_it_begins_with(tiny_spec: Make) -> None:
    from splora.hparams.lineage import check_lineage

    dense = tiny_spec(exp_id=1, model_name_or_path="bert-base-uncased")
    for start, wrong in (("bert-large-uncased", True), ("google-bert/bert-base-cased", False), ("run:1", False)):
        spec = tiny_spec(exp_id=2, model_name_or_path=start, teacher_name_or_path="run:1", alpha_hidden=1.0)
        told = [f"{each.field} {each.message}" for each in check_lineage(spec, {"1": dense})]
        found = "of 12 layers 768 wide, and alpha_hidden compares its states with those of bert-large-uncased, of 24"
        assert any(found in each for each in told) == wrong


def test_what_fails_only_when_another_row_is_done_is_told_before(tiny_spec: Make, pruned: Path) -> None:
    from splora.hparams.lineage import check_lineage

    def told(spec: RunSpecification, other: RunSpecification) -> str:
        return " ".join(f"{each.field} {each.message}" for each in check_lineage(spec, {"1": other}))

    first = {"prune_first": "stat", "prune_first_budget": "0.3"}
    deep = {"teacher_name_or_path": "bert-large-uncased", "alpha_hidden": 1.0}
    dense = tiny_spec(exp_id=1, model_name_or_path="bert-base-uncased")
    assert "compares its states with those of bert-base-uncased" in told(
        tiny_spec(exp_id=2, model_name_or_path="run:1", **deep), dense
    )
    mnli = tiny_spec(exp_id=1, task="mnli")
    for task, changes, words in (
        ("rte", {}, "is 'run:1', which learns mnli"),
        ("rte", first, "prunes a model of rte, and 'run:1' learns mnli"),
        ("squad", first, "prunes a model of squad, and 'run:1' learns mnli"),
        ("squad", {}, ""),  # a new head
        ("mnli", first, ""),
    ):
        found = told(tiny_spec(exp_id=2, task=task, model_name_or_path="run:1", **changes), mnli)
        assert words in found
        assert bool(found) == bool(words), found
    # A chain that begins with a folder of 28 % of the MACs.
    of_folder = tiny_spec(exp_id=1, model_name_or_path=str(pruned))
    again = tiny_spec(exp_id=2, model_name_or_path="run:1", **first)
    assert "keeps no more than 0.28" in told(again, of_folder)
    assert not told(replace(again, prune_first_budget="0.2"), of_folder)
    hybrid = {"pruning_units": "hybrid", "pruning_method": "topK", "attention_block_rows": 32}
    cut = replace(dense, model_name_or_path=str(pruned), prune_first="stat", prune_first_budget="0.2")
    assert "attention_block_rows is 32, and blocks must fit" in told(
        tiny_spec(exp_id=2, model_name_or_path="run:1", **hybrid), cut
    )


def test_a_row_does_not_go_on_with_other_weights_under_the_same_name(
    tiny_spec: Make, dense: Path, tmp_path: Path
) -> None:
    from lightning import Callback

    from splora.errors import InputError

    class Stop(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                raise KeyError("stopped")

    model = tmp_path / "model"
    shutil.copytree(dense, model)
    first = {"prune_first": "stat", "prune_first_samples": 24, "prune_first_budget": "0.6"}
    spec = tiny_spec(model_name_or_path=str(model), adapter="splopa", max_steps=4, **first)
    with pytest.raises(KeyError):
        run(spec, tmp_path / "run", callbacks=[Stop()])
    changed = load_pruned(model)
    with torch.no_grad():
        changed.qa_outputs.weight.mul_(2)
    changed.save_pretrained(model)
    with pytest.raises(InputError, match=r"was begun with .* as it was before its weights changed; --force"):
        run(spec, tmp_path / "run")


@pytest.mark.parametrize("method", ["stat", "fisher"])
def test_a_budget_that_a_folder_keeps_is_refused_before_pruning(
    tiny_spec: Make, dense: Path, pruned: Path, tmp_path: Path, method: str
) -> None:
    """Where only the folder of a run tells, in the words of the row; and Fisher pruning first works as STAT does."""
    from splora.errors import InputError

    spec = tiny_spec(model_name_or_path=str(pruned), prune_first=method, prune_first_budget="0.6", max_steps=1)
    with pytest.raises(InputError, match=r"prune_first_budget is 0.6, and .* keeps 0\.\d+ of its dense model's MACs"):
        run(spec, tmp_path / "no")
    run(replace(spec, model_name_or_path=str(dense)), tmp_path / "yes")
    assert read(tmp_path / "yes")["macs_kept"] <= 0.6


def test_a_killed_row_whose_budget_changes_is_pruned_anew(tiny_spec: Make, dense: Path, tmp_path: Path) -> None:
    from lightning import Callback

    class Stop(Callback):
        def on_train_start(self, *_: Any) -> None:
            raise KeyError("stopped")

    first = {"model_name_or_path": str(dense), "prune_first": "stat", "prune_first_samples": 24, "max_steps": 1}
    with pytest.raises(KeyError):
        run(tiny_spec(**first, prune_first_budget="0.8"), tmp_path, callbacks=[Stop()])
    run(tiny_spec(**first, prune_first_budget="0.5"), tmp_path)
    assert read(tmp_path)["macs_kept"] <= 0.5
