"""Pruning and healing by texts without labels: the dense model says what is right, and how near one is to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from splora.callbacks.best_score import BestWeights
from splora.export.cut import cut
from splora.export.folder import load_pruned, save_pruned
from splora.export.plan import Plan
from splora.training.evaluation import DivergenceMeter
from splora.training.losses import distillation_loss
from splora.training.preflight import preflight
from splora.training.specification import RunSpecification

Make = Callable[..., RunSpecification]
Command = Callable[..., tuple[int, str]]
SETS = ("held_out=12", "per_gpu_train_batch_size=4", "num_splopa_prototypes=4", "evaluate_every_n_steps=2")
FEW = tuple(word for setting in SETS for word in ("--set", setting))


def dense_model(task: str, folder: Path) -> Path:
    """A tiny model of a task, saved."""
    import transformers

    from splora.tasks.embedded.model import embedded_config
    from splora.tasks.embedded.tokenizer import build_tokenizer

    torch.manual_seed(0)
    config = embedded_config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    kind = "QuestionAnswering" if task == "squad" else "SequenceClassification"
    model = getattr(transformers, f"BertFor{kind}")(config)
    with torch.no_grad():  # as new they all say the same
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def unlabelled(task: str, folder: Path) -> Path:
    """A folder of data whose training part has no labels."""
    folder.mkdir()
    if task == "squad":
        from splora.tasks.embedded.corpus import corpus

        for name, split, count in (("train.json", "train", 60), ("dev.json", "dev", 40)):
            content = corpus(split, count)
            for article in content["data"] if split == "train" else ():
                for paragraph in article["paragraphs"]:
                    for question in paragraph["qas"]:
                        del question["answers"]
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        return folder
    lines = [
        f"it is a {word} {noun} of number {n}" for n in range(30) for word, noun in (("good", "film"), ("bad", "day"))
    ]
    (folder / "train.tsv").write_text("\n".join(["sentence", *lines]) + "\n", encoding="utf-8")
    labelled = [f"{line}\t{number % 2}" for number, line in enumerate(lines)]
    (folder / "dev.tsv").write_text("\n".join(["sentence\tlabel", *labelled]) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("task", ["squad", "sst2"])
def test_prune_and_heal_without_labels(command: Command, tmp_path: Path, task: str) -> None:
    dense, data, output = dense_model(task, tmp_path / "dense"), unlabelled(task, tmp_path / "data"), tmp_path / "small"
    length = ("--max_seq_length", 64, "--doc_stride", 16)
    words = ("prune", "stat", "--model", dense, "--task", task, *length, "--data", data, "--num_samples", 48)
    heal = ("--budget", "mac=0.7", "--heal", 1, "--max_steps", 4, *FEW, "--output", output)
    status, told = command(*words, *heal)
    missing = "has no key 'answers'" if task == "squad" else "label"
    assert (status, missing in told) == (2, True)
    status, told = command(*words, *heal, "--no_labels")
    assert status == 0, told
    result = json.loads((output / "result.json").read_text())
    scores = result["chosen"]["scores"]
    assert result["chosen"]["monitor"] == "held/divergence"
    assert set(scores) == {"0", "2", "4"}
    assert result["chosen"]["score"] == min(scores.values()) > 0
    # It is what the two models say about the examples held out.
    training = json.loads((tmp_path / "small-training" / "result.json").read_text())
    from splora.training.heal_pipeline import _data
    from splora.training.signals import model_inputs

    data_module = _data(training)
    with data_module.judging_held_out():
        batch = next(iter(data_module.val_dataloader()))
    inputs, rows = model_inputs(batch), len(batch["index"])
    assert "labels" not in batch
    assert "start_positions" not in batch
    start, teacher = load_pruned(tmp_path / "small-pruned"), load_pruned(dense)
    logits = [_logits(model(**inputs)) for model in (start, teacher)]
    assert rows == len(data_module.features("held"))
    assert scores["0"] == pytest.approx(float(distillation_loss(*logits, temperature=1.0)), rel=1e-4)


def _logits(outputs: Any) -> dict[str, Tensor]:
    names = ("start_logits", "end_logits") if "start_logits" in outputs else ("logits",)
    return {name: outputs[name].detach() for name in names}


def test_what_is_judged_fits_what_is_known(tiny_spec: Make, tmp_path: Path) -> None:
    """From YAML: a score that will not come is refused, and labels that are not read, before anything costly."""
    from splora.errors import InputError
    from splora.training.configuration import lightning_config
    from splora.training.run import _fit
    from splora.training.run_folder import follow

    dense, data = dense_model("squad", tmp_path / "dense"), unlabelled("squad", tmp_path / "data")
    spec = tiny_spec(
        **{"model_name_or_path": str(dense), "teacher_name_or_path": str(dense), "alpha_ce": 0.0, "labelled": False},
        **{"train_file": str(data / "train.json"), "predict_file": str(data / "dev.json"), "held_out": 8},
        **{"best_checkpoint": True, "max_steps": 1},
    )
    config = lightning_config(spec, str(tmp_path / "run"))
    follow(config["trainer"])
    for entry in config["trainer"]["callbacks"]:
        if entry["class_path"].endswith("BestWeights"):
            entry["init_args"]["monitor"] = "held/f1"
    with pytest.raises(InputError, match="give held/divergence"):
        _fit(config, tmp_path / "run", [])
    config = lightning_config(spec, str(tmp_path / "other"))
    follow(config["trainer"])
    config["model"]["distillation"]["alpha_ce"] = 0.5
    with pytest.raises(InputError, match=r"data.labelled is false, but model.distillation.alpha_ce is 0.5"):
        _fit(config, tmp_path / "other", [])
    config["model"]["distillation"] = None
    with pytest.raises(InputError, match=r"data.labelled is false, but there is no teacher"):
        _fit(config, tmp_path / "other", [])


def test_torn_rows_that_were_published_are_left_out_without_labels_too(tmp_path: Path) -> None:
    from splora.tasks.glue_tables import count_examples

    rows = [f"{number}\t1\t2\tis it {number}?\tis {number} it?\t{number % 2}" for number in range(300)]
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    (tmp_path / "train.tsv").write_text("\n".join([header, *rows, "7\tcut"]) + "\n", encoding="utf-8")
    assert count_examples(str(tmp_path), "qqp", "train") == 300
    assert count_examples(str(tmp_path), "qqp", "train", labelled=False) == 300


def test_a_report_repeats_a_pruning_without_labels(tmp_path: Path) -> None:
    from splora.report.repeat import pruning_command

    settings = {"method": "stat", "model": "m", "task": "sst2", "labelled": False}
    for method in ("stat", "heal"):
        words = pruning_command({"method": method, "settings": settings, "task": "sst2"}, tmp_path).split()
        assert words.count("--no_labels") == 1
        assert "--labelled" not in words


def test_divergences_are_weighed_by_rows() -> None:
    meter = DivergenceMeter()
    meter.add(torch.tensor(1.0), 3)
    meter.add(torch.tensor(5.0), 1)
    assert meter.value() == 2.0
    meter.add(torch.tensor(7.0), 2)
    assert meter.value() == 7.0


@pytest.mark.parametrize(("monitor", "best"), [("held/divergence", 0.5), ("held/f1", 0.9)])
def test_of_divergences_the_least_is_best(monitor: str, best: float) -> None:
    weights = BestWeights(monitor)
    for score in (float("nan"), 0.7, 0.9, 0.5, 0.8):
        if weights._beats(score):
            weights.best = score
    assert weights.best == best


def test_what_cannot_do_without_labels(tiny_spec: Make, command: Command, tmp_path: Path) -> None:
    def told(**changes: Any) -> str:
        return " ".join(f"{each.field} {each.message}" for each in preflight(tiny_spec(labelled=False, **changes)))

    assert "labelled is FALSE, but teacher_name_or_path is empty" in told()
    teacher = {"teacher_name_or_path": str(dense_model("squad", tmp_path / "dense"))}
    assert "alpha_ce is 0.5, but labelled is FALSE" in told(**teacher)
    scores = {"pruning_method": "topK", "mask_init": "fisher", "mask_scale": 1.0, "mask_scores_learning_rate": 1e-2}
    assert "mask_init is fisher, whose gradients are of the task's loss" in told(**teacher, alpha_ce=0.0, **scores)
    words = ("prune", "fisher", "--model", tmp_path / "dense", "--task", "squad", "--no_labels", "--budget", "mac=0.5")
    status, answer = command(*words, "--fisher_labels", "data", "--output", tmp_path / "out")
    assert (status, "--no_labels is given, but --fisher_labels data needs them" in answer) == (2, True)
    status, answer = command("heal", tmp_path / "dense", "--task", "squad", "--set", "labelled=false")
    assert (status, "--set labelled: is what --no_labels says" in answer) == (2, True)


def test_a_smaller_model_heals_by_a_row_without_labels(tiny_spec: Make, tmp_path: Path) -> None:
    """The same from the sheet: `labelled` FALSE, the dense model as teacher."""
    from splora.tasks.hub import load_tokenizer
    from splora.training.run import run

    dense, data = dense_model("squad", tmp_path / "dense"), unlabelled("squad", tmp_path / "data")
    pruned = tmp_path / "pruned"
    save_pruned(cut(load_pruned(dense), Plan(((1,), (0,)), ((0, 1), (2, 3)))), load_tokenizer(str(dense)), pruned)
    spec = tiny_spec(
        **{"model_name_or_path": str(pruned), "teacher_name_or_path": str(dense), "alpha_ce": 0.0, "labelled": False},
        **{"train_file": str(data / "train.json"), "predict_file": str(data / "dev.json"), "alpha_hidden": 1.0},
        max_steps=2,
    )
    assert not preflight(spec)
    run(spec, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["f1"] >= 0
