"""From a dense model to a small, healed one: the commands, what they leave, and what they refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splora.export.cut import cut
from splora.export.folder import load_pruned, save_pruned
from splora.posttraining.plan import Plan
from splora.training.preflight import preflight
from splora.training.run import run
from splora.training.specification import RunSpecification, check

Make = Callable[..., RunSpecification]
Command = Callable[..., tuple[int, str]]
SHORT = ("--task", "squad", "--max_seq_length", 64, "--doc_stride", 16)
SETS = ("held_out=12", "per_gpu_train_batch_size=4", "num_splopa_prototypes=4", "evaluate_every_n_steps=2")
FEW = tuple(word for setting in SETS for word in ("--set", setting))


def read(folder: Path) -> dict[str, Any]:
    """A folder's result."""
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few of the embedded questions."""
    from splora.tasks.embedded.corpus import corpus

    folder = tmp_path_factory.mktemp("data")
    for name, split, count in (("train.json", "train", 60), ("dev.json", "dev", 40)):
        (folder / name).write_text(json.dumps(corpus(split, count)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny question-answering model."""
    from transformers import BertForQuestionAnswering

    from splora.tasks.embedded.model import embedded_config
    from splora.tasks.embedded.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("dense")
    torch.manual_seed(0)
    config = embedded_config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertForQuestionAnswering(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def half(pruned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pruned model, stored in half precision."""
    from splora.tasks.hub import load_tokenizer

    folder = tmp_path_factory.mktemp("half")
    save_pruned(load_pruned(pruned), load_tokenizer(str(pruned)), folder, dtype=torch.float16)
    return folder


@pytest.fixture(scope="module")
def pruned(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of it: odd numbers of neurons, and a layer without heads."""
    from splora.tasks.hub import load_tokenizer

    folder = tmp_path_factory.mktemp("pruned")
    plan = Plan(((1,), ()), (tuple(range(37)), (3, 5, 61)))
    save_pruned(cut(load_pruned(dense), plan), load_tokenizer(str(dense)), folder)
    return folder


@pytest.mark.parametrize("adapter", ["none", "splora", "lora"])  # SPLoPA in the others
def test_heal(command: Command, dense: Path, pruned: Path, data: Path, tmp_path: Path, adapter: str) -> None:
    output = tmp_path / "healed"
    teacher = ("--teacher", dense, "--adapter", adapter, "--max_steps", 4, "--seed", 1)
    status, told = command("heal", pruned, *SHORT, "--data", data, *teacher, *FEW, "--output", output)
    assert status == 0, told
    result = read(output)
    scores = result["chosen"]["scores"]
    assert set(scores) == {"0", "2", "4"}
    # By what was held out it is never worse than it was, and the result says where nothing was better.
    assert result["chosen"]["monitor"] == "held/divergence"
    assert result["chosen"]["score"] == min(scores.values()) <= scores["0"]
    assert result["is_healed"] == (result["chosen"]["step"] > 0)
    assert result["stages"]["healed"] == result["pruned"]
    assert 0.25 < result["macs_kept"] < 0.4  # by the length of the questions
    assert (result["heads_kept"], result["neurons_kept"]) == ([1, 0], [37, 3])
    assert {"dense", "pruned", "batch_size", "threads"} <= result["latency_ms"].keys()
    assert "heal " + adapter in told
    ids = torch.randint(5, 60, (2, 9))
    trained = load_pruned(tmp_path / "healed-training" / "model")
    torch.testing.assert_close(load_pruned(output)(ids).start_logits, trained(ids).start_logits)


def test_prune_and_heal_in_one_command_then_again_and_export(
    command: Command, dense: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "small"
    words = ("prune", "stat", "--model", dense, *SHORT, "--data", data, "--num_samples", 64, "--output", output)
    heal = ("--heal", 0.5, "--adapter", "lora", *FEW)
    status, told = command(*words, "--budget", "mac=0.7", *heal)
    assert status == 0, told
    assert 0.5 < read(output)["macs_kept"] <= 0.7  # two heads a layer: budgets are met coarsely
    assert read(tmp_path / "small-pruned")["method"] == "stat"
    # The healed folder is a checkpoint like any other: it is pruned further, to a share of the dense model.
    again = ("--model", output, *SHORT, "--data", data, "--num_samples", 64, "--output", tmp_path / "smaller")
    status, told = command("prune", "stat", *again, "--budget", "mac=0.5")
    assert status == 0, told
    assert 0.3 < read(tmp_path / "smaller")["macs_kept"] <= 0.5
    status, told = command("prune", "stat", *again, "--budget", "mac=0.9", "--force")
    assert status == 2
    assert f"keeps {read(output)['macs_kept']:.2f}" in told
    assert "of its dense model's MACs already" in told
    status, told = command("export", tmp_path / "small-training", "--output", tmp_path / "exported")
    assert status == 0, told
    assert read(tmp_path / "exported")["largest_difference"] <= 1e-5
    assert f"MACs kept {read(output)['macs_kept']:.3f}" in told


def test_a_model_that_was_served_needs_no_splora(
    command: Command, dense: Path, half: Path, data: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; sys.modules['splora'] = None\n"
        "import torch, transformers\n"
        "model = transformers.AutoModelForQuestionAnswering.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "print([tuple(layer.intermediate.dense.weight.shape) for layer in model.bert.encoder.layer])"
    )
    output = tmp_path / "healed"
    words = ("heal", half, *SHORT, "--data", data, "--teacher", dense, "--max_steps", 2, *FEW, "--output", output)
    assert command(*words)[0] == 0
    # Stored in the type it came in: healing does not enlarge the file.
    assert read(output)["dtype"] == "fp16"
    assert read(output)["bytes"]["pruned"] < read(output)["bytes"]["dense"]
    assert abs((output / "model.safetensors").stat().st_size - (half / "model.safetensors").stat().st_size) < 2000
    done = subprocess.run(
        [sys.executable, "-c", program, str(output)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "[(37, 32), (3, 32)]"


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


def test_what_a_healing_lacks_is_told_before_anything_starts(
    command: Command, tiny_model: Path, dense: Path, pruned: Path, data: Path, tmp_path: Path
) -> None:
    words = ("heal", pruned, *SHORT, "--output", tmp_path / "healed")
    status, told = command(*words, "--data", data)
    assert (status, "--teacher is missing: name the dense model" in told) == (2, True)
    status, told = command(*words, "--data", tmp_path / "no", "--teacher", dense)
    assert (status, "there is no such folder" in told) == (2, True)
    status, told = command(*words, "--data", data, "--teacher", dense, "--adapter", "lara")
    assert (status, "did you mean 'lora'?" in told) == (2, True)
    status, told = command(*words, "--data", data, "--teacher", dense, "--set", "learning_rat=1")
    assert (status, "did you mean 'learning_rate'?" in told) == (2, True)
    status, told = command("export", pruned, "--output", tmp_path / "out")
    assert (status, "no finished run is here" in told) == (2, True)
    assert not list(tmp_path.iterdir())


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


def test_a_run_whose_masks_empty_nothing(command: Command, tiny_spec: Make, tmp_path: Path) -> None:
    run(tiny_spec(pruning_method="topK", adapter="splopa", final_threshold=0.9), tmp_path / "run")
    status, told = command("export", tmp_path / "run", "--output", tmp_path / "out")
    assert status == 2
    assert "its masks empty no head and no neuron" in told
    assert "layer 1: " in told
    assert "heads_and_neurons or hybrid" in told


@pytest.mark.parametrize("units", ["heads_and_neurons", "hybrid", "hybrid_filled"])
def test_a_row_with_masks_that_can_be_cut(tiny_spec: Make, command: Command, tmp_path: Path, units: str) -> None:
    spec = tiny_spec(pruning_method="topK", pruning_units=units, adapter="splopa", final_threshold=0.5)
    assert not check(spec)
    run(spec, tmp_path / "run")
    result = read(tmp_path / "run")
    assert result["macs_kept"] < (0.55 if units == "heads_and_neurons" else 0.85)
    if units == "heads_and_neurons":
        assert result["heads_kept"] == [1, 1]
        assert result["neurons_kept"] == [32, 32]
        assert result["remaining_weights_percent"] == 50
    assert result["zeros_percent"] == (pytest.approx(0, abs=1e-9) if units != "hybrid" else result["zeros_percent"])
    status, told = command("export", tmp_path / "run", "--output", tmp_path / "small")
    assert status == 0, told
    assert read(tmp_path / "small")["largest_difference"] <= 1e-4
    from splora.training.saving import load_run

    ids = torch.randint(5, 60, (2, 9))
    wanted = load_run(tmp_path / "run")(ids).start_logits
    torch.testing.assert_close(load_pruned(tmp_path / "small")(ids).start_logits, wanted, atol=1e-4, rtol=1e-4)
    # A cut model is where another row begins.
    run(replace(tiny_spec(max_steps=1), model_name_or_path=str(tmp_path / "small")), tmp_path / "after")
    assert read(tmp_path / "after")["heads_kept"] == result["heads_kept"]


@pytest.mark.parametrize("adapter", ["none", "splopa"])
def test_blocks_that_were_chosen_before_training(tiny_spec: Make, dense: Path, tmp_path: Path, adapter: str) -> None:
    """The row's masks keep what the surgery kept: zero blocks have the smallest magnitude."""
    spec = tiny_spec(
        **{"model_name_or_path": str(dense), "prune_first": "blocks", "prune_first_budget": "0.5"},
        **{"pruning_method": "topK", "mask_init": "magnitude", "mask_scale": 1.0, "prune_first_samples": 24},
        **{"initial_threshold": 0.5, "final_threshold": 0.5, "mask_scores_learning_rate": 1e-6, "adapter": adapter},
    )
    assert not preflight(spec)
    run(spec, tmp_path)
    assert read(tmp_path)["remaining_weights_percent"] == 50
    names = ("attention.self.query", "output.dense")
    pruned, trained = (load_pruned(tmp_path / folder) for folder in ("before/pruned", "model"))
    for name in names:
        weights = [model.get_submodule(f"bert.encoder.layer.1.{name}").weight for model in (pruned, trained)]
        assert torch.equal(weights[0] == 0, weights[1] == 0)
        assert not torch.equal(*weights)


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


def test_what_pruning_first_may_not_ask_for(tiny_spec: Make, dense: Path, tmp_path: Path) -> None:
    def told(**changes: Any) -> str:
        return " ".join(f"{each.field} {each.message}" for each in preflight(tiny_spec(**changes)))

    blocks = {"model_name_or_path": str(dense), "prune_first": "blocks", "prune_first_budget": "0.5"}
    scores = {"pruning_method": "topK", "mask_scale": 1.0, "mask_scores_learning_rate": 1e-2}
    assert "mask_init is constant, and only magnitude and stat rank the zeros" in told(**blocks, **scores)
    assert "initial_threshold is 1, and prune_first blocks leaves 0.5" in told(
        **blocks, **scores, mask_init="magnitude", initial_threshold=1.0
    )
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


def test_healing_asks_for_force_where_other_weights_lie_under_the_name(
    command: Command, dense: Path, pruned: Path, data: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    start = tmp_path / "start"
    shutil.copytree(pruned, start)
    words = ("heal", start, *SHORT, "--data", data, "--teacher", dense, "--max_steps", 1, *FEW)
    output = ("--output", tmp_path / "healed")
    assert command(*words, *output)[0] == 0
    weights = load_file(start / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, start / "model.safetensors", {"format": "pt"})
    status, told = command(*words, *output)
    assert (status, "holds another result (weights" in told) == (2, True)
    shutil.rmtree(tmp_path / "healed")  # the training alone is left
    status, told = command(*words, *output)
    assert (status, "was trained from other weights of" in told) == (2, True)
    assert command(*words, *output, "--force", "--device", "cpu")[0] == 0


def test_zeros_that_a_training_fills_are_told(
    tiny_spec: Make, dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = tiny_spec(model_name_or_path=str(dense), pruning_method="magnitude", initial_threshold=0.5, max_steps=3)
    run(blocks, tmp_path / "blocks")
    again = tiny_spec(model_name_or_path=str(tmp_path / "blocks" / "model"), max_steps=1)
    run(again, tmp_path / "again")
    assert "% of the encoder's weights are zeros, which this training fills again" in capsys.readouterr().err


def test_the_dense_model_is_found_over_all_folders(
    command: Command, dense: Path, pruned: Path, data: Path, tmp_path: Path
) -> None:
    """Of a healed folder the teacher, of a pruned one the model, and so on: never a pruned one by mistake."""
    from splora.errors import InputError
    from splora.training.heal_request import dense_origin

    healed = tmp_path / "healed"
    words = ("heal", pruned, *SHORT, "--data", data, "--teacher", dense, "--max_steps", 1, *FEW, "--output", healed)
    assert command(*words)[0] == 0
    again = tmp_path / "again"
    shutil.copytree(pruned, again)
    (again / "result.json").write_text(json.dumps({"method": "stat", "model": str(healed), "settings": {}}))
    assert [dense_origin(str(each)) for each in (dense, healed, again)] == [str(dense)] * 3
    assert dense_origin(str(tmp_path / "healed-training")) == str(dense)
    (again / "result.json").write_text(json.dumps({"model": str(tmp_path / "gone"), "settings": {}}))
    with pytest.raises(InputError, match=r"was made from .*gone', which is not there"):
        dense_origin(str(again))
    # The same command again finds its own result, and changes nothing of what it says.
    status, told = command("heal", pruned, *SHORT, "--data", data, "--max_steps", 1, *FEW, "--output", healed)
    assert (status, "--teacher is missing" in told) == (2, True)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("adapter=lora", "--set adapter: is what --adapter says; give that."),
        ("seed=3", "--set seed: is what --seed says"),
        ("best_checkpoint=false", "--set best_checkpoint: healing needs it as it is."),
        ("held_out=0", "--set held_out: is 0, and held-out examples decide"),
        ("pruning_method=topK", "--set pruning_method: a healing prunes nothing; a row of the sheet does."),
    ],
)
def test_columns_that_a_healing_does_not_leave_open(
    command: Command, dense: Path, pruned: Path, data: Path, tmp_path: Path, setting: str, sentence: str
) -> None:
    words = ("heal", pruned, *SHORT, "--data", data, "--teacher", dense, "--output", tmp_path / "out")
    status, told = command(*words, "--set", setting)
    assert status == 2
    assert sentence in told


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


def test_a_healing_killed_after_its_last_step_judges_its_last_weights(
    tiny_spec: Make, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from splora.callbacks import best_score

    changes = {"model_name_or_path": str(dense), "held_out": 4, "best_checkpoint": True, "max_steps": 4}
    spec = tiny_spec(**changes, checkpoint_every_n_steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(best_score.BestWeights, "on_train_end", lambda *_: (_ for _ in ()).throw(KeyError("killed")))
        with pytest.raises(KeyError):
            run(spec, tmp_path / "killed")
    run(spec, tmp_path / "killed")
    run(spec, tmp_path / "quiet")
    one, other = (read(tmp_path / name)["chosen"] for name in ("quiet", "killed"))
    assert one["step"] == other["step"]
    assert one["scores"] == pytest.approx(other["scores"])


def test_half_precision_bases_are_served_in_single(tiny_spec: Make, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run(tiny_spec(adapter="splopa", precision="bf16-true", pruning_method="topK", max_steps=2), tmp_path)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_magnitude_needs_no_scores_whatever_they_start_from(tiny_spec: Make, tmp_path: Path) -> None:
    run(tiny_spec(pruning_method="magnitude", mask_init="fisher"), tmp_path)
    assert read(tmp_path)["remaining_weights_percent"] == 50
