"""What names of labels mean, wherever they stand: in a configuration, a table, or a data set's own list."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from splora.errors import InputError
from splora.tasks.chance import check_sense
from splora.tasks.glue_tables import read_table, table_of_hub
from splora.tasks.glue_tasks import TASKS
from splora.tasks.label_names import check_names, number_of, order_of

CLASSES = {name: task for name, task in TASKS.items() if task.labels}
SST2, MNLI = TASKS["sst2"], TASKS["mnli"]


def config(id2label: dict[int, str] | None, label2id: dict[str, int] | None = None) -> Any:
    """A model's configuration, as far as labels go."""
    return SimpleNamespace(id2label=id2label, label2id=label2id)


@pytest.mark.parametrize("task", CLASSES)
def test_every_spelling_means_its_label_and_no_other(task: str) -> None:
    for number, label in enumerate(TASKS[task].labels):
        written = [label, label.upper(), label.title(), label.replace("_", " "), label.replace("_", "-"), f" {label} "]
        for name in (
            *written,
            *TASKS[task].synonyms.get(label, ()),
            str(number),
            f"{number}.0",
            f"LABEL_{number}",
            f"label {number}",
        ):
            assert number_of(name, TASKS[task]) == number, name
    for name in ("", "good", "label", "-1", "9", "LABEL_9", "1.5", "1e0"):
        assert number_of(name, TASKS[task]) is None, name
    spellings = [spelling for label in TASKS[task].labels for spelling in (label, *TASKS[task].synonyms.get(label, ()))]
    assert len({*spellings}) == len(spellings)


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("how", ["both", "id2label alone", "numbered beside it", "another model's beside it", "upper"])
def test_every_order_of_the_outputs_is_read(task: str, how: str) -> None:
    labels = TASKS[task].labels
    for order in permutations(range(len(labels))):
        names = {
            output: labels[number].upper() if how == "upper" else labels[number] for output, number in enumerate(order)
        }
        beside = {
            "both": {label: output for output, label in names.items()},
            "numbered beside it": {f"LABEL_{number}": number for number in order},
            "another model's beside it": {f"x{number}": number for number in order},
        }.get(how)
        assert order_of("m", config(names, beside), TASKS[task]) == order


def test_contradictions_and_other_names_are_refused() -> None:
    turned = config({0: "positive", 1: "negative"}, {"negative": 0, "positive": 1})
    with pytest.raises(InputError, match=r"m: id2label and label2id in config\.json contradict each other"):
        order_of("m", turned, SST2)
    with pytest.raises(InputError, match="negative and positive must each stand there once"):
        order_of("m", config({0: "pos", 1: "positive"}), SST2)
    with pytest.raises(InputError, match="numbered from 0"):
        order_of("m", config({1: "negative", 2: "positive"}), SST2)
    assert order_of("m", config({0: "good", 1: "bad"}), SST2) is None
    with pytest.raises(
        InputError, match=r"m: its outputs are named good, bad in config\.json, .* negative and positive"
    ):
        check_names("m", config({0: "good", 1: "bad"}), SST2)
    check_names("m", config({0: "LABEL_0", 1: "LABEL_1"}), SST2)
    check_names("m", config(None), TASKS["stsb"])


def parquet(path: Path, label: list[Any], names: list[str] | None) -> Path:
    """A table of MNLI, with names of classes in its metadata as `datasets` leaves them."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"premise": ["a"] * len(label), "hypothesis": ["b"] * len(label), "label": label})
    if names is not None:
        features = {"premise": {"_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)
    return path


@pytest.mark.parametrize("order", list(permutations(MNLI.labels)))
def test_a_data_set_s_own_order_of_classes(order: tuple[str, ...], tmp_path: Path) -> None:
    import datasets

    expected = [MNLI.labels.index(name) for name in (order[2], order[0], order[1])]
    file = parquet(tmp_path / "a.parquet", [2, -1, 0, 1], [name.title() for name in order])
    assert read_table(file, MNLI).labels.tolist() == expected
    texts = parquet(tmp_path / "b.parquet", [order[2], order[0], order[1]], list(order))
    assert read_table(texts, MNLI).labels.tolist() == expected
    plain = parquet(tmp_path / "c.parquet", [2, 0, 1], None)
    assert read_table(plain, MNLI).labels.tolist() == [2, 0, 1]
    features = datasets.Features(
        {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string")}
        | {"label": datasets.ClassLabel(names=list(order))}
    )
    rows = datasets.Dataset.from_dict(
        {"premise": ["a"] * 4, "hypothesis": ["b"] * 4, "label": [2, -1, 0, 1]}, features=features
    )
    assert table_of_hub(rows, "hub", MNLI).labels.tolist() == expected
    rows.to_parquet(tmp_path / "d.parquet")
    assert read_table(tmp_path / "d.parquet", MNLI).labels.tolist() == expected


def test_classes_that_are_none_of_the_task_s(tmp_path: Path) -> None:
    other = parquet(tmp_path / "a.parquet", [0, 1, 2], ["yes", "maybe", "no"])
    with pytest.raises(
        InputError, match=r"a.parquet: its labels are named yes, maybe, no; .* neutral and contradiction"
    ):
        read_table(other, MNLI)
    beyond = parquet(tmp_path / "b.parquet", [0, 3], list(MNLI.labels))
    with pytest.raises(InputError, match="row 2: unknown label '3'"):
        read_table(beyond, MNLI)


@pytest.mark.parametrize("task", ["sst2", "mnli", "mrpc"])
def test_only_outputs_in_another_order_are_clearly_below_chance(task: str) -> None:
    random, names = np.random.default_rng(0), {label: number for number, label in enumerate(TASKS[task].labels)}
    count = len(names)
    labels = np.where(random.random(400) < 0.6, 0, random.integers(0, count, 400))  # one label is the usual one
    right = np.eye(count)[labels] + 0.5 * random.standard_normal((400, count))
    check_sense("m", right, labels, names, TASKS[task])
    check_sense("m", random.standard_normal((400, count)), labels, names, TASKS[task])
    for output in range(count):  # always the same answer
        check_sense("m", np.tile(np.eye(count)[output], (400, 1)), labels, names, TASKS[task])
    for order in permutations(range(count)):
        if order != tuple(range(count)):
            with pytest.raises(InputError, match=r"m: [\d.]+ % of its predictions are right, clearly below chance"):
                check_sense("m", right[:, order], labels, names, TASKS[task])
            check_sense("m", right[:3, order], labels[:3], names, TASKS[task])  # three rows say nothing


def test_a_regression_that_goes_the_other_way() -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(0, 5, 300)
    scores = (labels + random.standard_normal(300))[:, None]
    check_sense("m", scores, labels, {}, TASKS["stsb"])
    check_sense("m", np.zeros((300, 1)), labels, {}, TASKS["stsb"])
    with pytest.raises(InputError, match="its scores go down where the data's go up"):
        check_sense("m", -scores, labels, {}, TASKS["stsb"])
