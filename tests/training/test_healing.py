"""From a dense model to a small, healed one: the commands, what they leave, and what they refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splora.export.folder import load_pruned
from splora.training.run import run
from splora.training.specification import RunSpecification, check
from tests.training.results import read

Make = Callable[..., RunSpecification]
Command = Callable[..., tuple[int, str]]
SHORT = ("--task", "squad", "--max_seq_length", 64, "--doc_stride", 16)
SETS = ("held_out=12", "per_gpu_train_batch_size=4", "num_splopa_prototypes=4", "evaluate_every_n_steps=2")
FEW = tuple(word for setting in SETS for word in ("--set", setting))


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


def test_pruning_asks_for_force_where_other_weights_lie_under_the_name(
    command: Command, dense: Path, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(dense, model)
    words = ("prune", "stat", "--model", model, *SHORT, "--data", data, "--num_samples", 24, "--budget", "mac=0.7")
    words = (*words, "--output", tmp_path / "small")
    assert command(*words)[0] == 0
    network = load_pruned(model)
    with torch.no_grad():
        network.qa_outputs.weight.mul_(2)
    network.save_pretrained(model)
    status, told = command(*words)
    assert (status, "holds another result (weights" in told) == (2, True), told
    assert command(*words, "--force")[0] == 0


def test_healing_what_nobody_knows_the_dense_model_of(
    command: Command, pruned: Path, data: Path, tmp_path: Path
) -> None:
    words = ("prune", "stat", "--model", pruned, *SHORT, "--data", data, "--budget", "mac=0.2", "--heal", 1)
    status, told = command(*words, "--output", tmp_path / "small")
    assert status == 2
    assert "--heal has no dense model to learn from: leave it out, and heal by splora heal with --teacher" in told


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
