"""Fine-tuned checkpoints of every family, and what a user hears of those that are none."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from splora import anatomy
from splora.checkpoints.checkpoint import load_checkpoint
from splora.errors import InputError
from splora.export.plan import Plan

WIDTH, NEURONS, HEADS, LAYERS = 16, 24, 4, 2
_BERT = {
    "hidden_size": WIDTH,
    "intermediate_size": NEURONS,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "Bert": _BERT,
    "Roberta": _BERT,
    "DistilBert": {"dim": WIDTH, "hidden_dim": NEURONS, "n_heads": HEADS, "n_layers": LAYERS},
}
CLASSIFIER, QUESTIONS = "ForSequenceClassification", "ForQuestionAnswering"
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a tiny random model of a class into `tmp_path/model`, and return that folder."""

    def write(name: str = "BertForSequenceClassification", dtype: torch.dtype = torch.float32, **settings: Any) -> Path:
        family = name.removesuffix("Model").partition("For")[0]
        config = getattr(transformers, f"{family}Config")(
            vocab_size=40, max_position_embeddings=20, **SETTINGS[family] | settings
        )
        torch.manual_seed(3)
        model = getattr(transformers, name)(config).to(dtype)
        model.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return write


def as_pickle(folder: Path, content: Any = None) -> Path:
    """Put `pytorch_model.bin` in place of the folder's safetensors: its weights, or something else."""
    path = folder / "pytorch_model.bin"
    torch.save(load_file(folder / "model.safetensors") if content is None else content, path)
    (folder / "model.safetensors").unlink()
    return path


def change(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a folder."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", SETTINGS)
@pytest.mark.parametrize(
    ("task", "kind", "labels"),
    [("sst2", CLASSIFIER, 2), ("mnli", CLASSIFIER, 3), ("stsb", CLASSIFIER, 1), ("squad_v2", QUESTIONS, 2)],
)
def test_every_family_and_head_in_single_precision(
    task: str, kind: str, labels: int, family: str, stored: torch.dtype, save: Save
) -> None:
    folder = save(f"{family}{kind}", stored, num_labels=labels)
    model = load_checkpoint(str(folder), task)
    assert type(model).__name__ == f"{family}{kind}"
    assert not model.training
    found = model.state_dict()
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert tensor.dtype == stored
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.float())
    assert len(anatomy.layers(model)) == LAYERS


def test_pickled_weights_are_those_of_safetensors(save: Save) -> None:
    folder = save()
    expected = load_checkpoint(str(folder), "SST-2").state_dict()
    as_pickle(folder)
    found = load_checkpoint(str(folder), "SST-2").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_nothing_is_said_and_transformers_speaks_again_afterwards(
    save: Save, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    folder = save("BertForQuestionAnswering")
    capfd.readouterr()
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_checkpoint(str(folder), "squad")
    with pytest.raises(InputError):
        load_checkpoint(str(folder), "sst2")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


class Caller:
    """Unpickles as a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("bare", [True, False])
def test_code_in_a_pickle_is_neither_run_nor_believed(bare: bool, save: Save, tmp_path: Path) -> None:
    folder, trace = save(), tmp_path / "trace"
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    path = as_pickle(folder, weights | {"more": Caller(trace)})
    if bare:
        path.write_bytes(pickle.dumps(Caller(trace), protocol=2) + path.read_bytes())  # as large as weights
    with pytest.raises(InputError) as raised:
        load_checkpoint(str(folder), "sst2")
    assert not trace.exists()
    assert len(raised.value.problems) == 1
    expected = f"{path}: is not read, as it is damaged or holds something else than weights"
    assert str(raised.value).startswith(expected)
    pickle.loads(pickle.dumps(Caller(trace)))
    assert trace.exists()  # so it would have left a trace


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"pytorch_model\.bin: cannot be read as weights \("),
        (b"hello" * 10_000, r"pytorch_model\.bin: (cannot be read as|is not read, as it is damaged)"),
        (None, r"pytorch_model\.bin: cannot be read as weights \("),
        ([1, 2], r"pytorch_model\.bin: holds no weights by name\.$"),
        ({"epoch": 3}, r"pytorch_model\.bin: holds no weights by name\.$"),
    ],
)
def test_damaged_pickles_are_named(content: Any, message: str, save: Save) -> None:
    folder = save()
    path = as_pickle(folder, None if isinstance(content, bytes) else content)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is None:
        path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=message):
        load_checkpoint(str(folder), "sst2")


@pytest.mark.parametrize(
    ("name", "task", "missing"),
    [
        ("BertModel", "sst2", "classifier.bias and classifier.weight"),
        ("BertForQuestionAnswering", "qqp", "bert.pooler.dense.bias and bert.pooler.dense.weight"),
        ("RobertaForSequenceClassification", "squad", "qa_outputs.bias and qa_outputs.weight"),
        ("DistilBertModel", "mrpc", "classifier.bias and classifier.weight"),
    ],
)
def test_a_head_that_is_not_there(name: str, task: str, missing: str, save: Save) -> None:
    folder = save(name)
    with pytest.raises(InputError) as raised:
        load_checkpoint(str(folder), task)
    assert str(raised.value) == (
        f"{folder}: has no head for {task}: {missing} cannot be found (its architecture is {name}); "
        f"pass a checkpoint that is fine-tuned on {task}."
    )


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (2, "mnli", "this checkpoint has 2 labels; mnli needs 3 (entailment, neutral, contradiction)."),
        (3, "sst2", "this checkpoint has 3 labels; sst2 needs 2 (negative, positive)."),
        (2, "stsb", "this checkpoint has 2 labels; stsb needs a score, thus 1 output."),
        (1, "qnli", "this checkpoint has 1 label; qnli needs 2 (entailment, not_entailment)."),
        (3, "squad", "this checkpoint has 3 labels; squad needs 2 (start, end)."),
    ],
)
def test_another_number_of_labels(labels: int, task: str, message: str, save: Save) -> None:
    folder = save(f"Bert{QUESTIONS if task == 'squad' else CLASSIFIER}", num_labels=labels)
    with pytest.raises(InputError) as raised:
        load_checkpoint(str(folder), task)
    assert str(raised.value) == f"{folder}: {message}"


def test_a_number_of_labels_of_ones_own(save: Save) -> None:
    folder = save(num_labels=5)
    with pytest.raises(InputError, match=r"has 5 labels; sst2 needs 4\.$"):
        load_checkpoint(str(folder), "sst2", num_labels=4)
    model: Any = load_checkpoint(str(folder), "sst2", num_labels=5)
    assert model.classifier.out_features == 5


def test_weights_that_do_not_fit_the_configuration(save: Save) -> None:
    folder = save(num_labels=3)
    config = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"id2label": None, "label2id": None}, r"classifier\.bias is 3 in the checkpoint, but 2 by config\.json\.$"),
        (
            {"intermediate_size": 20},
            r"encoder\.layer\.0\.intermediate\.dense\.bias is 24 in the checkpoint, but 20 by config",
        ),
        ({"num_hidden_layers": 1}, r"16 weights of its layers have no place by config\.json, such as bert\.enc.*\.1\."),
        ({"num_hidden_layers": 3}, r"16 weights of the encoder cannot be found, such as bert\.encoder\.layer\.2\."),
    ):
        changed = {name: value for name, value in (config | changes).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            load_checkpoint(str(folder), "mnli" if "id2label" in changed else "sst2")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_no_numbers_are_named(value: float, dtype: torch.dtype, save: Save) -> None:
    folder, name = save(dtype=dtype), "bert.encoder.layer.1.output.dense.weight"

    def damage(weights: dict[str, torch.Tensor]) -> None:
        weights[name][3, 5] = value

    change(folder, damage)
    with pytest.raises(InputError) as raised:
        load_checkpoint(str(folder), "sst2")
    assert str(raised.value) == f"{folder}: {name} holds NaN or infinite values (1 of {WIDTH * NEURONS})."


@pytest.mark.parametrize("model_type", ["t5", "a-new-one", None])
def test_other_families_are_met_with_those_that_are_supported(model_type: str | None, save: Save) -> None:
    folder = save()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    with pytest.raises(InputError) as raised:
        load_checkpoint(str(folder), "sst2")
    start = f"{folder}: model type {model_type!r} is not supported; supported are bert, deberta-v2"
    assert str(raised.value).startswith(start)


def test_folders_without_a_model(save: Save, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        load_checkpoint(str(tmp_path / "nowhere"), "sst2")
    with pytest.raises(InputError, match=r"this folder holds no model; it has no config\.json"):
        load_checkpoint(str(tmp_path), "sst2")
    with pytest.raises(InputError, match="embedded: has no head for sst2"):
        load_checkpoint("embedded", "sst2")
    folder = save()
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"model: the model cannot be read \(.*not fully covered"):
        load_checkpoint(str(folder), "sst2")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model: this folder has a configuration, but no weights .*a trained model"):
        load_checkpoint(str(folder), "sst2")
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: is not JSON"):
        load_checkpoint(str(folder), "sst2")


@pytest.mark.parametrize("family", SETTINGS)
def test_a_pruned_model_with_all_checks(family: str, save: Save, tmp_path: Path) -> None:
    from splora.export.cut import cut
    from splora.export.folder import save_pruned

    plan = Plan(heads=((0, 2), ()), neurons=((1, 5, 7), tuple(range(NEURONS))))
    pruned: Any = cut(load_checkpoint(str(save(f"{family}{CLASSIFIER}")), "sst2"), plan)
    folder = tmp_path / "pruned"
    save_pruned(pruned, None, folder)
    model: Any = load_checkpoint(str(folder), "sst2")
    assert [(layer.heads, layer.neurons) for layer in anatomy.layers(model)] == [(2, 3), (0, NEURONS)]
    ids = torch.arange(5, 14)[None]
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, pruned(input_ids=ids).logits)
    with pytest.raises(InputError, match=rf"has no head for squad; this pruned model is a {family}{CLASSIFIER}\."):
        load_checkpoint(str(folder), "squad")

    bias = "classifier.out_proj.bias" if family == "Roberta" else "classifier.bias"

    def damage(weights: dict[str, torch.Tensor]) -> None:
        weights[bias][0] = float("nan")

    change(folder, damage)
    with pytest.raises(InputError, match=rf"{bias} holds NaN or infinite values \(1 of 2\)"):
        load_checkpoint(str(folder), "sst2")

    def behead(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if "classifier" in name]:
            del weights[name]

    change(folder, behead)
    with pytest.raises(InputError, match=r"has no head for sst2: classifier\.\w+"):
        load_checkpoint(str(folder), "sst2")


def test_safetensors_go_before_a_pickle_beside_them(save: Save) -> None:
    folder = save()
    shutil.copy(folder / "model.safetensors", folder / "kept")
    as_pickle(folder, [1, 2])
    shutil.move(folder / "kept", folder / "model.safetensors")
    assert type(load_checkpoint(str(folder), "sst2")).__name__ == "BertForSequenceClassification"


@pytest.mark.real
@pytest.mark.parametrize(("name", "task", "kind"), [("sst2", "sst2", CLASSIFIER), ("squad", "squad", QUESTIONS)])
def test_real_checkpoints(name: str, task: str, kind: str, shared: Path) -> None:
    model: Any = load_checkpoint(str(shared / "models" / f"minilm-{name}"), task)
    assert type(model).__name__ == f"Bert{kind}"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with pytest.raises(InputError, match="has no head for mrpc"):
        load_checkpoint(str(shared / "models" / "minilm-l6"), "mrpc")
