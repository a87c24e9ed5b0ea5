"""Settings: what is refused, which block shape counts, and copies of a configuration."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, get_peft_model
from torch import nn

from splora.adapters import SPLoPAConfig, SPLoRAConfig, attach_block_masks
from splora.errors import InputError


@pytest.mark.parametrize(
    ("cls", "settings", "said"),
    [
        (SPLoPAConfig, {"num_prototypes": 0}, "num_prototypes is 0; a whole number above 0"),
        (SPLoPAConfig, {"prototype_rank": 1.5}, "prototype_rank is 1.5"),
        (SPLoPAConfig, {"init_range": 0}, "init_range is 0; a number above 0"),
        (SPLoRAConfig, {"rank": -1}, "rank is -1; a number above 0"),
        (SPLoRAConfig, {"rank": 2.5}, "rank is 2.5; a whole number, or a fraction below 1"),
        (SPLoPAConfig, {"block_shape": (8,)}, r"block_shape is \(8,\); two whole numbers"),
        (SPLoRAConfig, {"block_shapes": {"query": (0, 4)}}, r"block_shapes\['query'\] is \(0, 4\)"),
        (SPLoRAConfig, {"block_shapes": {"(": (4, 4)}}, r"'\(', which is no regular expression"),
        (SPLoPAConfig, {"bias": "al"}, "bias is 'al'; allowed are none, all; did you mean 'all'"),
    ],
)
def test_a_wrong_setting_is_named(cls: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        cls(target_modules=["query"], **settings)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        SPLoPAConfig(num_prototypes=0, init_range=-1.0, bias="some")
    assert len(error.value.problems) == 3


def test_the_longest_pattern_decides_whatever_the_order() -> None:
    shapes = {"output.dense": (8, 4), "attention.output.dense": (4, 4), r".*\.layer\.0\..*query": (2, 2)}
    for items in (shapes.items(), reversed(shapes.items())):
        config = SPLoPAConfig(block_shape=(16, 16), block_shapes=dict(items))
        assert config.block_shape_of("layer.1.output.dense") == (8, 4)
        assert config.block_shape_of("layer.1.attention.output.dense") == (4, 4)
        assert config.block_shape_of("bert.layer.0.attention.query") == (2, 2)
        assert config.block_shape_of("layer.1.intermediate.dense") == (16, 16)
        assert config.block_shape_of("layer.1.myoutput.dense") == (16, 16)


@pytest.mark.parametrize(("rank", "expected"), [(8, 8), (8.0, 8), (0.25, 24), (0.001, 1)])
def test_a_rank_below_one_is_a_fraction_of_the_outputs(rank: float, expected: int) -> None:
    assert SPLoRAConfig(rank=rank).rank_of(96) == expected


def test_a_configuration_survives_copy_pickle_and_file(method: str, config_of: Any, tmp_path: Path) -> None:
    config = config_of(method, block_shapes={"query": [4, 8]}, modules_to_save=("LayerNorm",))
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config
    config.save_pretrained(tmp_path)
    loaded = PeftConfig.from_pretrained(str(tmp_path))
    assert type(loaded) is type(config)
    assert loaded == config
    assert loaded.block_shape_of("bert.query") == (4, 8)


def test_a_caller_s_list_of_modules_stays_as_it_was(method: str, config_of: Any, bert: Any) -> None:
    modules = ["LayerNorm"]
    get_peft_model(bert(), config_of(method, modules_to_save=modules))
    assert modules == ["LayerNorm"]


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["quary"], "has 'quary', which matches no linear layer of the model; did you mean 'query'"),
        (["query", "valeu"], "has 'valeu'"),
        (["LayerNorm"], "has 'LayerNorm', which matches no linear"),
        (r".*\.nothing", "which matches no linear layer"),
        (None, "target_modules is empty"),
        ([], "target_modules is empty"),
    ],
)
def test_targets_that_match_nothing_are_refused(
    method: str, config_of: Any, bert: Any, targets: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        get_peft_model(bert(), config_of(method, target_modules=targets))


def test_mask_blocks_that_do_not_divide_name_the_layer(method: str, config_of: Any, bert: Any) -> None:
    """An adapter's own blocks may reach beyond the weight; a mask's may not, and nothing is masked in silence."""
    model = get_peft_model(bert(), config_of(method, block_shape=(5, 8)))
    with pytest.raises(InputError, match=r"encoder\.layer\.0\.attention\.self\.query.*5 × 8 do not divide"):
        attach_block_masks(model, "topK")
    with pytest.raises(InputError, match=r"encoder\.layer\.0\.attention\.self\.query.*5 × 8 do not divide"):
        get_peft_model(bert(), config_of(method, mask_shapes={".*": (5, 8)}))


def test_what_is_no_linear_is_refused(method: str, config_of: Any) -> None:
    model = nn.ModuleDict({"linear": nn.Linear(16, 16), "words": nn.Embedding(16, 16)})
    with pytest.raises(InputError, match="words: is a Embedding"):
        get_peft_model(model, config_of(method, target_modules=".*(linear|words)", task_type=None))


def test_half_precision_weights_get_float32_adapters(method: str, config_of: Any, bert: Any) -> None:
    model = get_peft_model(bert().half(), config_of(method))
    assert {p.dtype for n, p in model.named_parameters() if f"{method}_" in n} == {torch.float32}
