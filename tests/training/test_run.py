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
    teacher = tmp_path / "teacher"
    run(tiny_spec(), teacher)
    spec = tiny_spec(pruning_method="topK", adapter="splopa", teacher_name_or_path=str(teacher / "model"))
    run(spec, tmp_path / "student")
    header = (tmp_path / "student" / "metrics.csv").read_text(encoding="utf-8").splitlines()[0]
    # Six steps are fewer than the logging interval; what must be there is the student's own result.
    assert "val/f1" in header
    assert _result(tmp_path / "student")["settings"]["model"]["distillation"]["alpha_distil"] == 0.5  # type: ignore[index]


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
    with pytest.raises(
        InputError, match=r"belongs to a run with other settings \(learning_rate 0.001 there, 0.5 here\)"
    ):
        claim_folder(tiny_spec(learning_rate=0.5), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        claim_folder(tiny_spec(), tmp_path / "b")
    claim_folder(tiny_spec(), tmp_path / "b", force=True)
    assert (tmp_path / "b" / "thesis.tex").read_text() == "years of work"


def test_a_diverging_run_says_so(tiny_spec: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The loss is .* lower learning_rate"):
        run(tiny_spec(learning_rate=1e30, max_grad_norm=0.0), tmp_path)


@pytest.mark.parametrize("task", ["mnli", "qqp", "stsb"])
def test_classification_runs(tiny_spec: Make, tmp_path: Path, task: str) -> None:
    run(tiny_spec(task=task, pruning_method="topK", adapter="splopa", max_steps=2), tmp_path)
    metrics = _result(tmp_path)["metrics"]
    wanted = {"mnli": {"accuracy", "accuracy_mismatched"}, "qqp": {"accuracy", "f1"}, "stsb": {"pearson", "spearman"}}
    assert wanted[task] <= metrics.keys()  # type: ignore[attr-defined]
    load_run(tmp_path)
