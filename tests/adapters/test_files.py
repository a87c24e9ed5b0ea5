"""A saved adapter holds what the task needs and no more, and gives the same bits back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from splora.adapters import attach_block_masks, freeze_masks
from splora.errors import InputError

PRUNING = ("topK", "topK_global", "threshold", "sigmoied_threshold", "l0", "magnitude")
SHARING = [
    {"shared_prototypes": prototypes, "shared_position_weights": position}
    for prototypes in (True, False)
    for position in (True, False)
]


@pytest.mark.parametrize("pruning", PRUNING)
def test_a_fresh_base_gives_the_same_bits(
    method: str, pruning: str, trained: Any, bert: Any, logits: Any, tmp_path: Path
) -> None:
    model = trained(method, pruning=pruning, modules_to_save=["LayerNorm"])
    expected = logits(model)
    model.save_pretrained(tmp_path)
    torch.manual_seed(1234)
    loaded = PeftModel.from_pretrained(bert(), tmp_path)
    assert torch.equal(logits(loaded), expected)
    assert not any("scores" in name for name in loaded.state_dict())
    assert torch.equal(logits(loaded.merge_and_unload()), expected)


@pytest.mark.parametrize("sharing", SHARING)
def test_every_kind_of_sharing_comes_back(
    sharing: dict[str, bool], trained: Any, bert: Any, logits: Any, tmp_path: Path
) -> None:
    model = trained("splopa", block_shapes={"query": (4, 16)}, **sharing)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(bert(), tmp_path)), expected)


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_second_name_in_the_same_process(
    method: str, low_memory: bool, trained: Any, train: Any, logits: Any, tmp_path: Path
) -> None:
    model = trained(method)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    model.load_adapter(tmp_path, "again", low_cpu_mem_usage=low_memory)
    train(model)
    assert not torch.equal(logits(model), expected)
    model.set_adapter("again")
    assert torch.equal(logits(model), expected)


def test_saving_again_writes_the_same_file(method: str, trained: Any, bert: Any, tmp_path: Path) -> None:
    trained(method).save_pretrained(tmp_path / "once")
    PeftModel.from_pretrained(bert(), tmp_path / "once").save_pretrained(tmp_path / "twice")
    once, twice = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("once", "twice"))
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_freezing_first_writes_the_same_file(method: str, trained: Any, tmp_path: Path) -> None:
    model = trained(method)
    model.save_pretrained(tmp_path / "before")
    freeze_masks(model)
    model.save_pretrained(tmp_path / "after")
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("before", "after"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_training_goes_on_from_a_saved_adapter(
    method: str, trained: Any, bert: Any, train: Any, logits: Any, tmp_path: Path
) -> None:
    trained(method).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(bert(), tmp_path, is_trainable=True)
    before = logits(model)
    train(model, 1)
    assert not torch.equal(logits(model), before)


def expected_splopa() -> dict[str, tuple[int, ...]]:
    """Name → shape: half of the 8 × 8 blocks kept, 4 prototypes of rank 2, own biases, the head."""
    shapes: dict[str, tuple[int, ...]] = {
        "splopa_columns.8x8": (4, 8, 2),
        "splopa_rows.8x8": (4, 2, 8),
        "model.qa_outputs.weight": (2, 16),
        "model.qa_outputs.bias": (2,),
    }
    sizes = {
        "attention.self.query": (16, 4),
        "attention.self.key": (16, 4),
        "attention.self.value": (16, 4),
        "attention.output.dense": (16, 4),
        "intermediate.dense": (32, 8),
        "output.dense": (16, 8),
    }
    for index in range(2):
        for name, (out, blocks) in sizes.items():
            layer = f"model.bert.encoder.layer.{index}.{name}"
            shapes[f"{layer}.splopa_mask"] = (1,)
            shapes[f"{layer}.splopa_position_weights"] = (blocks // 2, 4)
            shapes[f"{layer}.splopa_bias"] = (out,)
    return {f"base_model.{name}": shape for name, shape in shapes.items()}


def expected_splora() -> dict[str, tuple[int, ...]]:
    """Name → shape: half of the channels kept, rank 2, own biases, the head."""
    shapes: dict[str, tuple[int, ...]] = {"model.qa_outputs.weight": (2, 16), "model.qa_outputs.bias": (2,)}
    sizes = {
        "attention.self.query": (16, 16, 8, 16),
        "attention.self.key": (16, 16, 8, 16),
        "attention.self.value": (16, 16, 8, 16),
        "attention.output.dense": (16, 16, 16, 8),
        "intermediate.dense": (32, 4, 16, 16),
        "output.dense": (16, 32, 16, 16),
    }
    for index in range(2):
        for name, (out, blocks, kept_rows, kept_cols) in sizes.items():
            layer = f"model.bert.encoder.layer.{index}.{name}"
            shapes[f"{layer}.splora_mask"] = (-(-blocks // 8),)
            shapes[f"{layer}.splora_B"] = (kept_rows, 2)
            shapes[f"{layer}.splora_A"] = (2, kept_cols)
            shapes[f"{layer}.splora_bias"] = (out,)
    return {f"base_model.{name}": shape for name, shape in shapes.items()}


def test_the_file_holds_exactly_these_tensors(method: str, trained: Any, tmp_path: Path) -> None:
    trained(method, density=0.5).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    saved = load_file(file)
    wanted = expected_splopa() if method == "splopa" else expected_splora()
    assert {name: tuple(tensor.shape) for name, tensor in saved.items()} == wanted
    for name, tensor in saved.items():
        assert tensor.dtype == (torch.uint8 if name.endswith("_mask") else torch.float32)
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size == 8 + header + sum(t.numel() * t.element_size() for t in saved.values())
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == method.upper()


def test_frozen_biases_are_not_saved(method: str, trained: Any, tmp_path: Path) -> None:
    trained(method, bias="none").save_pretrained(tmp_path)
    names = load_file(tmp_path / "adapter_model.safetensors")
    assert [name for name in names if "bias" in name] == ["base_model.model.qa_outputs.bias"]


def test_each_of_two_adapters_is_saved_alone(
    method: str, trained: Any, config_of: Any, bert: Any, train: Any, logits: Any, tmp_path: Path
) -> None:
    model = trained(method)
    first = logits(model)
    model.add_adapter("other", config_of(method, bias="none"))
    model.set_adapter("other")
    for mask in attach_block_masks(model, "topK", "uniform", 0.1, "other"):
        mask.set_threshold(0.25)
    train(model)
    second = logits(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(bert(), tmp_path)
    loaded.load_adapter(tmp_path / "other", "other")
    assert torch.equal(logits(loaded), first)
    loaded.set_adapter("other")
    assert torch.equal(logits(loaded), second)


def test_loading_over_a_training_mask_replaces_it(
    method: str, trained: Any, bert: Any, config_of: Any, logits: Any
) -> None:
    source = trained(method)
    target = get_peft_model(bert(), config_of(method))
    attach_block_masks(target, "topK")
    set_peft_model_state_dict(target, get_peft_model_state_dict(source))
    assert torch.equal(logits(target), logits(source))
    assert not any("scores" in name for name in target.state_dict())


def _rewritten(folder: Path, change: Any) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: lambda t: t.pop(f"{QUERY}.{m}_mask"), r"layer\.0\.attention\.self\.query.*no mask for this layer"),
        (
            lambda m: lambda t: t.update({f"{QUERY}.{m}_mask": torch.zeros(9, dtype=torch.uint8)}),
            "saved mask has shape",
        ),
        (
            lambda m: (
                lambda t: t.update({f"{QUERY}.{m}_{'B' if m == 'splora' else 'position_weights'}": torch.ones(9, 2)})
            ),
            r"query\..*its mask keeps \d+ rows",
        ),
        (
            lambda m: lambda t: t.update({f"{QUERY.replace('.0.', '.7.')}.{m}_bias": torch.zeros(16)}),
            r"layer\.7\..*the model has no such layer",
        ),
    ],
)
def test_a_file_of_another_model_is_refused(
    method: str, change: Any, said: str, trained: Any, bert: Any, tmp_path: Path
) -> None:
    trained(method).save_pretrained(tmp_path)
    _rewritten(tmp_path, change(method))
    with pytest.raises(InputError, match=said):
        PeftModel.from_pretrained(bert(), tmp_path)


def test_a_missing_parameter_is_refused(method: str, trained: Any, bert: Any, tmp_path: Path) -> None:
    trained(method).save_pretrained(tmp_path)
    name = "splora_B" if method == "splora" else "splopa_position_weights"
    _rewritten(tmp_path, lambda tensors: tensors.pop(f"{QUERY}.{name}"))
    with pytest.raises(InputError, match=rf"query\.{name}.*: the adapter file lacks this"):
        PeftModel.from_pretrained(bert(), tmp_path)


def test_another_block_shape_is_refused(method: str, trained: Any, bert: Any, tmp_path: Path) -> None:
    trained(method).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    config = json.loads(file.read_text())
    config["block_shape"] = [2, 2]
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match="the saved mask has shape"):
        PeftModel.from_pretrained(bert(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"block_shapes": [1]}, r"block_shapes is \[1\]; block shapes by layer are needed"),
        ({"block_shapes": {"query": "8x8"}}, r"block_shapes\['query'\] is '8x8'; two whole numbers above 0"),
        ({"block_shape": None}, "block_shape is None; two whole numbers above 0"),
        ({"block_shape": [8, 10**400]}, "does not|two whole numbers|saved for another block shape"),
        ({"target_modules": {"a": 1}}, r"target_modules is \{'a': 1\}; names of modules are needed"),
        ({"target_modules": "("}, r"target_modules is '\(', which is no regular expression"),
        ({"target_modules": [5]}, r"target_modules is \[5\]; names of modules are needed"),
        ({"target_modules": "x" * 1_000_000}, "target_modules is 'xxx"),
        ({"exclude_modules": 5}, "exclude_modules is 5; names of modules are needed"),
        ({"modules_to_save": "all of them"}, "modules_to_save is 'all of them'; names of modules are needed"),
        ({"bias": ["all"]}, r"bias is \['all'\]; allowed are none, all"),
        ({"init_range": "wide"}, "init_range is 'wide'; a number above 0 is needed"),
        ({"init_range": 1e308}, "init_range is 1e.308; a number above 0 is needed"),
    ],
)
def test_settings_of_another_kind_are_refused(
    method: str, changes: dict[str, Any], sentence: str, trained: Any, bert: Any, tmp_path: Path
) -> None:
    trained(method).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=sentence) as raised:
        PeftModel.from_pretrained(bert(), tmp_path)
    assert len(str(raised.value)) < 3_000


def test_sizes_are_judged_before_they_are_built(method: str, config_of: Any) -> None:
    option = "rank" if method == "splora" else "num_prototypes"
    with pytest.raises(InputError, match=f"{option} is (1000000000|a whole number of about 401 digits); a"):
        config_of(method, **{option: 10**9})
    with pytest.raises(InputError, match=f"{option} is (a whole number of about 40|inf|1000)"):
        config_of(method, **{option: 10**400})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda value: torch.cat([value.flatten()] * 2), "values where|saved (mask|tensor) has shape"),
        (lambda value: value.float() * float("nan"), "NaN or infinite values|saved mask has shape"),
    ],
    ids=["another shape", "not finite"],
)
def test_every_tensor_of_a_layer_is_judged(
    method: str, change: Any, sentence: str, trained: Any, bert: Any, tmp_path: Path
) -> None:
    trained(method).save_pretrained(tmp_path / "whole")
    names = [
        name for name in load_file(tmp_path / "whole" / "adapter_model.safetensors") if name.startswith(f"{QUERY}.")
    ]
    assert len(names) >= 3
    for name in names:
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        _rewritten(tmp_path / name, lambda tensors, name=name: tensors.update({name: change(tensors[name])}))
        with pytest.raises(InputError, match=sentence):
            PeftModel.from_pretrained(bert(), tmp_path / name)
