"""Every input of the base model reaches it, however it is wrapped: plain = wrapped = unwrapped = merged = reloaded."""

from __future__ import annotations

import copy
import inspect
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from splora import anatomy
from splora.adapters import MaskedAdapterLayer, SPLoPAConfig, SPLoRAConfig, attach_block_masks

HEADS = {
    "QUESTION_ANS": "ForQuestionAnswering",
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "CAUSAL_LM": "ForCausalLM",
}
FAMILIES = ("Bert", "Roberta", "DistilBert", "OPT")
#: Every model that the library has of these.
MODELS = [
    (family, task)
    for family in FAMILIES
    for task in HEADS
    if (task == "CAUSAL_LM") == (family == "OPT") or (family == "OPT" and task in ("QUESTION_ANS", "SEQ_CLS"))
]
CASES = [(family, task, given) for family, task in MODELS for given in (task, None)]


def inputs_of(base: nn.Module) -> dict[str, Tensor]:
    """A padded batch of all that the model takes and a tokenizer or a collator makes, nothing at its default."""
    generator = torch.Generator().manual_seed(3)
    pad: Any = base.config.pad_token_id
    ids = torch.randint(5, 60, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((9, 6, 4)):
        ids[row, length:], mask[row, length:] = pad, 0
    places = torch.arange(9).flip(0).expand(3, 9) + (pad + 1 if base.config.model_type == "roberta" else 0)
    made = {"input_ids": ids, "attention_mask": mask, "position_ids": places.contiguous()}
    if getattr(base.config, "type_vocab_size", 1) > 1:
        made["token_type_ids"] = (torch.arange(9) > 3).long().expand(3, 9).contiguous()
    taken = inspect.signature(base.forward).parameters
    return {name: value for name, value in made.items() if name in taken}


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    output = model.eval()(**inputs)
    return output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits])


def config_of(method: str, base: nn.Module, **changes: Any) -> Any:
    common: dict[str, Any] = {"target_modules": sorted(anatomy.encoder_linears(base)), "bias": "all"} | changes
    if method == "splora":
        return SPLoRAConfig(rank=2, block_shape=(4, 4), init_range=0.1, **common)
    return SPLoPAConfig(num_prototypes=3, prototype_rank=2, block_shape=(4, 4), init_range=0.1, **common)


def learn(model: nn.Module) -> None:
    """Give every trained parameter a random change, and every mask some pruned blocks."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(11)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    for mask in attach_block_masks(model, "topK", "uniform", 0.1):
        mask.set_threshold(0.5)


@pytest.mark.parametrize(("family", "task", "given"), CASES)
def test_all_inputs_reach_the_model(
    method: str, family: str, task: str, given: str | None, tiny: Any, tmp_path: Path
) -> None:
    base = tiny(f"{family}{HEADS[task]}")
    inputs = inputs_of(base)
    plain = logits(base, inputs)
    heads = [name for name in anatomy.head_names(base) if task != "CAUSAL_LM"]
    named = {"modules_to_save": heads} if given is None else {}
    model = get_peft_model(copy.deepcopy(base), config_of(method, base, task_type=given, **named))
    torch.testing.assert_close(logits(model, inputs), plain, rtol=0, atol=1e-5)
    for name in inputs.keys() - {"input_ids", "attention_mask"}:
        fewer = {key: value for key, value in inputs.items() if key != name}
        assert (logits(model, fewer) - plain).abs().max() > 1e-3, f"{name} changes nothing: the test would not see it"

    learn(model)
    wrapped = logits(model, inputs)
    assert (wrapped - plain).abs().max() > 1e-2
    torch.testing.assert_close(logits(model.get_base_model(), inputs), wrapped, rtol=0, atol=0)
    model.save_pretrained(str(tmp_path))
    reloaded = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path))
    torch.testing.assert_close(logits(reloaded, inputs), wrapped, rtol=0, atol=0)
    torch.testing.assert_close(logits(model.merge_and_unload(), inputs), wrapped, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(reloaded.merge_and_unload(), inputs), wrapped, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "task"), [case for case in MODELS if case[1] != "CAUSAL_LM"])
def test_the_task_head_is_trained_and_saved_without_being_named(
    method: str, family: str, task: str, tiny: Any, tmp_path: Path
) -> None:
    base = tiny(f"{family}{HEADS[task]}")
    model = get_peft_model(copy.deepcopy(base), config_of(method, base, task_type=task, modules_to_save=["extra"][:0]))
    heads = anatomy.head_names(base)
    assert heads
    for head in heads:
        trained = [n for n, p in model.named_parameters() if p.requires_grad and f"{head}.modules_to_save" in n]
        assert trained, head
    model.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert set(heads) <= set(saved["modules_to_save"])


def test_an_adapter_saved_before_is_read_with_a_notice(
    method: str, tiny: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tiny("BertForQuestionAnswering")
    model = get_peft_model(copy.deepcopy(base), config_of(method, base, task_type="QUESTION_ANS"))
    learn(model)
    inputs = inputs_of(base)
    wrapped = logits(model, inputs)
    model.save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["task_type"] is None, "PEFT would choose the wrapper that drops inputs"
    with caplog.at_level(logging.WARNING):
        PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path))
    assert "without segments" not in caplog.text
    path.write_text(json.dumps(written | {"task_type": "QUESTION_ANS"}), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        old = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path))
    assert "was trained without segments" in caplog.text
    assert str(tmp_path) in caplog.text
    torch.testing.assert_close(logits(old, inputs), wrapped, rtol=0, atol=0)


def test_no_wrapper_of_peft_stands_between(method: str, tiny: Any) -> None:
    base = tiny("BertForQuestionAnswering")
    model = get_peft_model(base, config_of(method, base, task_type="QUESTION_ANS"))
    assert type(model) is PeftModel
    assert any(isinstance(module, MaskedAdapterLayer) for module in model.modules())
