"""A task is one object: all that is known of it comes from there, and its room imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest
import transformers

from splora.anatomy import FAMILIES
from splora.export.card import _front_matter
from splora.report.runs import primary_metric
from splora.tasks.registry import REGISTRY, TRAINED, canonical_task, find_task, same_head
from splora.tasks.sources import ALL_TASKS, QA_TASKS, TASKS, auto_model
from splora.training.columns import FIELDS
from splora.training.configuration import data_config
from splora.training.specification import RunSpecification


@pytest.mark.parametrize("name", REGISTRY)
def test_a_task_says_all_that_is_asked(name: str) -> None:
    task = find_task(name.upper())
    assert task is REGISTRY[name]
    assert task.name == name
    assert all(canonical_task(alias) == name for alias in task.aliases)
    assert hasattr(transformers, auto_model(name))
    module = task.module_class()
    assert module.auto_model == auto_model(name)
    assert any(task.head in family.tasks and family.causal == task.causal for family in FAMILIES.values())
    assert task.metrics
    assert primary_metric(name) == task.metrics[0]
    assert f"pipeline_tag: {task.pipeline}" in _front_matter(name, "embedded", [], "transformers", None)
    assert task.trained == (name in TRAINED) == (name in FIELDS["task"].metadata["choices"])
    if task.trained:
        section = data_config(RunSpecification(task=name))
        assert section["class_path"] == f"{module.__module__}.{module.__name__}"
        made = module("embedded", **{key: value for key, value in section["init_args"].items() if "model" not in key})
        assert (made.task, made.primary_metric) == (name, task.metrics[0])


def test_the_old_names_are_views_of_it() -> None:
    assert tuple(REGISTRY) == ALL_TASKS
    assert TASKS == TRAINED
    assert tuple(QA_TASKS) == ("squad", "squad_v2") == TASKS[:2]
    spellings = [alias for task in REGISTRY.values() for alias in (task.name, *task.aliases)]
    assert len({*spellings}) == len(spellings)
    assert same_head("squad", "squad_v2")
    assert not same_head("rte", "qnli")
    assert same_head("ner", "ner")


def test_the_table_of_tasks_brings_no_torch_along() -> None:
    code = "import sys, splora.tasks.registry, splora.training.specification; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
