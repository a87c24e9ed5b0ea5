"""One method, one object: a folder that is added is a command, YAML, a function, a row and a name in reports."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import splora
from splora import posttraining
from splora.errors import InputError
from splora.posttraining import pipeline
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.method import Method, commands, find_method, methods
from splora.posttraining.core.options import Options, add_options, checked, option, options_of, read_options, said
from splora.scripts import prune
from splora.scripts.cli import main as program
from tests.posttraining.test_pipeline import request_for

#: All that a new method is.
RANDOM = '''
"""Heads and neurons at random: the least that a method can do."""

from dataclasses import dataclass
from typing import Literal

from splora.posttraining.core.method import Method
from splora.posttraining.core.options import Options, at_least, option


@dataclass(frozen=True)
class RandomOptions(Options):
    """Options of the method."""

    kind: Literal["uniform", "normal"] = option("uniform", "what is drawn", "--kind")
    draws: int = option(1, "plans that are drawn, of which the last one stays", "--random_draws", **at_least(1))


class Random(Method):
    """What stays is drawn."""

    name, title, help, samples, options = "random", "Random", "by chance", 16, RandomOptions
    tasks = ("sst2",)

    def stages(self, pruning, options):
        import torch

        from splora import anatomy
        from splora.export.cut import cut
        from splora.posttraining.core.stages import Stage
        from splora.posttraining.fisher.search import search_macs

        generator, layers = torch.Generator().manual_seed(pruning.seed), anatomy.layers(pruning.model)
        draw = torch.rand if options.kind == "uniform" else torch.randn
        for number in range(options.draws):
            heads, neurons = ([draw(count, generator=generator).abs().double() for count in counts] for counts in (
                [layer.heads for layer in layers], [layer.neurons for layer in layers]))
            plan = search_macs(heads, neurons, pruning.costs, pruning.budget.fraction * pruning.dense_macs)
        yield Stage("draw", cut(pruning.model, plan), plan, 0.0, last=True)


METHOD = Random()
'''


@pytest.fixture
def random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The one folder of a new method, where the others are looked for."""
    folder = tmp_path / "methods" / "random"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(RANDOM, encoding="utf-8")
    monkeypatch.setattr(posttraining, "__path__", [*posttraining.__path__, str(folder.parent)])
    methods.cache_clear()
    yield folder
    methods.cache_clear()
    sys.modules.pop("splora.posttraining.random", None)


def test_one_folder_is_a_command_a_request_and_a_function(
    random: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny: Any
) -> None:

    assert list(commands()) == ["stat", "fisher", "random"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        prune.main(["random", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--kind uniform|normal what is drawn (default: uniform)" in told
    assert "--random_draws N, --random-draws N plans that are drawn, of which the last one stays (default: 1)" in told

    request = request_for(tmp_path, method="random", options={"draws": 2}, output=tmp_path / "a")
    first = pipeline.prune(request)
    assert (first["method"], list(first["stages"]), first["settings"]["draws"]) == ("random", ["draw"], 2)
    assert 0.4 < first["macs_kept"] <= 0.5
    given = ["prune", "random", "--model", request.model, "--task=sst2", "--data", str(request.data), "--device=cpu"]
    given += ["--budget=mac=0.5", "--num_samples=16", "--max_seq_length=60", "--precision=fp32", "--output=b"]
    short = ["--latency_batch_size=1", "--latency_seq_len=8"]
    program([*given, *short, "--random-draws", "2"])
    again = json.loads((tmp_path / "b" / "result.json").read_text(encoding="utf-8"))
    assert {name: again[name] for name in ("pruned", "heads_kept", "neurons_kept")} == {
        name: first[name] for name in ("pruned", "heads_kept", "neurons_kept")
    }
    with pytest.raises(SystemExit) as stopped:
        program([*given, *short, "--kind=norm", "--random_draws=0", "--mha_lut=x", "--ffn_lut=y"])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for words in (
        "--kind is 'norm'; allowed are uniform, normal; did you mean 'normal'?",
        "--random_draws is 0; it must be 1 or larger.",
        "Random counts MACs",
    ):
        assert words in told
    with pytest.raises(
        InputError, match=r"Random pruning is not for wikitext2; its models are pruned by STAT \(splora prune stat\) or"
    ):
        replace(request, task="wikitext2").check()
    _reported(tmp_path)

    batches = _batches()
    smaller = splora.prune(tiny("BertForSequenceClassification"), batches, "mac=0.5", "random", kind="normal", seed=3)
    assert sum(smaller.plan.neuron_counts) > 0
    with pytest.raises(InputError, match="draws is 0; it must be 1 or larger"):
        splora.prune(tiny("BertForSequenceClassification"), batches, "mac=0.5", "random", draws=0)


def _reported(folder: Path) -> None:
    from splora.report.collect import collect
    from splora.report.repeat import pruning_command
    from splora.report.runs import method_name

    found = {one.name: one for one in collect(folder).pruned}
    assert {one.method for one in found.values()} == {"random"}
    assert method_name("random") == "Random"
    result = json.loads((folder / "b" / "result.json").read_text(encoding="utf-8"))
    assert "--random_draws 2" in pruning_command(result, folder / "b")


def _batches() -> list[dict[str, Any]]:
    import torch

    ids = torch.randint(5, 60, (16, 9), generator=torch.Generator().manual_seed(3))
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]


def test_a_method_is_named_where_its_folder_is() -> None:
    assert list(methods()) == ["stat", "fisher", "blocks"]
    assert list(commands()) == ["stat", "fisher"]
    for name, method in methods().items():
        assert type(method).__module__ == f"splora.posttraining.{name}"
    with pytest.raises(InputError, match="method: 'fishr' is none; allowed are stat, fisher; did you mean 'fisher'"):
        find_method("fishr")


@pytest.mark.parametrize("method", methods().values(), ids=lambda method: method.name)
def test_options_are_typed_documented_and_said_by_the_command_that_they_are_read_from(method: Method) -> None:
    hints = get_type_hints(method.options)
    parser = argparse.ArgumentParser()
    add_options(parser, method.options)
    values, problems = read_options(method.options, parser.parse_args([]))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    assert (checked(method.options, values), problems) == (method.options(), [])
    for field in fields(method.options):
        of = options_of(method.options)[field.name]
        assert of.help, field.name
        values = get_args(hints[field.name]) if get_origin(hints[field.name]) is Literal else ()
        for value in values or {bool: (True, False), float: (0.25,)}.get(hints[field.name], ()):
            made = checked(method.options, {field.name: value})
            if of.flags:
                words = list(said(method.options, {field.name: value}))
                assert read_options(method.options, parser.parse_args(words))[0][field.name] == value
                assert getattr(made, field.name) == value
        wrong: Any = {bool: "yes", float: float("nan")}.get(hints[field.name], "x")
        if values or hints[field.name] in (bool, float):
            with pytest.raises(InputError, match=f"^{field.name} is {wrong!r}; "):
                checked(method.options, {field.name: wrong})
    assert issubclass(method.options, Options)


@pytest.mark.parametrize(
    ("method", "metric", "task"), list(itertools.product(commands(), ("mac", "latency"), ("sst2", "wikitext2")))
)
def test_budgets_and_tasks_that_are_not_a_methods_are_told(method: str, metric: Any, task: str, tmp_path: Path) -> None:
    chosen = commands()[method]
    request = request_for(tmp_path, method=method)
    request = replace(
        request, budget=Budget(metric, 0.5), task=task, tables=("a", "b") if metric == "latency" else None
    )
    if metric in chosen.budgets and task in chosen.tasks:
        request.check()
        return
    with pytest.raises(InputError) as told:
        request.check()
    assert ("counts MACs" in str(told.value)) is (metric not in chosen.budgets)
    assert ("is not for" in str(told.value)) is (task not in chosen.tasks)


@dataclass(frozen=True)
class Every(Options):
    """An option of each kind."""

    switch: bool = option(False, "a switch", "--switch")
    number: float | None = option(None, "a number", "--number")
    count: int = option(3, "a count", "--count")
    name: str = option("a", "a name", "--every_name")
    bits: Literal[2, 4] = option(4, "bits", "--bits")
    word: Literal["one", "two"] | None = option(None, "a word", "--word")


@pytest.mark.parametrize(
    ("name", "value", "words", "wrong", "form"),
    [
        ("switch", True, ["--switch"], 1, "it is True or False"),
        ("number", 0.5, ["--number", "0.5"], "half", "it is a number"),
        ("count", 7, ["--count", "7"], True, "it is a whole number"),
        ("count", 7, ["--count", "7"], 2.5, "it is a whole number"),
        ("name", "b", ["--every-name", "b"], 3, "it is a text"),
        ("bits", 2, ["--bits", "2"], 3, "allowed are 2, 4"),
        ("word", "two", ["--word", "two"], "tow", "allowed are one, two; did you mean 'two'?"),
    ],
)
def test_an_option_of_every_kind(name: str, value: Any, words: list[str], wrong: Any, form: str) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Every)
    values, problems = read_options(Every, parser.parse_args(words))
    assert (values[name], problems) == (value, [])
    assert read_options(Every, parser.parse_args(list(said(Every, {name: value}))))[0] == values
    assert getattr(checked(Every, {name: value}), name) == value
    with pytest.raises(InputError) as told:
        checked(Every, {name: wrong})
    assert str(told.value).startswith(f"{name} is {wrong!r}; {form}")


def test_no_branch_on_a_methods_name_is_left(root: Path) -> None:
    left = [
        f"{path.relative_to(root)}: {line.strip()}"
        for folder in ("splora", "scripts", "hparams", "callbacks")
        for path in sorted((root / folder).rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(f'{sign} "{name}"' in line for sign in ("==", "!=") for name in ("stat", "fisher"))
        and "mask_init" not in line
    ]
    assert left == []
