"""What would fail, or do something else, after hours: told before anything starts. One bad row costs that row."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from openpyxl import load_workbook

from splora.errors import nearest
from splora.hparams.workbook import OWN, read_workbook
from splora.launch import run_row
from splora.scripts import run_from_sheet
from splora.scripts.run_from_sheet import main
from splora.training.known_models import known_config
from splora.training.specification import METHOD_ALIASES, METHODS, methods_named

own = functools.cache(functools.partial(read_workbook, OWN))
Command = Callable[..., SimpleNamespace]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in an empty folder; tells its status, what it printed, and which rows would have run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_from_sheet, "read_workbook", lambda path: own() if path == OWN else read_workbook(path))
    runs: list[Any] = []
    monkeypatch.setattr(run_row, "run", lambda spec, folder, *rest: runs.append((spec, str(folder), rest[-1])))

    def give(*arguments: str) -> SimpleNamespace:
        runs.clear()
        status = 0
        try:
            main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        ids = [spec.exp_id for spec, *_ in runs]
        return SimpleNamespace(status=status, out=printed.out, err=printed.err, ids=ids, runs=list(runs))

    return give


def one_sentence(done: SimpleNamespace) -> str:
    """The only line of a refusal."""
    assert (done.status, done.out, done.ids) == (2, "", [])
    (line,) = done.err.splitlines()
    return str(line.removeprefix("error: "))


@pytest.mark.parametrize("exp_id", ["12", "63", "68", "69"])
@pytest.mark.parametrize("block", ["attention_block_rows", "attention_block_cols", "ffn_block_rows", "ffn_block_cols"])
def test_blocks_are_checked_against_the_model_that_a_row_begins_with(command: Command, exp_id: str, block: str) -> None:
    # The folder is empty: bert-base-uncased is known by its name, run:63 by what row 63 starts from.
    if exp_id == "63":  # dense: blocks mean nothing
        assert command("--exp-id", exp_id, "--dry-run", "--set", f"{block}=7").status == 0
        return
    done = command("--exp-id", exp_id, "--set", f"{block}=7")
    sizes = [768] if block.startswith("attention") else [3072, 768]
    assert done.ids == []
    assert done.status == 2
    lines = done.err.splitlines()
    assert [f"error: --set {block}: is 7; blocks of that size do not divide {size} of bert-base-uncased" in line
            for size, line in zip(sizes, lines, strict=True)] == [True] * len(sizes)  # fmt: skip


def test_the_pretrained_model_of_the_command_line_is_what_blocks_must_divide(command: Command) -> None:
    done = command("--exp-id", "68", "--dry-run", "--model", "google/bert_uncased_L-2_H-128_A-2", "--set",
                   "attention_block_rows=256", "--set", "max_seq_length=512")  # fmt: skip
    assert "do not divide 128 of google/bert_uncased_L-2_H-128_A-2, which run:63 begins with." in one_sentence(done)
    assert "roberta-base, which run:63 begins with has 512 positions" in one_sentence(
        command(
            "--exp-id",
            "68",
            "--dry-run",
            "--model",
            "roberta-base",
            "--set",
            "max_seq_length=513",
            "--set",
            "teacher_type=roberta",
        )
    )


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("bert-base-uncased", (768, 3072)),
        ("google-bert/bert-large-cased", (1024, 4096)),
        ("FacebookAI/roberta-large", (1024, 4096)),
        ("distilroberta-base", (768, 3072)),
        ("google/bert_uncased_L-4_H-512_A-8", (512, 2048)),
        ("embedded", (128, 512)),
    ],
)
def test_known_models(name: str, sizes: tuple[int, int]) -> None:
    config = known_config(name)
    assert config is not None
    assert (config["hidden_size"], config["intermediate_size"]) == sizes


def test_known_sizes_are_the_library_s_own() -> None:
    import transformers

    from splora.tasks.embedded.model import embedded_config

    for name, config in (
        ("bert-base-uncased", transformers.BertConfig()),
        ("distilbert-base-uncased", transformers.DistilBertConfig()),
        ("embedded", embedded_config()),
    ):
        assert {key: getattr(config, key) for key in known_config(name) or {"nothing": 0}} == known_config(name)
    assert known_config("nobody/has-this") is None
    assert known_config("run:63") is None


def test_what_the_hub_s_cache_holds_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 96}', encoding="utf-8")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: str(tmp_path / file))
    assert known_config("some/model") == {"model_type": "bert", "hidden_size": 96}


@pytest.mark.parametrize(
    "name",
    ["learning_rate", "mask_scores_learning_rate", "position_weights_learning_rate", "adapter_learning_rate"],
)
def test_rates_that_never_train_are_refused(command: Command, name: str) -> None:
    told = one_sentence(command("--exp-id", "68", "--set", f"{name}=3"))
    assert told == f"--set {name}: is 3.0; at most 1.0 is allowed."


@pytest.fixture
def book(tmp_path: Path, sheets: SimpleNamespace) -> Callable[..., str]:
    """Writes a workbook whose rows 1, 2, … differ in what is given; returns its path."""

    def make(*rows: dict[str, Any], **others: Any) -> str:
        headings = (*sheets.columns, "reported_f1", "reported_exact_match", "teacher_type", "pruning_units")
        numbered = [{"exp_id": number, **row} for number, row in enumerate(rows, start=1)]
        return str(sheets.write(tmp_path / "a.xlsx", {"SQuAD": numbered, **others}, headings))

    return make


DENSE = {"pruning_method": "none", "mask_scores_learning_rate": None, "initial_threshold": None,
         "final_threshold": None}  # fmt: skip
SPLOPA = {"adapter": "splopa", "num_splopa_prototypes": 4, "splopa_prototype_rank": 2, "splopa_init_range": 0.02}
TAUGHT = {"teacher_name_or_path": "run:1", "alpha_ce": 0.5}


@pytest.mark.parametrize("field", ["model_name_or_path", "teacher_name_or_path"])
def test_rows_build_on_an_adapter_row(command: Command, book: Callable[..., str], field: str) -> None:
    """It leaves the model that is served beside its adapter."""
    path = book(SPLOPA, {field: "run:1", "alpha_ce": 0.5, "alpha_distil": 0.5})
    done = command("--workbook", path, "--exp-id", "2")
    assert (done.status, done.ids, done.err) == (0, [1, 2], "")


def test_a_run_of_before_that_left_an_adapter_alone(command: Command, book: Callable[..., str], tmp_path: Path) -> None:
    path = book(SPLOPA, {"model_name_or_path": "run:1"}, {"model_name_or_path": "run:2"}, {})
    old = tmp_path / "runs" / "SQuAD" / "1"
    (old / "adapter").mkdir(parents=True)
    (old / "result.json").write_text("{}")
    done = command("--workbook", path, "--exp-id", "2", "3", "4")
    assert (done.status, done.ids) == (1, [4])
    assert "is 'run:1', which an earlier version finished in runs/SQuAD/1 without a model" in done.err
    assert "repeat it by --exp-id 1 --force." in done.err


def test_blocks_do_not_build_on_a_row_that_cuts(command: Command, book: Callable[..., str], sheets: Any) -> None:
    path = book({"pruning_units": "heads_and_neurons"}, {"model_name_or_path": "run:1"})
    for arguments in (["--exp-id", "2"], ["--check"]):
        told = one_sentence(command("--workbook", path, *arguments))
        assert f"cell {sheets.cell_of('model_name_or_path', 3)} (model_name_or_path): is 'run:1', which leaves" in told
        assert "set pruning_units to heads_and_neurons here, not blocks." in told


def test_a_teacher_learns_the_same_task(command: Command) -> None:
    told = one_sentence(command("--exp-id", "101", "--set", "teacher_name_or_path=run:63"))
    assert "is 'run:63', which learns squad and cannot teach mnli." in told
    told = one_sentence(command("--exp-id", "68", "--set", "teacher_type=roberta"))
    assert told == "--set teacher_type: is 'roberta', but bert-base-uncased is a 'bert' model."


def test_one_bad_row_costs_that_row(command: Command, book: Callable[..., str]) -> None:
    bad = {"learning_rate": "fast"}
    path = book({}, bad, {"model_name_or_path": "run:2"}, {}, {"model_name_or_path": "run:1"})
    done = command("--workbook", path, "--exp-id", "1", "4")
    assert (done.status, done.ids, done.err) == (0, [1, 4], "")
    done = command("--workbook", path, "--all")
    assert (done.status, done.ids) == (1, [1, 4, 5])
    assert "learning_rate): is the text 'fast'" in done.err
    assert "is 'run:2', a row that cannot run." in done.err
    assert len(done.err.splitlines()) == 2
    done = command("--workbook", path, "--all", "--dry-run")
    assert (done.status, len(list(yaml.safe_load_all(done.out)))) == (2, 3)
    assert len(command("--workbook", path, "--exp-id", "3").err.splitlines()) == 2
    assert command("--workbook", path, "--exp-id", "2", "--set", "learning_rate=1e-4").ids == [2]


def test_bad_headings_cost_the_sheet_and_no_other(command: Command, book: Callable[..., str], tmp_path: Path) -> None:
    path = book({}, MNLI=[{"exp_id": 9, "task": "mnli"}])
    changed = load_workbook(path)
    changed["SQuAD"]["R1"] = "adaptor"
    changed.save(path)
    assert "'adaptor' is not a column; did you mean 'adapter'?" in one_sentence(
        command("--workbook", path, "--exp-id", "1")
    )
    assert command("--workbook", path, "--exp-id", "9").ids == [9]


def test_all_leaves_out_what_is_hidden_and_says_so(command: Command, book: Callable[..., str]) -> None:
    path = book({}, {}, {})
    changed = load_workbook(path)
    changed["SQuAD"].row_dimensions[3].hidden = True
    changed["SQuAD"]["A5"] = "rows below: later"
    changed.save(path)
    done = command("--workbook", path, "--all")
    assert (done.status, done.ids) == (0, [1, 3])
    assert "--all leaves out hidden and filtered rows (EXP ID 2); --exp-id runs them." in done.err
    assert "row 5: is no run, it holds only the remark 'rows below: later'." in done.err
    assert command("--workbook", path, "--exp-id", "2").ids == [2]
    assert "1 rows are hidden, --all leaves them out" in command("--workbook", path, "--check").out


def test_a_copied_row_says_whose_scores_it_reports(command: Command, book: Callable[..., str]) -> None:
    scores = {"reported_f1": 80.25, "reported_exact_match": 70.5}
    path = book(scores, {**scores, "final_threshold": 0.3}, {"reported_f1": 80.25, "reported_exact_match": 70})
    told = "its reported scores are those of EXP ID 1 (sheet 'SQuAD', row 2), which has other settings"
    for arguments in (["--check"], ["--exp-id", "1", "2"]):
        assert command("--workbook", path, *arguments).err.count(told) == 1
    assert f"row 3 (EXP ID 2): {told}" in command("--workbook", path, "--exp-id", "2", "--dry-run").out
    assert told not in command("--workbook", path, "--exp-id", "3").err


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("movement", "topK"),
        ("Movement", "topK"),
        ("soft movement", "sigmoied_threshold"),
        ("soft-movement", "sigmoied_threshold"),
        ("global movement", "topK_global"),
        *((method, method) for method in METHODS),
    ],
)
def test_methods_are_found_by_what_people_call_them(command: Command, name: str, method: str) -> None:
    assert method in methods_named(name)
    assert nearest(name, METHODS, METHOD_ALIASES) == f"; did you mean {method!r}?"
    told = one_sentence(command("--exp-id", "64", "--set", f"pruning_method={name}x"))
    assert f"did you mean {method!r}?" in told.replace("sigmoid_", "sigmoied_").replace(
        "'none'", f"{method!r}" if method == "none" else "'none'"
    ) or method in ("l0", "sigmoid_threshold", "none")
    done = command("--list", "--sheet", "SQuAD", "--method", name)
    assert done.status == 0


def test_a_row_starts_from_one_s_own_model(command: Command, tmp_path: Path) -> None:
    own = tmp_path / "my-checkpoint"
    own.mkdir()
    config = {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "max_position_embeddings": 512}
    config["architectures"] = ["BertForQuestionAnswering"]  # type: ignore[assignment]
    (own / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with (own / "model.safetensors").open("wb") as weights:  # a folder without weights would be the hub's model
        weights.truncate(50_000_000)
    done = command("--exp-id", "68", "--start", "my-checkpoint")
    ((spec, folder, repeat),) = done.runs
    assert (spec.model_name_or_path, spec.teacher_name_or_path, folder) == ("my-checkpoint",) * 2 + ("runs/SQuAD/68",)
    assert "--exp-id 68 --start my-checkpoint" in repeat
    assert (
        "plan: 1 run\n  1. SQuAD, EXP ID 68: from my-checkpoint, taught by my-checkpoint, into runs/SQuAD/68"
        in done.out
    )

    first, second = command("--exp-id", "68", "--model", "my-checkpoint").runs
    assert (first[0].exp_id, first[0].model_name_or_path) == (63, "my-checkpoint")
    assert (second[0].exp_id, second[0].model_name_or_path) == (68, "runs/SQuAD/63/model")
    told = command("--exp-id", "68", "--model", "my-checkpoint").out
    assert "plan: 2 runs\n  1. SQuAD, EXP ID 63: from my-checkpoint, into runs/SQuAD/63, needed by 68\n" in told
    assert "--start my-checkpoint instead of --model starts EXP ID 68 from my-checkpoint itself" in told
    dry = command("--exp-id", "68", "--model", "my-checkpoint", "--dry-run").out
    assert "# EXP ID 63 is trained from my-checkpoint first" in dry

    ((spec, *_),) = command("--exp-id", "12", "--start", "my-checkpoint").runs
    assert (spec.model_name_or_path, spec.teacher_name_or_path) == ("my-checkpoint", None)
    other = command("--exp-id", "68", "--start", "my-checkpoint", "--set", "teacher_name_or_path=run:63").runs
    assert [spec.exp_id for spec, *_ in other] == [63, 68]
    assert other[1][0].teacher_name_or_path == "runs/SQuAD/63/model"
    told = one_sentence(command("--exp-id", "68", "--start", "my-checkpoint", "--model", "my-checkpoint"))
    assert told == "--start: names what the rows start from, as does --model; give one of them."
    assert "--set attention_block_rows: is 7; blocks" in one_sentence(
        command("--exp-id", "68", "--start", "my-checkpoint", "--set", "attention_block_rows=7")
    )
    config["architectures"] = ["BertModel"]  # type: ignore[assignment]
    (own / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told = one_sentence(command("--exp-id", "68", "--start", "my-checkpoint"))
    assert told.startswith("--start: is my-checkpoint, which is no fine-tuned QuestionAnswering model")
    assert "--start: is './none'; there is no such folder" in command("--exp-id", "68", "--start", "./none").err


def test_folders_beside_a_model_name_it(command: Command, tmp_path: Path) -> None:
    (tmp_path / "runs" / "SQuAD" / "63" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "SQuAD" / "63" / "model" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "adapted" / "adapter").mkdir(parents=True)
    (tmp_path / "adapted" / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "did you mean 'runs/SQuAD/63/model'?" in one_sentence(command("--exp-id", "12", "--model", "runs/SQuAD/63"))
    for folder in ("adapted", "adapted/adapter"):
        assert "is an adapter and no model; name what it starts from, or merge it" in one_sentence(
            command("--exp-id", "12", "--model", folder)
        )


@pytest.mark.parametrize("setting", ["model_name_or_path=run:999", "model_name_or_path=run:65"])
def test_rows_named_on_the_command_line_are_checked(command: Command, setting: str) -> None:
    told = one_sentence(command("--exp-id", "65", "--set", setting))
    assert (
        "the workbook has no row with EXP ID 999" in told or "is 'run:65', which leads back to this row itself" in told
    )


def test_a_row_of_two_rows_is_refused(command: Command, book: Callable[..., str]) -> None:
    path = book({}, {"exp_id": 1}, {"model_name_or_path": "run:1"})
    assert "is 'run:1', but 2 rows have that EXP ID." in one_sentence(command("--workbook", path, "--exp-id", "3"))
    assert "as is sheet 'SQuAD', cell A2" in command("--workbook", path, "--all").err


def test_a_result_of_what_is_no_more_is_told(command: Command, tmp_path: Path) -> None:
    for number, exp_id in enumerate((63, 68), start=1):
        finished = tmp_path / "runs" / "SQuAD" / str(exp_id) / "result.json"
        finished.parent.mkdir(parents=True)
        finished.write_text("{}", encoding="utf-8")
        os.utime(finished, (number, number))
    assert "into runs/SQuAD/68, finished before\n" in command("--exp-id", "68").out
    os.utime(tmp_path / "runs" / "SQuAD" / "63" / "result.json", (3, 3))
    told = command("--exp-id", "68").out
    assert ", finished before from an earlier result of runs/SQuAD/63 (--force repeats it)\n" in told
    assert "an earlier result" not in command("--exp-id", "68", "--force").out
