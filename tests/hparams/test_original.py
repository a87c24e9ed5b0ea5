"""The published layout, made small, and the published workbooks themselves."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from splora.errors import InputError
from splora.hparams.original import is_block_density
from splora.hparams.select import select
from splora.hparams.workbook import Workbook, read_workbook

MAGNITUDE = "magnitude_1.0_*_1_2_null_0._3e-5_0._magnitude_null_0._10_epochs"


@pytest.fixture(scope="module")
def first(shared: Path) -> Workbook:
    return read_workbook(shared / "sheets" / "original-hyperparameters.xlsx")


@pytest.fixture(scope="module")
def later(shared: Path) -> Workbook:
    return read_workbook(shared / "sheets" / "original-hyperparameters-splopa.xlsx")


def test_labels_densities_and_setup(tmp_path: Path, sheets: SimpleNamespace) -> None:
    row = sheets.published_row
    path = sheets.write_published(
        tmp_path / "o.xlsx",
        [
            row(**{"Model": "Movement"}),
            row(**{"Effective encoder remain weights %": 0.3}),
            None,
            row(**{"EXP ID": None}),
        ],
        setup="some/encoder/7/squad",
    )
    book = read_workbook(path)
    assert book.problems() == [f"{path}, sheet 'Details - SQuAD', cell D1: is 'seed=92', but C1 says seed 7."]
    a, b, c = book.rows
    assert [r.spec.exp_id for r in (a, b, c)] == ["topK_*_x_90.0%", "topK_*_x_30.0%", "row:6"]
    assert [r.spec.model for r in (a, b, c)] == ["Movement", "Movement", ""]
    assert (a.spec.model_name_or_path, a.spec.seed, a.spec.task) == ("some/encoder", 7, "squad")
    assert b.spec.reported_density == pytest.approx(30)
    assert any("is the fraction 0.3, read as 30 %" in notice for notice in b.notices)
    assert a.spec.schedule_total_steps == 55_330


def test_published_rows_that_speak_in_riddles(tmp_path: Path, sheets: SimpleNamespace) -> None:
    teacher = {"teacher_name_or_path": "tuned", "alpha_ce": 0.1, "alpha_distil": 0.9}
    misplaced = {"num_splopa_prototypes": "tuned", "splopa_prototype_rank": 0.1, "splopa_init_range": 0.9}
    path = sheets.write_published(
        tmp_path / "o.xlsx",
        [
            sheets.published_row(**{"EXP ID": "topK_global_x", "pruning_method": "threshold", **teacher, **misplaced}),
            sheets.published_row(**{"EXP ID": "a", "num_splopa_prototypes": "tuned", "splopa_prototype_rank": 2}),
            sheets.published_row(**{"EXP ID": "b", "pruning_method": None}),
            sheets.published_row(**{"EXP ID": "c", "Model": "Movement, SPLoPA"}),
            sheets.published_row(**{"EXP ID": "d", "learning_rate": "=3*1e-5"}),
        ],
    )
    riddle, text, empty, labelled, formula = read_workbook(path).rows
    assert riddle.problems == []
    assert (riddle.spec.pruning_method, riddle.spec.adapter) == ("topK_global", "none")
    assert len(riddle.notices) == 2 + 1  # the method, the teacher, single weights
    assert any("cell AA4 (num_splopa_prototypes): is the text 'tuned'" in problem for problem in text.problems)
    assert any("(pruning_method): is empty" in problem for problem in empty.problems)
    assert (labelled.spec.adapter, labelled.spec.num_splopa_prototypes) == ("splopa", 64)
    assert len(formula.problems) == 1
    assert "cell L7 (learning_rate): holds a formula without a computed value" in formula.problems[0]


def test_a_missing_setup_is_named(tmp_path: Path, sheets: SimpleNamespace) -> None:
    path = sheets.write_published(tmp_path / "o.xlsx", [sheets.published_row()], setup="bert")
    assert read_workbook(path).problems() == [
        f"{path}, sheet 'Details - SQuAD', cell C1: is 'bert'; model/seed/task is needed, "
        "as in bert-base-uncased/92/squad."
    ]


def test_a_figure_under_one_percent_is_told_from_a_fraction_by_its_penalty(
    tmp_path: Path, sheets: SimpleNamespace
) -> None:
    def row(density: float, weight: float) -> dict[str, object]:
        changes = {"Effective encoder remain weights %": density, "regularization": "l1", "final_lambda": weight}
        return dict(
            sheets.published_row(
                pruning_method="sigmoied_threshold", initial_threshold=0, final_threshold=0.1, **changes
            )
        )

    path = sheets.write_published(tmp_path / "o.xlsx", [row(50, 1), row(0.3, 10), row(2, 150), row(0.999, 250)])
    assert [r.spec.reported_density for r in read_workbook(path).rows] == pytest.approx([50, 30, 2, 0.999])


def test_block_densities() -> None:
    encoder, unpruned = 85_054_464, 119_808
    assert is_block_density(100 * (24_840 * 1024 + unpruned) / encoder)
    assert not is_block_density(100 * (24_840 * 1024 + 300 + unpruned) / encoder)
    assert not is_block_density(90.0)
    assert not is_block_density(50.07043)  # half of the weights, singly or in blocks: too few decimals to say


@pytest.mark.real
def test_published_workbooks_read_without_problems(first: Workbook, later: Workbook) -> None:
    assert first.problems() == []
    assert later.problems() == []
    assert [len(sheet.rows) for sheet in first.sheets] == [52, 36, 39]
    assert [len(sheet.rows) for sheet in later.sheets] == [86, 46, 61]
    assert Counter(row.spec.adapter for row in later.sheet("Details - SQuAD").rows) == {"none": 30, "splopa": 16}
    global_rows = [row for row in later.rows if row.spec.pruning_method == "topK_global"]
    assert len(global_rows) == 8
    assert {row.spec.adapter for row in global_rows} == {"none"}


@pytest.mark.real
def test_block_shapes_of_published_rows(first: Workbook, later: Workbook) -> None:
    rows = first.sheet("Details - SQuAD").rows
    single = [row.number for row in rows if row.spec.attention_block_rows == 1]
    assert single == [5, 6, 7, 8, 9, 10, 11, 12, 30]
    assert all(row.spec.attention_block_rows == 32 for row in later.rows if row.spec.adapter == "splopa")


@pytest.mark.real
def test_one_figure_below_one_is_in_percent(first: Workbook) -> None:
    densities = {row.number: row.spec.reported_density for row in first.sheet("Details - MNLI").rows}
    assert densities[24] == pytest.approx(0.999465471912209)
    assert densities[25] == pytest.approx(30)


@pytest.mark.real
def test_published_rows_are_named(first: Workbook) -> None:
    sheet = "Details - SQuAD"
    (row,) = select(first, [f"{MAGNITUDE}_90.0%"], sheet)
    assert row.number == 5
    assert select(first, ["row:5"], sheet) == [row]
    assert select(first, ["bert-base-uncased"], sheet)[0].number == 3
    with pytest.raises(InputError, match=r"fits 8 rows; choose one: .*_60\.1%' \(sheet 'Details - SQuAD', row 6\)"):
        select(first, [MAGNITUDE], sheet)
    with pytest.raises(InputError, match=r"did you mean 'magnitude.*_90\.0%'\?"):
        select(first, [f"{MAGNITUDE}_91.0%"], sheet)
    with pytest.raises(InputError, match=r"'row:41'.*'row:42'"):
        select(first, ["l1_0._0.1_1_2_l1_*_3e-5_1e-2_sigmoied_threshold_constant_0._10_epochs_10.0%"], sheet)
    with pytest.raises(InputError, match="'row:13' names no row"):
        select(first, ["row:13"], sheet)


@pytest.mark.real
def test_the_carried_figures_are_the_published_ones(root: Path, first: Workbook, later: Workbook) -> None:
    published = {
        f"{book.path.name}, {row.sheet}, row {row.number}": row.spec for book in (first, later) for row in book.rows
    }
    with (root / "hparams" / "published.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 215
    for line in lines:
        spec = published[line["source"]]
        for name, text in line.items():
            value = getattr(spec, name, None)
            if isinstance(value, float | int) and text:
                assert float(text) == pytest.approx(value, rel=1e-9), (line["source"], name)
            elif text and name in ("pruning_method", "regularization", "adapter", "teacher_name_or_path"):
                assert text == value
        for name in ("reported_density", "reported_exact_match", "reported_f1", "reported_accuracy"):
            assert (line[name] == "") == (getattr(spec, name) is None)
