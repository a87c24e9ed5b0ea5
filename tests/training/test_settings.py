"""One settings model: a row makes a configuration, and that configuration makes the row."""

from __future__ import annotations

import dataclasses

import pytest

from splora.errors import InputError
from splora.hparams.build import relevant
from splora.hparams.catalogue import catalogue
from splora.training.configuration import identity, lightning_config, specification_of
from splora.training.options import check_model_section, model_arguments, model_columns, model_section, place_of
from splora.training.run_folder import class_name
from splora.training.specification import FIELDS, RunSpecification

#: What a row is called, in words; the machine resolves `auto`.
_NAMES = ("model",)
ROWS = [spec for rows in catalogue().values() for spec, _ in rows]


def test_every_row_comes_back_from_its_configuration() -> None:
    assert len(ROWS) > 200
    for spec in ROWS:
        spec = dataclasses.replace(spec, precision="32-true")
        if len(spec.budgets) > 1:  # a configuration is that of the last training
            spec = dataclasses.replace(spec, prune_first_budget=str(spec.budgets[-1]))
        config, original = lightning_config(spec, "runs/x"), lightning_config(spec, "runs/x")
        for entry in config["trainer"]["callbacks"]:
            if class_name(entry) == "RunResult":
                entry["init_args"]["run"] = identity(spec)
        back = specification_of(config)
        assert lightning_config(back, "runs/x") == original
        names = [name for name in FIELDS if name not in _NAMES and relevant(spec, name)]
        names = [name for name in names if name != "num_train_epochs" or spec.max_steps is None]
        assert {name: getattr(back, name) for name in names} == {name: getattr(spec, name) for name in names}


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_epochs": 0.25, "gradient_accumulation_steps": 3, "max_grad_norm": 0.0},
        {"max_steps": 7, "evaluate_every_n_steps": 5, "gradient_accumulation_steps": 2},
        {"val_check_per_epoch": 3, "logger": "csv", "precision": "bf16-mixed"},
        {"early_stopping": 2, "best_checkpoint": True},
        {"best_checkpoint": True, "held_out": 10, "judged_by": "divergence", "teacher_name_or_path": "t"},
        {"task": "mnli", "labelled": False, "teacher_name_or_path": "t", "alpha_ce": 0.0, "held_out": 5},
        {"adapter": "splora", "splora_init_range": 0.5, "splora_rank": 0.25},
        {"prune_first": "stat", "prune_first_budget": "0.35", "checkpoint_every_n_steps": 3},
    ],
)
def test_columns_that_no_row_uses_come_back_too(changes: dict[str, object]) -> None:
    spec = RunSpecification(**changes)  # type: ignore[arg-type]
    back = specification_of(lightning_config(spec, "runs/x"))
    expected = dict(changes) | ({"logger": "lightning.pytorch.loggers.CSVLogger"} if "logger" in changes else {})
    assert {name: getattr(back, name) for name in changes} == expected
    assert lightning_config(back, "x")["trainer"] == lightning_config(spec, "x")["trainer"]


def test_every_option_of_the_model_has_a_place_and_a_column() -> None:
    spec = RunSpecification(teacher_name_or_path="t")
    columns = model_columns(model_section(spec))
    assert all(str(place_of(name)).startswith("model.") for name in columns)
    assert place_of("attention_block_cols") == "model.pruning.attention_block"
    assert place_of("num_train_epochs") is None
    assert model_arguments(model_section(spec))["pruning"].attention_block == (32, 32)


def test_a_section_is_refused_for_what_a_column_would_be() -> None:
    section = model_section(RunSpecification(pruning_method="topK", mask_init="stat", learning_rate=-1.0, task="squat"))
    section["prune_first"] = {"method": "stat", "budget": 1.5, "samples": 0}
    with pytest.raises(InputError) as refused:
        check_model_section(section)
    for told in (
        "model.task is 'squat'; allowed are squad, squad_v2",
        "model.optimizer.learning_rate is -1.0; more than 0 is needed.",
        "model.optimizer.mask_scores_learning_rate is empty, but topK learns mask scores.",
        "model.prune_first.samples is 0; at least 1 is needed.",
        "model.prune_first.budget is '1.5'; fractions between 0 and 1 are needed",
        "model.pruning.mask_scale is 0, and stat spreads scores over it; a number above 0 is needed.",
    ):
        assert any(problem.startswith(told) for problem in refused.value.problems), (told, refused.value.problems)


def test_defaults_are_the_same_everywhere() -> None:
    from splora.adapters import SPLoPAConfig, SPLoRAConfig
    from splora.training.options import AdapterOptions

    own, columns = AdapterOptions(), RunSpecification()
    splopa, splora = SPLoPAConfig(), SPLoRAConfig()
    for name in ("num_prototypes", "prototype_rank", "shared_prototypes", "init_range"):
        assert getattr(own, name) == getattr(splopa, name), name
    assert own.shared_position_weights == splopa.shared_position_weights
    assert (own.rank, columns.splora_init_range) == (splora.rank, splora.init_range)
