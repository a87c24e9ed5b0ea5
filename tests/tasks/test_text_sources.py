"""Where texts come from: how much is read of them, what the hub is asked for, and which file is meant."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pytest

from splora.errors import InputError
from splora.tasks import hub
from splora.tasks.text_sources import C4_TRAINING, TEXT_TASKS, read_text

#: The real one, as tests put another in its place.
LOAD = datasets.load_dataset


def documents(path: Path, count: int, after: str = "") -> Path:
    """`d0`, `d1`, … as JSON lines, and what stands after them."""
    content = "".join(json.dumps({"text": f"d{number}"}) + "\n" for number in range(count)) + after
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


class Asked:
    """Stands for `datasets.load_dataset`: keeps what it is asked for, and answers with a table."""

    def __init__(self, table: Any) -> None:
        self.table, self.arguments, self.options = table, (), {}  # type: ignore[var-annotated]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.arguments, self.options = arguments, options
        return self.table


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a network."""
    monkeypatch.setattr(hub, "reachable", lambda: True)


@pytest.mark.usefixtures("reached")
@pytest.mark.parametrize(("split", "on_hub"), [("train", "train"), ("eval", "test")])
def test_ptb_comes_from_the_branch_that_holds_no_script(
    split: Any, on_hub: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = Asked(datasets.Dataset.from_dict({"sentence": ["a b", "c"]}))
    monkeypatch.setattr(datasets, "load_dataset", asked)
    assert read_text(None, "ptb", split, str(tmp_path)) == "a b c"
    assert asked.arguments == ("ptb-text-only/ptb_text_only", None)
    assert asked.options == {"split": on_hub, "cache_dir": str(tmp_path), "revision": "refs/convert/parquet"}


def test_splits_are_found_in_a_folder_laid_out_as_that_branch(tmp_path: Path) -> None:
    for split in ("train", "test", "validation"):
        path = tmp_path / "branch" / "penn_treebank" / split / "0000.parquet"
        path.parent.mkdir(parents=True)
        datasets.Dataset.from_dict({"sentence": [f"of {split}"]}).to_parquet(str(path))
    description = TEXT_TASKS["ptb"]
    for on_hub in description.splits.values():
        table = LOAD(str(tmp_path / "branch"), description.hub[1], split=on_hub, cache_dir=str(tmp_path / "cache"))
        assert list(table["sentence"]) == [f"of {on_hub}"]


@pytest.mark.usefixtures("reached")
@pytest.mark.parametrize(
    ("split", "on_hub", "file", "most"),
    [
        ("train", "train", "en/c4-train.00000-of-01024.json.gz", C4_TRAINING),
        ("eval", "validation", "en/c4-validation.00000-of-00008.json.gz", 1100),
    ],
)
def test_of_c4_one_file_and_its_first_documents_are_asked_for(
    split: Any, on_hub: str, file: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(datasets.Dataset.from_dict({"text": [f"d{number}" for number in range(C4_TRAINING + 5)]}))
    monkeypatch.setattr(datasets, "load_dataset", asked)
    assert read_text(None, "c4", split).split(" ") == [f"d{number}" for number in range(most)]
    assert asked.arguments == ("allenai/c4", None)
    # One file's size is not that of all, which the hub tells.
    wanted = {"split": on_hub, "data_files": {on_hub: file}, "verification_mode": "no_checks"}
    assert {name: value for name, value in asked.options.items() if name != "cache_dir"} == wanted


@pytest.mark.parametrize(("split", "most"), [("train", C4_TRAINING), ("eval", 1100)])
@pytest.mark.parametrize("name", ["c4-part.json.gz", "c4-part.jsonl", "part.json"])
def test_of_a_file_of_c4_no_more_is_read_than_is_used(name: str, split: Any, most: int, tmp_path: Path) -> None:
    path = documents(tmp_path / name, most, after="never parsed\n")
    assert read_text(str(path), "c4", split) == " ".join(f"d{number}" for number in range(most))
    with pytest.raises(InputError, match=rf"line {most + 1}: is not JSON"):
        read_text(str(path), "ptb", split)


def test_few_documents_blank_lines_and_lists_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text('\n{"text": "a\u2028b"}\r\n\n{"text": " c"}', encoding="utf-8-sig")
    assert read_text(str(tmp_path / "lines.jsonl"), "c4", "eval") == "a\u2028b  c"
    (tmp_path / "list.json").write_text(json.dumps([{"text": str(number)} for number in range(1200)], indent=0))
    assert read_text(str(tmp_path / "list.json"), "c4", "eval") == " ".join(map(str, range(1100)))
    (tmp_path / "plain.txt").write_text("x\n" * 1200, encoding="utf-8")
    assert read_text(str(tmp_path / "plain.txt"), "c4", "eval") == " ".join("x" * 1100)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("cut.json.gz", gzip.compress(b'{"text": "a"}' * 50, mtime=0)[:-20], "cannot be read as compressed UTF-8"),
        ("none.json.gz", b"no gzip at all", "cannot be read as compressed UTF-8"),
        ("latin.jsonl", b'{"text": "\xe9"}\n', r"line 1: is not UTF-8 \(byte 0xe9\)"),
        ("nowhere/lines.jsonl", None, r"cannot be read \(No such file"),
        ("empty.jsonl", b"\n\n", "is empty"),
    ],
)
def test_damaged_files_are_told(name: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_text(str(tmp_path / name), "c4", "train")


def test_sentences_of_ptb_lose_the_spaces_at_their_ends(tmp_path: Path) -> None:
    (tmp_path / "ptb.test.txt").write_text(" no it was n't \n\n\t\n the <unk>  said \r\n", encoding="utf-8")
    assert read_text(str(tmp_path / "ptb.test.txt"), "ptb", "eval") == "no it was n't the <unk>  said"


@pytest.mark.parametrize("name", ["train.txt", "valid.txt", "other.txt"])
def test_a_file_that_is_named_does_not_depend_on_those_beside_it(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for one in ("train.txt", "valid.txt", "other.txt", "test.txt", "test.jsonl"):
        (tmp_path / one).write_text(f"{one}\n", encoding="utf-8")
    assert read_text(str(tmp_path / name), "ptb", "train") == name
    with pytest.raises(InputError, match=r"test\.jsonl and test\.txt, and which of them is meant"):
        read_text(str(tmp_path), "ptb", "eval")
    assert not caplog.records


@pytest.mark.parametrize("name", ["valid.txt", "dev.txt"])
def test_a_validation_text_in_place_of_a_training_text_is_told(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for one in (name, "test.txt"):
        (tmp_path / one).write_text(f"{one}\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert read_text(str(tmp_path / name), "ptb", "train") == name
        assert read_text(str(tmp_path / "test.txt"), "ptb", "eval") == "test.txt"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / name}: there is no training text beside it, so this is what calibration uses."
    ]
    caplog.clear()
    (tmp_path / "train.txt").write_text("train\n", encoding="utf-8")
    assert read_text(str(tmp_path / name), "ptb", "train") == name
    assert not caplog.records
