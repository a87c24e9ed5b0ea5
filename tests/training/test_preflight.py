"""What is refused before anything starts, each in one sentence that names the field."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splora.errors import InputError
from splora.tasks.embedded.corpus import write_corpus
from splora.training.configuration import lightning_config
from splora.training.model import load_base
from splora.training.options import DistillationOptions
from splora.training.preflight import preflight
from splora.training.specification import METHODS, RunSpecification, check

Make = Callable[..., RunSpecification]


def told(spec: RunSpecification) -> str:
    """All problems as one text."""
    return "\n".join(f"{problem.field} {problem.message}" for problem in preflight(spec))


def test_a_good_run_has_no_problems(tiny_spec: Make) -> None:
    for method in METHODS:
        assert told(tiny_spec(pruning_method=method, adapter="splopa")) == ""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pruning_method": "topk"}, "pruning_method is 'topk'; allowed are"),
        ({"mask_init": "constnt"}, "did you mean 'constant'?"),
        ({"regularization": "l3", "pruning_method": "topK"}, "regularization is 'l3'; allowed are none, l0, l1"),
        ({"pruning_method": "topK", "final_threshold": 1.5}, "final_threshold is 1.5; topK takes a fraction"),
        ({"pruning_method": "sigmoid_threshold", "final_threshold": 1.0}, "takes a probability from 0 up to, not"),
        ({"pruning_method": "l0", "final_threshold": -1.0}, "final_threshold is -1.0; l0 takes a number above 0"),
        ({"pruning_method": "topK", "mask_scores_learning_rate": None}, "is empty, but topK learns mask scores"),
        ({"pruning_method": "magnitude", "regularization": "l1"}, "magnitude has no scores to penalize"),
        ({"warmup_steps": 100}, "warmup_steps is 100: the warm-ups take 100 steps, longer than the run's 6 steps"),
        ({"num_train_epochs": 0.0}, "num_train_epochs is 0.0; more than 0 is needed"),
        ({"num_train_epochs": 1.5, "max_steps": None}, "num_train_epochs is 1.5; whole epochs or a fraction below 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; a finite number"),
        ({"doc_stride": 64}, "doc_stride is 64; it must be less than max_seq_length 64"),
        ({"model_name_or_path": "./no-such-model"}, "model_name_or_path is './no-such-model'; there is no such folder"),
        ({"train_file": "no-such.json"}, "train_file is 'no-such.json'; there is no such file"),
        ({"train_file": "no-such.parquet"}, "train_file is 'no-such.parquet'; there is no such file"),
        ({"teacher_name_or_path": "/no/teacher"}, "teacher_name_or_path is '/no/teacher'; there is no such folder"),
        (
            {"pruning_method": "topK", "attention_block_rows": 5},
            "attention_block_rows is 5; blocks of that size do not",
        ),
        (
            {"pruning_method": "topK", "early_stopping": 2, "warmup_steps": 0},
            "early_stopping is 2, but evaluations count from where the threshold is final, and it is so for "
            "final_warmup · warmup_steps = 1 · 0 steps",
        ),
        (
            {"pruning_method": "l0", "best_checkpoint": True, "final_warmup": 0.0},
            "best_checkpoint is True, but evaluations count from",
        ),
        ({"adapter": "splopa", "ffn_block_cols": 24}, "ffn_block_cols is 24; blocks of that size do not divide 64"),
    ],
)
def test_each_mistake_is_named(tiny_spec: Make, changes: dict[str, Any], sentence: str) -> None:
    assert sentence in told(tiny_spec(**changes))


def test_the_home_folder_is_known(tiny_spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_corpus(tmp_path)
    assert told(tiny_spec(train_file="~/train.json", predict_file="~/dev.json")) == ""
    assert "there is no such file" in told(tiny_spec(train_file="~/trains.json"))


def test_all_problems_are_told_at_once(tiny_spec: Make) -> None:
    spec = tiny_spec(pruning_method="topk", learning_rate=-1.0, train_file="no.json")
    assert {problem.field for problem in preflight(spec)} == {"pruning_method", "learning_rate", "train_file"}


def test_the_steps_of_local_data_are_counted(tiny_spec: Make, tmp_path: Path) -> None:
    train, _ = write_corpus(tmp_path)
    spec = tiny_spec(train_file=str(train), max_steps=None, max_train_examples=None, warmup_steps=500)
    assert told(spec) == ""
    short = tiny_spec(
        train_file=str(train), max_steps=None, max_train_examples=40, num_train_epochs=1.0, warmup_steps=11
    )
    assert "longer than the run's 10 steps" in told(short)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "llama"}, "heads share keys and values, are pruned and quantized without training"),
        ({"model_type": "deberta-v2", "conv_kernel_size": 3}, "with conv_kernel_size (3 here) are not supported: the"),
    ],
)
def test_what_rows_do_not_train_is_told_before_they_start(
    tiny_spec: Make, tiny_model: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")
    spec = tiny_spec(model_name_or_path=str(tmp_path / "model"))
    assert sentence in told(spec)
    with pytest.raises(InputError, match=re.escape(sentence)):
        load_base(spec.model_name_or_path, "squad")


def test_held_out_sentences_are_not_trained_on(tiny_spec: Make, tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\n" + "a fine film\t1\n" * 100, encoding="utf-8")
    settings = {"task": "sst2", "train_file": str(path), "predict_file": "embedded", "max_train_examples": None}
    settings |= {"max_steps": None, "num_train_epochs": 1.0, "warmup_steps": 21}
    assert "longer than" not in told(tiny_spec(**settings))  # 25 steps
    assert "longer than the run's 20 steps" in told(tiny_spec(**settings, held_out=50))


def test_a_broken_data_file_is_named(tiny_spec: Make, tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text('{"version": "1.1", "data": [{"title"', encoding="utf-8")
    assert f"train_file cannot be used: {path}" in told(tiny_spec(train_file=str(path)))


def test_a_teacher_with_another_vocabulary_is_refused(tiny_spec: Make, tiny_model: Path, tmp_path: Path) -> None:
    from splora.tasks.embedded.tokenizer import build_tokenizer
    from splora.training.teacher import load_teacher

    teacher = tmp_path / "teacher"
    teacher.mkdir()
    config = json.loads((tiny_model / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForQuestionAnswering"]
    (teacher / "config.json").write_text(json.dumps(config), encoding="utf-8")
    words = json.loads((tiny_model / "tokenizer.json").read_text(encoding="utf-8"))
    words["model"]["vocab"]["surprise"] = len(words["model"]["vocab"])
    (teacher / "tokenizer.json").write_text(json.dumps(words), encoding="utf-8")
    (teacher / "tokenizer_config.json").write_text(
        (tiny_model / "tokenizer_config.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    assert "has another vocabulary" in told(tiny_spec(teacher_name_or_path=str(teacher)))
    with pytest.raises(InputError, match="has another vocabulary than the student"):
        load_teacher(DistillationOptions(str(teacher)), "squad", build_tokenizer())
    with pytest.raises(InputError, match=r"teacher_type is 'roberta', but the teacher .* is a 'bert' model"):
        load_teacher(DistillationOptions(str(teacher), teacher_type="roberta"), "squad", build_tokenizer())
    with pytest.raises(InputError, match="is no fine-tuned SequenceClassification model"):
        load_teacher(DistillationOptions(str(teacher)), "mnli", build_tokenizer())


def test_blocks_that_do_not_divide_are_refused_by_the_network_too(tiny_spec: Make) -> None:
    from splora.training.model import load_base, prepare
    from splora.training.options import AdapterOptions, PruningOptions

    base = load_base(tiny_spec().model_name_or_path, "squad")
    with pytest.raises(InputError) as refused:
        prepare(base, AdapterOptions(), PruningOptions(method="topK", attention_block=(5, 8), ffn_block=(8, 8)))
    assert len(refused.value.problems) == 8
    assert "attention_block 5x8 does not divide layer bert.encoder.layer.0" in refused.value.problems[0]


def test_the_configuration_of_every_row_builds(root: Path) -> None:
    from splora.hparams.catalogue import catalogue

    specs = [spec for sheet in catalogue().values() for spec, _ in sheet]
    assert len(specs) > 200
    for spec in specs:
        config = lightning_config(spec, "runs/x")
        assert check(spec) == []
        assert config["trainer"]["callbacks"]
        assert set(config) == {"seed_everything", "trainer", "model", "data"}


def test_configurations_need_no_torch(root: Path) -> None:
    code = (
        "import sys; from splora.training.configuration import lightning_config;"
        "from splora.training.specification import RunSpecification;"
        "from splora.training.preflight import preflight;"
        "lightning_config(RunSpecification(precision='auto'), 'x'); preflight(RunSpecification());"
        "assert not {'torch', 'lightning', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_less_than_a_batch_of_an_epoch_is_refused(tiny_spec: Make, tmp_path: Path) -> None:
    from splora.training.run import run

    part = {"max_steps": None, "num_train_epochs": 0.01, "max_train_examples": 20}
    with pytest.raises(
        InputError, match=r"num_train_epochs 0.01 of \d+ batches is not one batch; at least 0\.\d+ is needed"
    ):
        run(tiny_spec(**part), tmp_path / "run")
    assert "limit_train_batches" not in lightning_config(tiny_spec(**part | {"max_steps": 6}), "x")["trainer"]
    table = tmp_path / "train.tsv"
    table.write_text("sentence\tlabel\n" + "a fine film\t1\nno film\t0\n" * 10, encoding="utf-8")
    sst2 = tiny_spec(**part, task="sst2", train_file=str(table))
    assert "num_train_epochs is 0.01 of 5 batches, which is not one batch" in told(sst2)
    assert "num_train_epochs" not in told(
        tiny_spec(**part | {"num_train_epochs": 0.2}, task="sst2", train_file=str(table))
    )
