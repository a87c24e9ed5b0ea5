"""One path: a run from YAML writes into `trainer.default_root_dir` and nowhere else; finished runs stay as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from splora.errors import InputError
from splora.locks import RUN_LOCK, holding
from splora.report.collect import collect
from splora.scripts.fit_folder import claim
from splora.training.configuration import lightning_config
from splora.training.run import run
from splora.training.run_folder import FOLDER, follow
from splora.training.specification import RunSpecification

Make = Callable[..., RunSpecification]
Command = Callable[..., Any]
SHORT: dict[str, Any] = {"max_steps": 2, "max_train_examples": 8}


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder, but for locks."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def result(folder: Path) -> dict[str, Any]:
    """What a run measured."""
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


def questions(path: Path, answered: bool = True) -> str:
    """A file of two questions, with or without answers; evaluations of it take no time."""
    asked: list[dict[str, Any]] = [{"id": "a", "question": "Who is it?"}, {"id": "b", "question": "Where?"}]
    for question, text in zip(asked, ("Ada", "Paris"), strict=True):
        if answered:
            question["answers"] = [{"text": text, "answer_start": "Ada lives in Paris.".index(text)}]
    paragraphs = [{"context": "Ada lives in Paris.", "qas": asked}]
    path.write_text(json.dumps({"data": [{"title": "", "paragraphs": paragraphs}]}), encoding="utf-8")
    return str(path)


def with_copies(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """The configuration as it was written when it held five copies of its folder and one of its row's name."""
    text = yaml.safe_dump(config).replace(FOLDER, folder)
    old: dict[str, Any] = yaml.safe_load(text)
    for entry in old["trainer"]["callbacks"]:
        if entry["class_path"].endswith(("RunResult", "MaskPictures")):
            entry["init_args"]["output_dir"] = folder
        if entry["class_path"].endswith("RunResult"):
            row = {"exp_id": 2, "sheet": "Demo", "adapter": "splopa", "method": "topK", "task": "squad", "seed": 92}
            entry["init_args"]["run"] = {**row, "reported": {"f1": 99.0}}
    return old


@pytest.mark.parametrize("kind", ["new", "old"])
def test_another_folder_takes_everything_along(
    command: Command, tiny_spec: Make, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = questions(tmp_path / "dev.json")
    spec = tiny_spec(pruning_method="topK", adapter="splopa", exp_id=2, sheet="Demo", predict_file=asked, **SHORT)
    config = lightning_config(spec, "one")
    text = yaml.safe_dump(config if kind == "new" else with_copies(config, "one"))
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    fit = ("fit", "--config", "run.yaml", "--trainer.accelerator", "cpu")
    status, told = command(*fit)
    assert status == 0
    assert told.splitlines()[-1].startswith("one: exact_match ")  # ends with score and path
    before = contents(tmp_path / "one")
    assert {"result.json", "adapter/adapter_model.safetensors", "metrics.csv", "predictions.json"} <= before.keys()
    changes = ("--model.adapter.kind", "none", "--model.pruning.method", "magnitude", "--model.seed", "5")
    if kind == "new":
        status, told = command(*fit)
        assert (status, "one: this run is finished" in told) == (0, True)
        status, told = command(*fit, *changes)
        assert status == 2
        assert "belongs to a run with other settings (model.adapter.kind 'splopa' there, 'none' here" in told
        # What makes the schedule is a setting, too.
        status, told = command(*fit, "--trainer.max_steps", "4")
        assert (status, "trainer.max_steps 2 there, 4 here" in told) == (2, True)
    status, told = command(*fit, *changes, "--trainer.default_root_dir", "two")
    assert status == 0
    assert ("one in trainer.callbacks follows trainer.default_root_dir: two" in told) == (kind == "old")
    assert contents(tmp_path / "one") == before
    there = contents(tmp_path / "two")
    assert {"result.json", "model/model.safetensors", "metrics.csv", "fit.yaml", "masks/layer_00.png"} <= there.keys()
    told_by = result(tmp_path / "two")
    identity = {name: told_by[name] for name in ("exp_id", "sheet", "adapter", "method", "task", "seed", "reported")}
    assert identity == {
        **{"exp_id": "", "sheet": "", "adapter": "none", "method": "magnitude"},
        **{"task": "squad", "seed": 5, "reported": {}},
    }
    if kind == "old":
        return
    # The report's command repeats what ran.
    (again,) = (each for each in collect(tmp_path).runs if each.name == "two")
    words = again.command.split()
    assert words[:3] == ["lightning", "fit", "--config"]
    status, told = command(*words[1:])
    assert (status, contents(tmp_path / "two")) == (0, there)
    repeated = Path(words[-1])
    assert repeated.name == "two-again"
    assert result(repeated)["settings"] == told_by["settings"]
    assert result(repeated)["metrics"] == told_by["metrics"]


@pytest.mark.parametrize(
    "paths",
    [
        {"RunResult": "runs/b", "ModelCheckpoint": "runs/a/checkpoints"},
        {"MaskPictures": "./runs/a/", "TensorBoardLogger": "runs/a"},
        {"ResumableCSVLogger": "runs/../runs/a"},
    ],
)
def test_half_edited_copies_follow(
    tiny_spec: Make, paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = lightning_config(tiny_spec(pruning_method="topK"), "runs/b")["trainer"]
    for entry in trainer["logger"] + trainer["callbacks"]:
        name = entry["class_path"].rpartition(".")[2]
        argument = {"ModelCheckpoint": "dirpath", "RunResult": "output_dir", "MaskPictures": "output_dir"}
        if name in paths:
            entry["init_args"][argument.get(name, "save_dir")] = paths[name]
    follow(trainer)
    text = yaml.safe_dump(trainer)
    assert "runs/a" not in text
    assert FOLDER not in text
    assert "dirpath: runs/b/checkpoints" in text


@pytest.mark.parametrize("section", ["logger", "callbacks"])
def test_another_run_s_folder_is_refused_and_a_free_one_is_not(
    command: Command, tiny_spec: Make, tmp_path: Path, section: str
) -> None:
    config = lightning_config(tiny_spec(**SHORT), str(tmp_path / "new"))
    extra: dict[str, Any] = {
        "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "HERE"}},
        "callbacks": {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "HERE"}},
    }[section]
    config["trainer"][section].append(extra)
    text = yaml.safe_dump(config)
    finished = tmp_path / "finished"
    finished.mkdir()
    (finished / "result.json").write_text("{}", encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(text.replace("HERE", str(finished / "inside")), encoding="utf-8")
    status, told = command("fit", "--config", tmp_path / "bad.yaml")
    assert (status, f"would write into {finished}, which is another run's folder" in told) == (2, True)
    assert [path.name for path in finished.iterdir()] == ["result.json"]
    assert not (tmp_path / "new").exists()
    trainer = yaml.safe_load(text.replace("HERE", str(tmp_path / "free")))["trainer"]
    follow(trainer)
    assert str(tmp_path / "free") in yaml.safe_dump(trainer)


@pytest.mark.parametrize("written", [True, False])
def test_a_second_fit_leaves_the_folder_of_a_running_one_as_it_is(
    command: Command, tiny_spec: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """Before the first checkpoint, too, and before it has written its settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("splora.launch.run_row._WAIT", 0.0)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(lightning_config(tiny_spec(**SHORT), "one")), encoding="utf-8")
    folder = tmp_path / "one"
    with holding(folder / RUN_LOCK, "the first"):
        if written:
            claim(folder, {"model": {"seed": 5}})
            (folder / "fit.yaml").write_text("of the first", encoding="utf-8")
        before = contents(folder)
        status, told = command("fit", "--config", "run.yaml", "--trainer.accelerator", "cpu")
        assert status == 2
        assert ("model.seed 5 there, 92 here" if written else "one: another process trains here (process ") in told
        assert contents(folder) == before
        if written:  # the same settings there: it is still somebody else's to write into
            claim(folder, {"model": {"seed": 92}})
            before = contents(folder)
            status, told = command("fit", "--config", "run.yaml", "--trainer.accelerator", "cpu")
            assert (status, "one: another process trains here (process " in told) == (2, True)
            assert contents(folder) == before


@pytest.mark.parametrize("left", ["spec.json", "result.json", "adapter", "metrics.csv"])
def test_a_folder_of_a_row_or_of_somebody_else_is_refused(
    command: Command, tiny_spec: Make, tmp_path: Path, left: str
) -> None:
    folder = tmp_path / "there"
    (folder / left).mkdir(parents=True) if left == "adapter" else folder.mkdir()
    if left != "adapter":
        (folder / left).write_text("{}", encoding="utf-8")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(lightning_config(tiny_spec(), str(folder))), encoding="utf-8")
    for extra in ((), ("--ckpt_path", tmp_path / "last.ckpt")):
        status, told = command("fit", "--config", tmp_path / "run.yaml", *extra)
        assert (status, "choose another trainer.default_root_dir" in told) == (2, True)
    assert [path.name for path in folder.iterdir()] == [left]


def test_validate_test_and_predict_leave_a_run_as_it_is(command: Command, tiny_spec: Make, tmp_path: Path) -> None:
    folder = tmp_path / "row"
    asked = questions(tmp_path / "dev.json")
    run(tiny_spec(pruning_method="topK", adapter="splopa", predict_file=asked, **SHORT), folder)
    before, wanted = contents(folder), result(folder)["metrics"]["f1"]
    config = ("--config", folder / "config.yaml", "--trainer.accelerator", "cpu")
    trained = ("--model.trained_run", folder)
    for name, arguments, told_so in (
        ("validate", (), "validate: model.trained_run is empty"),
        ("test", (), "test: model.trained_run is empty"),
        ("predict", (), "predict: model.trained_run is empty"),
        ("test", ("--model.trained_run", tmp_path / "none"), "no finished run is here"),
        ("test", ("--ckpt_path", folder / "checkpoints" / "last.ckpt"), "give a finished run instead"),
    ):
        status, told = command(name, *config, *arguments)
        assert (status, told_so in told) == (2, True)
        assert contents(folder) == before
    for name in ("validate", "test"):
        status, told = command(name, *config, *trained)
        assert (status, str(wanted)[:5] in told) == (0, True)
        assert contents(folder) == before
    status, told = command("predict", *config, *trained)
    assert (status, contents(folder)) == (0, before)
    beside = tmp_path / "row-predict"
    assert told.splitlines()[-1].startswith(f"{beside / 'predictions.json'}: ")
    assert (beside / "predictions.json").read_bytes() == (folder / "predictions.json").read_bytes()
    assert not (beside / "scores.json").exists()
    unanswered = questions(tmp_path / "questions.json", answered=False)
    status, told = command("predict", *config, *trained, "--data.init_args.predict_file", unanswered)
    assert status == 0
    answers = json.loads((tmp_path / "row-predict-2" / "predictions.json").read_text(encoding="utf-8"))
    assert answers.keys() == {"a", "b"}
    assert (beside / "predictions.json").read_bytes() == (folder / "predictions.json").read_bytes()
    status, told = command("validate", *config, *trained, "--data.init_args.predict_file", unanswered)
    assert (status, "answers" in told) == (2, True)
    status, told = command("validate", *config, *trained, "--data.init_args.model_name_or_path", "embedded")
    assert status == 0  # another name of the same tokenizer


@pytest.mark.parametrize("written", ["csv", "tsv", "jsonl"])
def test_predict_classifies_rows_without_labels(
    command: Command, tiny_spec: Make, tmp_path: Path, written: str
) -> None:
    folder = tmp_path / "row"
    labelled = tmp_path / "dev.tsv"
    labelled.write_text("question1\tquestion2\tis_duplicate\nWho?\tWho?\t1\nWhy?\tWho?\t0\n", encoding="utf-8")
    run(tiny_spec(task="qqp", predict_file=str(labelled), **SHORT), folder)
    pairs = [("Who is it?", "Who?"), ("Where is Ada?", "In Paris?"), ("When?", "Why?")]
    path = tmp_path / f"rows.{written}"
    if written == "jsonl":
        lines = [json.dumps({"question1": one, "question2": two}) for one, two in pairs]
    else:
        comma = "," if written == "csv" else "\t"
        lines = [comma.join(pair) for pair in [("question1", "question2"), *pairs]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ("--config", folder / "config.yaml", "--model.trained_run", folder, "--data.init_args.predict_file", path)
    status, told = command(
        "predict", *words, "--trainer.accelerator", "cpu", "--trainer.default_root_dir", tmp_path / "o"
    )
    assert status == 0, told
    predictions = json.loads((tmp_path / "o" / "predictions.json").read_text(encoding="utf-8"))
    assert predictions.keys() == {"0", "1", "2"}
    assert set(predictions.values()) <= {"duplicate", "not_duplicate"}
    status, told = command("predict", *words, "--trainer.default_root_dir", tmp_path / "o")
    assert (status, "is there already" in told) == (2, True)


@pytest.mark.parametrize("name", ["checkpoints", "masks", "adapter", "metrics.csv", "result.json"])
def test_a_folder_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    theirs, folder = tmp_path / "theirs", tmp_path / "run"
    (theirs / "checkpoints").mkdir(parents=True)
    folder.mkdir()
    (folder / "fit.json").write_text("{}", encoding="utf-8")
    (folder / name).symlink_to(theirs if "." not in name else theirs / name)
    with pytest.raises(InputError, match=f"{name}: "):
        claim(folder, {})
    assert contents(theirs) == {}


def test_what_cannot_be_made_or_is_another_run_s_is_a_sentence(
    command: Command, tiny_spec: Make, tmp_path: Path
) -> None:
    config = lightning_config(tiny_spec(**SHORT), str(tmp_path / "new"))
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    old = tmp_path / "mine"
    old.mkdir()
    (old / "fit.json").write_text("{}", encoding="utf-8")
    (old / "metrics.csv").write_text("step\n1\n", encoding="utf-8")
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
    settings = {"save_dir": str(tmp_path), "name": "mine", "version": ""}
    config["trainer"]["logger"] = [logger | {"init_args": settings}]
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name, arguments, sentence in (
        ("a", ("--model.trained_run", old), "to start from what it trained, give model.model_name_or_path"),
        ("a", ("--trainer.accelerator", "gpu"), "fit: what was asked for cannot be made (No supported gpu backend"),
        ("a", ("--trainer.strategy", "bogus"), "fit: what was asked for cannot be made ("),
        ("b", (), "trainer.logger: CSVLogger would write into"),
    ):
        status, told = command("fit", "--config", tmp_path / f"{name}.yaml", *arguments)
        assert (status, sentence in told) == (2, True), told
    assert (old / "metrics.csv").read_text(encoding="utf-8") == "step\n1\n"


@pytest.mark.parametrize("content", ["", "[]", '{"f1":'])
def test_a_run_without_a_readable_result_is_not_finished(content: str, tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text("{}", encoding="utf-8")
    (tmp_path / "result.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"result\.json: .*; remove this file and the run goes on from its last check"):
        claim(tmp_path, {})
