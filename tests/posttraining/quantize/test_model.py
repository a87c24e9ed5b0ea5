"""Whole models quantized layer by layer, against a loop that runs the model anew for every weight."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splora import anatomy
from splora.errors import InputError
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core import states
from splora.posttraining.core.precision import Precision
from splora.posttraining.quantize.gptq import Hessian, factorize, gptq, output_errors
from splora.posttraining.quantize.grid import GridOptions, QuantizedWeight, round_to_nearest
from splora.posttraining.quantize.model import quantize_model, sharing_copy
from splora.posttraining.quantize.options import QuantizeOptions

FAMILIES = [
    ("BertForSequenceClassification", {}),
    ("RobertaForQuestionAnswering", {}),
    ("DistilBertForQuestionAnswering", {}),
    ("OPTForCausalLM", {}),
    ("OPTForCausalLM", {"do_layer_norm_before": False, "word_embed_proj_dim": 12}),
]
FP32 = Precision("fp32")
OPTIONS = QuantizeOptions(GridOptions(3, 8))


def samples(count: int = 24, tokens: int = 9) -> list[dict[str, Tensor]]:
    """Two batches with padding."""
    ids = torch.randint(5, 60, (count, tokens), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    ids[1::3, tokens - 2 :], mask[1::3, tokens - 2 :] = 1, 0
    halves = zip(ids.split(count // 2), mask.split(count // 2), strict=True)
    return [{"input_ids": part, "attention_mask": kept} for part, kept in halves]


def quantized(model: nn.Module, options: QuantizeOptions = OPTIONS, **changes: Any) -> dict[str, QuantizedWeight]:
    """Quantize in place."""
    return quantize_model(model, changes.pop("batches", samples()), options, precision=FP32, **changes)


@torch.no_grad()
def inputs_of(model: nn.Module, linear: nn.Linear) -> Tensor:
    """The Hessian of what a linear gets when the model runs as it is."""
    hessian = Hessian(linear.in_features, torch.device("cpu"))
    seen: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    for batch in samples():
        model(**batch)
        hessian.add(seen.pop().flatten(0, -2)[batch["attention_mask"].bool().flatten()])
    handle.remove()
    return hessian.matrix()


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize(("name", "changes"), FAMILIES)
def test_each_weight_meets_what_quantized_weights_have_made(
    tiny: Any, mixed: Plan, name: str, changes: dict[str, Any], pruned: bool, act_order: bool
) -> None:
    model = cut(tiny(name, **changes), mixed) if pruned else tiny(name, **changes)
    literal = copy.deepcopy(model)
    found = quantized(model, QuantizeOptions(GridOptions(3, 8), act_order=act_order))
    names = {(place.layer, place.role): path for path, place in anatomy.encoder_linears(literal).items()}
    for number, layer in enumerate(anatomy.layers(literal)):
        for roles in (("query", "key", "value"), ("attention_output",), ("ffn_in",), ("ffn_out",)):
            for role in roles:
                linear, path = layer.linears[role], f"{names[number, role]}.weight"
                if not linear.weight.numel():
                    assert path not in found
                    continue
                # None of the three has been replaced when their inputs are taken; these do not depend on them.
                hessian, weight = inputs_of(literal, linear), linear.weight.detach()
                wanted = gptq(weight, factorize(hessian, act_order=act_order), GridOptions(3, 8))
                same = (found[path].dequantize() - wanted.dequantize()).abs() < 1e-5
                assert float(same.float().mean()) > 0.97, path
                ours = output_errors(weight - found[path].dequantize(), hessian)
                nearest = round_to_nearest(weight, GridOptions(3, 8)).dequantize()
                theirs = output_errors(weight - nearest, hessian)
                assert bool((ours <= theirs * (1 + 1e-3) + 1e-5).all()), path
                # What was found, so that a weight on the edge between two codes does not change all that follows.
                linear.weight.data = found[path].dequantize()
    for path, weight in found.items():
        assert torch.equal(model.get_parameter(path), weight.dequantize())


@pytest.mark.parametrize(("name", "changes"), FAMILIES)
def test_only_linears_of_the_layers_change(tiny: Any, name: str, changes: dict[str, Any]) -> None:
    model = tiny(name, **changes)
    before = {path: tensor.clone() for path, tensor in model.state_dict().items()}
    found = quantized(model)
    assert {path.removesuffix(".weight") for path in found} == set(anatomy.encoder_linears(model))
    changed = {path for path, tensor in model.state_dict().items() if not torch.equal(tensor, before[path])}
    assert changed == set(found)


def test_layers_that_have_lost_everything_do_no_harm(tiny: Any, outputs: Any, plan: Plan) -> None:
    for name in ("BertForSequenceClassification", "OPTForCausalLM"):
        smaller = cut(tiny(name), plan)
        wanted = outputs(smaller)
        found = quantized(smaller, QuantizeOptions(GridOptions(8)))
        assert len(found) == sum(
            linear.weight.numel() > 0 for layer in anatomy.layers(smaller) for linear in layer.linears.values()
        )
        assert float((outputs(smaller) - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize("storage", ["fp32", "bf16", "disk"])
def test_where_states_are_kept_changes_next_to_nothing(tiny: Any, outputs: Any, storage: Any) -> None:
    usual, other = tiny("OPTForCausalLM"), tiny("OPTForCausalLM")
    quantized(usual, QuantizeOptions(GridOptions(8)))
    quantized(other, QuantizeOptions(GridOptions(8), storage=storage))
    if storage == "bf16":
        torch.testing.assert_close(outputs(other), outputs(usual), rtol=0.1, atol=0.1)
    else:
        assert torch.equal(outputs(other), outputs(usual))


def test_what_is_too_much_to_keep_is_made_again(tiny: Any, outputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, other = tiny("OPTForCausalLM"), tiny("OPTForCausalLM")
    quantized(usual)
    monkeypatch.setattr(states, "KEPT_BYTES", 12_000)
    quantized(other)
    assert torch.equal(outputs(other), outputs(usual))


def test_a_sharing_copy_leaves_the_original_alone(tiny: Any, outputs: Any) -> None:
    model = tiny("OPTForCausalLM")
    wanted = outputs(model)
    other = sharing_copy(model)
    assert all(one is same for one, same in zip(model.parameters(), other.parameters(), strict=True))
    quantized(other)
    assert torch.equal(outputs(model), wanted)
    assert not torch.equal(outputs(other), wanted)
    kept = dict(model.named_parameters())
    shared = [path for path, parameter in other.named_parameters() if parameter is kept[path]]
    assert set(kept) - set(shared) == {f"{path}.weight" for path in anatomy.encoder_linears(model)}


def test_gptq_comes_closer_than_rounding(tiny: Any, outputs: Any) -> None:
    model = tiny("OPTForCausalLM")
    wanted = outputs(model)
    losses = {}
    for method in ("gptq", "rtn"):
        other = sharing_copy(model)
        # With rounding nothing is looked at.
        batches = samples(96) if method == "gptq" else []
        quantized(other, QuantizeOptions(GridOptions(3), method), batches=batches)  # type: ignore[arg-type]
        losses[method] = float((outputs(other) - wanted).norm())
    assert losses["gptq"] < 0.9 * losses["rtn"]


def test_padding_and_labels_change_nothing(tiny: Any) -> None:
    plain, padded = tiny("BertForSequenceClassification"), tiny("BertForSequenceClassification")
    batches = [{name: tensor[:1, :7] for name, tensor in batch.items()} for batch in samples()]
    wider = [
        {
            "input_ids": torch.cat([batch["input_ids"], torch.zeros(1, 5, dtype=torch.long)], 1),
            "attention_mask": torch.cat([batch["attention_mask"], torch.zeros(1, 5, dtype=torch.long)], 1),
            "labels": torch.tensor([-5]),
        }
        for batch in batches
    ]
    one, other = quantized(plain, batches=batches), quantized(padded, batches=wider)
    for path, weight in one.items():
        assert float((weight.codes == other[path].codes).float().mean()) > 0.98


def test_progress_is_told(tiny: Any) -> None:
    told: list[tuple[str, str, float]] = []
    quantized(tiny("OPTForCausalLM"), report=lambda *step: told.append(step))
    assert told[0] == ("quantize", "layer 0, query key value", 0.0)
    assert told[-1] == ("quantize", "", 1.0)
    assert [done for _, _, done in told] == sorted(done for _, _, done in told)


def test_options_that_do_not_fit_are_told(tiny: Any) -> None:
    model = tiny("OPTForCausalLM")
    with pytest.raises(InputError, match="--group-size is 128, but the widest row has 24 weights"):
        quantized(model, QuantizeOptions(GridOptions(4, 128)))
    with pytest.raises(InputError) as told:
        QuantizeOptions(GridOptions(5, 12), "gtq", damping=float("nan"), storage="fp16").check()  # type: ignore[arg-type]
    assert len(told.value.problems) == 5
    with pytest.raises(InputError, match="hold 1 tokens, but"):
        quantized(model, batches=[{"input_ids": torch.tensor([[5]]), "attention_mask": torch.tensor([[1]])}])
