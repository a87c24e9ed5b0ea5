"""A criterion is one object: what is registered is known to columns, checks, sheets, masks, training and charts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from splora.errors import nearest
from splora.hparams import build
from splora.masks.criteria import CRITERIA, FRACTION, LocalCriterion, look_of
from splora.report.runs import method_name
from splora.training.run import run
from splora.training.specification import METHODS, RunSpecification, check, methods_named


class Lowest(LocalCriterion):
    """Keeps the v fraction of blocks with the lowest scores: what no other criterion would."""

    def kept(self, scores: Tensor, v: float) -> Tensor:
        from splora.masks.binarize import topk

        return 1 - topk(scores, 1 - v)


@pytest.fixture
def lowest(monkeypatch: pytest.MonkeyPatch) -> str:
    made = Lowest(
        "lowest", "upside down", ("least of all",), "", FRACTION, True, units=("blocks",), penalties=("none",)
    )
    monkeypatch.setitem(CRITERIA, made.name, made)
    return made.name


def test_what_is_registered_trains_by_the_columns(
    lowest: str, tiny_spec: Callable[..., RunSpecification], tmp_path: Path
) -> None:
    spec = tiny_spec(pruning_method=lowest, final_threshold=0.25, mask_init="uniform", mask_scale=0.1)
    assert check(spec) == []
    run(spec, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["method"] == lowest
    assert result["remaining_weights_percent"] == pytest.approx(25, abs=1)


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"final_threshold": 1.5}, "final_threshold", "is 1.5; lowest takes a fraction of blocks above 0 and up to 1"),
        ({"mask_scores_learning_rate": None}, "mask_scores_learning_rate", "is empty, but lowest learns mask scores"),
        ({"regularization": "l1"}, "regularization", "is l1, but lowest takes none"),
        (
            {"pruning_units": "heads_and_neurons"},
            "pruning_units",
            "is heads_and_neurons, but masks of lowest lie over blocks",
        ),
    ],
)
def test_what_it_says_of_itself_is_checked(lowest: str, changes: dict[str, object], field: str, told: str) -> None:
    settings = {"pruning_method": lowest, "mask_scores_learning_rate": 1e-2, **changes}
    problems = check(RunSpecification(**settings))  # type: ignore[arg-type]
    assert [(problem.field, problem.message) for problem in problems] == [(field, told)]


def test_sheet_names_and_charts_know_it(lowest: str) -> None:
    rule = build._validation("pruning_method")
    assert rule is not None
    assert lowest in rule.formula1.strip('"').split(",")
    assert methods_named("Least-of-all") == {lowest}
    assert nearest("lowst", METHODS) == "; did you mean 'lowest'?"
    assert method_name(lowest) == "upside down"
    assert look_of(lowest) not in {look_of(name) for name in METHODS if name != lowest}


@pytest.mark.parametrize("name", METHODS)
def test_spellings_of_one_look_alike(name: str) -> None:
    other = CRITERIA[name].same_as or name
    assert look_of(name) == look_of(other)
    assert methods_named(name) == methods_named(other) >= {name, other}
    assert CRITERIA[name].label == CRITERIA[other].label


def test_an_alias_means_one_criterion() -> None:
    aliases = [alias for each in CRITERIA.values() for alias in each.aliases]
    assert len(aliases) == len(set(aliases))
