"""Every family's parts are found on a tiny model of it, bare and wrapped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from splora import anatomy
from splora.errors import InputError
from splora.posttraining.core.calls import record
from splora.posttraining.core.sublayers import attention_close, attention_context
from splora.training.model import prepare
from splora.training.options import AdapterOptions, PruningOptions
from splora.training.signals import signals
from tests.families import TRAINED

BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 60}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
#: Two queries share a key and a value.
LLAMA = BERT | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", BERT),
    "roberta": ("Roberta", BERT),
    "xlm-roberta": ("XLMRoberta", BERT),
    "electra": ("Electra", BERT | {"embedding_size": 8}),
    "mpnet": ("MPNet", BERT),
    "deberta-v2": ("DebertaV2", BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "distilbert": ("DistilBert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 60}),
    **{name.lower(): (name, LLAMA) for name in ("Llama", "Gemma", "Mistral", "Qwen2", "Qwen3")},
    "modernbert": ("ModernBert", BERT | TOKENS),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 32, "vocab_size": 60, **TOKENS}),
    "opt": (
        "OPT",
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "vocab_size": 60}
        | {"word_embed_proj_dim": 16},
    ),
}


def tiny(family: str, head: str) -> nn.Module:
    """A random model of a family with a task head."""
    name, settings = TINY[family]
    config = getattr(transformers, f"{name}Config")(**settings)
    model: nn.Module = getattr(transformers, f"{name}For{head}")(config)
    return model


def test_every_family_is_tested() -> None:
    assert TINY.keys() == anatomy.FAMILIES.keys()


@pytest.mark.parametrize(
    ("family", "head"),
    [(name, task) for name in TINY for task in anatomy.FAMILIES[name].tasks if task != "CausalLM"],
)
def test_parts_are_found(family: str, head: str) -> None:
    model = tiny(family, head)
    places = anatomy.encoder_linears(model)
    held = anatomy.FAMILIES[family].matrices()
    assert sorted((place.layer, place.role) for place in places.values()) == sorted(
        (layer, roles[0]) for layer in range(2) for roles in held.values()
    )
    rows = {"ffn_gate": 32, "ffn_in": 32} | {role: count * 2 for role, count in anatomy.head_rows(model.config).items()}
    for number, layer in enumerate(anatomy.layers(model)):
        assert list(layer.linears) == list(anatomy.FAMILIES[family].linears)
        for path, roles in held.items():
            whole = layer.matrices[roles[0]]
            assert places[f"{anatomy.FAMILIES[family].layers}.{number}.{path}"] == anatomy.Place(number, roles[0])
            wanted = (sum(rows.get(role, 16) for role in roles), 32 if "ffn_out" in roles else 16)
            assert tuple(whole.weight.shape) == (whole.out_features, whole.in_features) == wanted
            # Parts are views, one after another.
            parts = [layer.linears[role] for role in roles]
            assert torch.equal(torch.cat([part.weight for part in parts]), whole.weight)
            assert {part.weight.untyped_storage().data_ptr() for part in parts} == {
                whole.weight.untyped_storage().data_ptr()
            }
            x = torch.randn(3, whole.in_features)
            torch.testing.assert_close(torch.cat([part(x) for part in parts], 1), whole(x))
    assert anatomy.head_names(model)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    assert all(name.rpartition(".")[2] in anatomy.norm_names(model) for name in norms)
    assert anatomy.head_size(model.config) == 8


@pytest.mark.parametrize("adapter", ["none", "splopa", "splora"])
@pytest.mark.parametrize("family", [name for name, of in anatomy.FAMILIES.items() if of.is_trained])
def test_adapters_and_masks_go_on_every_encoder(family: str, adapter: str) -> None:
    pruning = PruningOptions(method="topK", attention_block=(8, 8), ffn_block=(8, 8))
    options = AdapterOptions(kind=adapter, num_prototypes=2, rank=2)
    network, masks = prepare(tiny(family, "SequenceClassification"), options, pruning)
    assert len(masks) == len(anatomy.encoder_linears(network)) == 2 * len(anatomy.FAMILIES[family].matrices())
    head = anatomy.head_names(network)[0]
    assert any(head in name and parameter.requires_grad for name, parameter in network.named_parameters())
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert bool(frozen) == (adapter != "none")
    assert not any(name.endswith("scores") for name in frozen)


def test_other_families_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="model type 't5' is not supported; supported are bert, deberta-v2"):
        anatomy.family_of(transformers.T5Config())
    with pytest.raises(InputError, match="did you mean 'roberta'"):
        anatomy.family_of(transformers.CamembertConfig(model_type="robert"))
    with pytest.raises(InputError, match="holds no transformers model"):
        anatomy.encoder_linears(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("family", "head"),
    [(name, task) for name in TINY for task in anatomy.FAMILIES[name].tasks if task != "CausalLM"],
)
def test_dropout_0_leaves_none_anywhere(family: str, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, settings = TINY[family]
    config = getattr(transformers, f"{name}Config")(**settings)
    for option in vars(config):
        if "drop" in option:
            setattr(config, option, 0.3)
    known = {*anatomy.FAMILIES[family].dropouts, *filter(None, [anatomy.FAMILIES[family].layer_drop])}
    # DeBERTa's `cls_dropout` is read where a configuration has it, and none has it by itself.
    assert known - {"cls_dropout"} == {option for option in vars(config) if "drop" in option}
    anatomy.set_dropout(config, 0.0)
    model = getattr(transformers, f"{name}For{head}")(config).train()
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout) and module.p] == []
    used: list[float] = []
    dropout, attention = nn.functional.dropout, nn.functional.scaled_dot_product_attention

    def seen(values: Any, p: float = 0.5, *rest: Any, **options: Any) -> Any:
        used.append(p)
        return dropout(values, p, *rest, **options)

    def attended(*values: Any, dropout_p: float = 0.0, **options: Any) -> Any:
        used.append(dropout_p)
        return attention(*values, dropout_p=dropout_p, **options)

    monkeypatch.setattr(nn.functional, "dropout", seen)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attended)
    ids = torch.arange(4, 12)[None]
    model(input_ids=ids)
    assert used
    assert {*used} == {0.0}
    anatomy.set_dropout(config, 0.25)
    assert {getattr(config, option) for option in anatomy.FAMILIES[family].dropouts} == {0.25}


@pytest.mark.parametrize("name", TRAINED)
def test_states_after_the_attention_are_those_that_enter_the_feed_forward_part(name: str) -> None:
    family = next(kind for kind, of in anatomy.FAMILIES.items() if name.startswith(f"{of.classes}For"))
    model = tiny(family, name.partition("For")[2]).eval()
    batch = {"input_ids": torch.arange(4, 12)[None], "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    with torch.no_grad():
        hidden, calls = record(model, batch)
        wanted = []
        for layer, call in zip(anatomy.layers(model), calls, strict=True):
            projected = layer.linears["attention_output"](attention_context(layer, hidden, call))
            wanted.append(attention_close(layer, hidden, projected))
            hidden = call(layer.module, hidden)
        found = signals(model, batch, hidden=False, attention=True).attention
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
