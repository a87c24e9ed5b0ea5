"""One run per method and adapter, end to end: files, numbers, reloading, refusing, not running twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from splora.errors import InputError
from splora.training.run import claim_folder, run
from splora.training.saving import load_run
from splora.training.specification import METHODS, RunSpecification

Make = Callable[..., RunSpecification]
KEYS = {
    *("exp_id", "method", "adapter", "task", "metrics", "remaining_weights_percent", "learned_weights_percent"),
    *("adapter_bytes", "seconds", "peak_memory_bytes", "seed", "versions", "settings"),
}


def _result(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("adapter", ["none", "splopa", "splora"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_with_every_adapter(tiny_spec: Make, tmp_path: Path, method: str, adapter: str) -> None:
    spec = tiny_spec(pruning_method=method, adapter=adapter)
    run(spec, tmp_path)
    result = _result(tmp_path)
    assert result.keys() >= KEYS
    assert {"exact_match", "f1"} <= result["metrics"].keys()  # type: ignore[attr-defined]
    if method in ("topK", "topK_global", "magnitude"):
        assert result["remaining_weights_percent"] == pytest.approx(50, abs=1)
    saved = tmp_path / ("model/model.safetensors" if adapter == "none" else "adapter/adapter_model.safetensors")
    assert saved.stat().st_size == result["adapter_bytes"]
    assert (tmp_path / "predictions.json").is_file()
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").count("\n") > 1
    assert len(list((tmp_path / "masks").glob("layer_*.png"))) == (0 if method == "none" else 2)


@pytest.mark.parametrize("adapter", ["none", "splopa", "splora"])
def test_a_saved_run_predicts_and_counts_the_same(tiny_spec: Make, tmp_path: Path, adapter: str) -> None:
    from lightning import Trainer

    from splora.tasks.squad import SquadDataModule
    from splora.training.counting import count_weights
    from splora.training.module import PruningModule
    from splora.training.options import AdapterOptions

    spec = tiny_spec(pruning_method="topK", adapter=adapter)
    run(spec, tmp_path)
    result = _result(tmp_path)
    counts = count_weights(load_run(tmp_path))
    assert counts.remaining_percent == result["remaining_weights_percent"]
    assert counts.learned_percent == result["learned_weights_percent"]
    data = SquadDataModule(**result["settings"]["data"])  # type: ignore[index]
    module = PruningModule(spec.model_name_or_path, adapter=AdapterOptions(adapter), trained_run=str(tmp_path))
    trainer = Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    trainer.validate(module, datamodule=data, verbose=False)
    assert module.scores == result["metrics"]
    assert module.artifacts["predictions"] == json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))


def test_a_saved_model_loads_without_this_project(tiny_spec: Make, tmp_path: Path) -> None:
    from transformers import AutoModelForQuestionAnswering

    run(tiny_spec(pruning_method="topK"), tmp_path)
    stock = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "model").eval()
    ids = torch.randint(5, 50, (2, 9))
    torch.testing.assert_close(stock(input_ids=ids).start_logits, load_run(tmp_path)(input_ids=ids).start_logits)
    weight = stock.bert.encoder.layer[0].intermediate.dense.weight
    assert (weight == 0).float().mean() == 0.5


def test_half_precision_weights_train_in_single(tiny_spec: Make, tmp_path: Path) -> None:
    from splora.training.model import load_base

    spec = tiny_spec()
    assert {p.dtype for p in load_base(spec.model_name_or_path, "squad").parameters()} == {torch.float32}


def test_a_teacher_is_learned_from(tiny_spec: Make, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    teacher = tmp_path / "teacher"
    run(tiny_spec(), teacher)
    # With next to nothing of the task's own loss, all that can move the student is its teacher.
    learned = {}
    for alpha in (0.0, 1.0):
        folder = tmp_path / f"student_{alpha}"
        taught = {"teacher_name_or_path": str(teacher / "model"), "alpha_ce": 1e-30, "alpha_distil": alpha}
        run(tiny_spec(pruning_method="magnitude", adapter="splopa", **taught), folder)
        learned[alpha] = load_file(folder / "adapter" / "adapter_model.safetensors")
    weights = [name for name in learned[1.0] if "position_weights" in name]
    assert weights
    assert all(float(learned[0.0][name].abs().max()) < 1e-12 for name in weights)
    assert all(float(learned[1.0][name].abs().max()) > 1e-6 for name in weights)


def test_accumulated_batches_step_and_schedule_as_one(tiny_spec: Make, tmp_path: Path) -> None:
    for folder, batch, accumulated in (("whole", 4, 1), ("halves", 2, 2)):
        settings = {"per_gpu_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
        run(tiny_spec(pruning_method="topK", adapter="splopa", **settings), tmp_path / folder)
        assert _result(tmp_path / folder)["steps"] == 6
        assert _result(tmp_path / folder)["remaining_weights_percent"] == 50


def test_a_full_disk_while_saving_is_one_sentence(
    tiny_spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from peft import PeftModel

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PeftModel, "save_pretrained", full)
    with pytest.raises(InputError, match=r"adapter: cannot be written \(No space left on device\)"):
        run(tiny_spec(adapter="splopa", max_steps=2), tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "result.json").exists()
    run(tiny_spec(adapter="splopa", max_steps=2), tmp_path)
    assert (tmp_path / "result.json").exists()


def test_a_full_disk_at_a_checkpoint_is_one_sentence(
    tiny_spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("unexpected pos 3051520 vs 3051412")  # what torch 2.13 says on a full disk

    monkeypatch.setattr("splora.training.checkpoint_io.torch.save", full)
    with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint cannot be written, [\d,]+ bytes are free"):
        run(tiny_spec(), tmp_path)


@pytest.mark.parametrize("machine", [{"strategy": "foo"}, {"accelerator": "foo"}, {"devices": 0}])
def test_a_machine_that_cannot_be_is_one_sentence(tiny_spec: Make, tmp_path: Path, machine: dict[str, object]) -> None:
    with pytest.raises(InputError, match="The Trainer cannot be made with"):
        run(tiny_spec(), tmp_path, trainer=machine)


def test_a_finished_run_is_not_run_again(tiny_spec: Make, tmp_path: Path) -> None:
    spec = tiny_spec(max_steps=2)
    run(spec, tmp_path)
    before = (tmp_path / "result.json").read_text(encoding="utf-8")
    run(spec, tmp_path)
    assert (tmp_path / "result.json").read_text(encoding="utf-8") == before
    assert claim_folder(spec, tmp_path)
    assert not claim_folder(spec, tmp_path, force=True)
    assert not (tmp_path / "result.json").exists()


def test_a_folder_of_another_run_is_refused(tiny_spec: Make, tmp_path: Path) -> None:
    claim_folder(tiny_spec(), tmp_path / "a")
    claim_folder(tiny_spec(learning_rate=0.1), tmp_path / "a")  # nothing was trained there yet
    claim_folder(tiny_spec(), tmp_path / "a")
    (tmp_path / "a" / "checkpoints").mkdir()
    (tmp_path / "a" / "checkpoints" / "last.ckpt").touch()
    claim_folder(tiny_spec(model="a better name", reported_f1=88.0), tmp_path / "a")
    with pytest.raises(
        InputError, match=r"belongs to a run with other settings \(learning_rate 0.001 there, 0.5 here\)"
    ):
        claim_folder(tiny_spec(learning_rate=0.5), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model").mkdir()
    (tmp_path / "b" / "model" / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(InputError, match="is not empty and holds no run"):
            claim_folder(tiny_spec(), tmp_path / "b", force=force)
    assert (tmp_path / "b" / "model" / "thesis.tex").read_text() == "years of work"


def test_a_diverging_run_says_so(tiny_spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No rate that is allowed does it to so small a model in so few steps.
    monkeypatch.setattr("splora.training.module.check_model_section", lambda settings: None)
    with pytest.raises(InputError, match=r"The loss is .* lower learning_rate"):
        run(tiny_spec(learning_rate=1e30, max_grad_norm=0.0), tmp_path)


@pytest.mark.parametrize("task", ["mnli", "qqp", "stsb"])
def test_classification_runs(tiny_spec: Make, tmp_path: Path, task: str) -> None:
    run(tiny_spec(task=task, pruning_method="topK", adapter="splopa", max_steps=2), tmp_path)
    metrics = _result(tmp_path)["metrics"]
    wanted = {"mnli": {"accuracy", "accuracy_mismatched"}, "qqp": {"accuracy", "f1"}, "stsb": {"pearson", "spearman"}}
    assert wanted[task] <= metrics.keys()  # type: ignore[attr-defined]
    load_run(tmp_path)


def test_what_an_adapter_is_made_of_is_no_matter_without_one(tiny_spec: Make, tmp_path: Path) -> None:
    """A run from before a default changed is the same run, unless the setting counts."""
    for adapter in ("none", "splora", "splopa"):
        folder = tmp_path / adapter
        claim_folder(tiny_spec(adapter=adapter, splopa_init_range=1e-4), folder)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
        spec = tiny_spec(adapter=adapter, splopa_init_range=0.02)
        if adapter == "splopa":
            with pytest.raises(InputError, match=r"splopa_init_range 0\.0001 there, 0\.02 here"):
                claim_folder(spec, folder)
        else:
            assert not claim_folder(spec, folder)
