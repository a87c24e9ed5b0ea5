"""Packed codes: there and back; quantized models of every family on disk, with splora and where it is not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import splora
from splora import anatomy, load_pruned, load_quantized
from splora.errors import InputError
from splora.export.cut import cut
from splora.export.folder import save_pruned
from splora.export.packing import CODES, SECTION, WEIGHTS, pack, packed_bytes, unpack
from splora.export.plan import Plan
from splora.export.quantized import is_quantized, save_quantized, stored_bytes
from splora.posttraining.core.precision import Precision
from splora.posttraining.quantize.grid import BITS, GridOptions, QuantizedWeight
from splora.posttraining.quantize.model import quantize_model
from splora.posttraining.quantize.options import QuantizeOptions
from tests.families import ONE_OF_EACH

NAMES = [*ONE_OF_EACH, "OPTForSequenceClassification"]
Quantized = tuple[Any, dict[str, QuantizedWeight], GridOptions]


def quantized(model: Any, bits: int = 4, group_size: int | None = 8, symmetric: bool = False) -> Quantized:
    """A model rounded to nearest, its weights' codes, and their grid."""
    grid = GridOptions(bits, group_size, symmetric)
    weights = quantize_model(model, [], QuantizeOptions(grid, "rtn"), precision=Precision("fp32"))
    return model, weights, grid


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BITS), st.integers(0, 70), st.integers(0, 10_000))
def test_packing_there_and_back(bits: int, count: int, seed: int) -> None:
    codes = torch.randint(0, 1 << bits, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    packed = pack(codes, bits)
    assert packed.numel() == packed_bytes(count, bits) == -(-count * bits // 8)
    assert torch.equal(unpack(packed, bits, (count,)), codes)
    # As the layout is described: one long number, the first code in its lowest bits.
    number = sum(int(code) << (bits * place) for place, code in enumerate(codes))
    assert number == int.from_bytes(bytes(packed.tolist()), "little")


@pytest.mark.parametrize("bits", BITS)
def test_shapes_come_back_and_other_lengths_are_refused(bits: int) -> None:
    codes = torch.randint(0, 1 << bits, (3, 5, 7), dtype=torch.uint8)
    assert torch.equal(unpack(pack(codes, bits), bits, (3, 5, 7)), codes)
    with pytest.raises(ValueError, match="codes of"):
        unpack(pack(codes, bits), bits, (3, 5, 9))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group_size", [None, 8, 16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_loaded_is_what_is_packed(
    bits: int, group_size: int | None, symmetric: bool, tiny: Any, outputs: Any, mixed: Plan, tmp_path: Path
) -> None:
    model, weights, grid = quantized(cut(tiny("OPTForCausalLM"), mixed), bits, group_size, symmetric)
    save_quantized(model, weights, grid, None, tmp_path / "model")
    loaded: Any = load_quantized(tmp_path / "model")
    found = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == torch.float32
    for name, weight in weights.items():
        assert torch.equal(found[name], weight.dequantize())
    assert torch.equal(outputs(loaded), outputs(model))
    stored = load_file(tmp_path / "model" / WEIGHTS)
    assert sum(stored[name + CODES].nbytes for name in weights) == sum(
        packed_bytes(weight.codes.numel(), bits) for weight in weights.values()
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_family_dense_and_pruned_loads_as_a_plain_model(
    name: str, plan: Plan, tiny: Any, outputs: Any, tmp_path: Path
) -> None:
    for number, original in enumerate((tiny(name), cut(tiny(name), plan))):
        model, weights, grid = quantized(original)
        save_quantized(model, weights, grid, None, tmp_path / f"{number}")
        loaded: Any = load_quantized(tmp_path / f"{number}")
        assert torch.equal(outputs(loaded), outputs(model))
        assert not loaded.training
        assert not hasattr(loaded.config, SECTION)
        assert (type(loaded) is getattr(transformers, name)) == (number == 0)
        # As a plain model it may be saved, and cut, like any other.
        save_pruned(loaded, None, tmp_path / f"plain {number}")
        assert torch.equal(outputs(load_pruned(tmp_path / f"plain {number}")), outputs(model))


def test_the_file_is_as_small_as_its_codes(tmp_path: Path) -> None:
    config = transformers.OPTConfig(
        vocab_size=8, hidden_size=128, ffn_dim=512, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=8, word_embed_proj_dim=128,
    )  # fmt: skip
    original = transformers.OPTForCausalLM(config).eval()
    dense = stored_bytes(original)
    sizes = {}
    for bits in BITS:
        model, weights, grid = quantized(original, bits, 64)
        save_quantized(model, weights, grid, None, tmp_path / "model", dtype=torch.float16)
        sizes[bits] = (tmp_path / "model" / WEIGHTS).stat().st_size
        count = sum(weight.codes.numel() for weight in weights.values())
        groups = sum(weight.steps.numel() for weight in weights.values())
        rest = dense - 4 * count
        header = 20_000
        assert sizes[bits] <= count * bits / 8 + groups * (2 + bits / 8) + rest + header
    assert sizes[4] < dense / 5


def test_other_tensors_keep_their_type_and_values(tiny: Any, tmp_path: Path) -> None:
    model = tiny("OPTForCausalLM")
    halves = {name: tensor.half().float() for name, tensor in model.state_dict().items() if "norm" in name}
    model.load_state_dict(halves, strict=False)
    model, weights, grid = quantized(model)
    save_quantized(model, weights, grid, None, tmp_path / "model", dtype=torch.float16)
    stored = load_file(tmp_path / "model" / WEIGHTS)
    assert all(stored[name].dtype == torch.float16 for name in halves)
    assert stored["model.decoder.embed_tokens.weight"].dtype == torch.float32, "rounding would lose something"
    assert "lm_head.weight" not in stored, "tied weights are stored once"
    found = load_quantized(tmp_path / "model").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def test_options_and_the_generation_settings_reach_the_model(tiny: Any, outputs: Any, tmp_path: Path) -> None:
    model, weights, grid = quantized(tiny("OPTForCausalLM"))
    model.generation_config.max_new_tokens = 3
    save_quantized(model, weights, grid, None, tmp_path / "model")
    loaded: Any = load_quantized(tmp_path / "model", dtype=torch.bfloat16, attn_implementation="eager")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert loaded.config._attn_implementation == "eager"
    assert loaded.generation_config.max_new_tokens == 3


def test_pruned_and_quantized_opt_writes_the_same_with_and_without_cache(plan: Plan, tiny: Any, tmp_path: Path) -> None:
    model, weights, grid = quantized(cut(tiny("OPTForCausalLM"), plan), 3)
    save_quantized(model, weights, grid, None, tmp_path / "model")
    loaded: Any = load_quantized(tmp_path / "model")
    ids = torch.randint(5, 60, (1, 6), generator=torch.Generator().manual_seed(2))
    written = [
        loaded.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, use_cache=cache)
        for cache in (True, False)
    ]
    assert torch.equal(*written)
    assert torch.equal(written[0], model.generate(ids, max_new_tokens=12, do_sample=False))


_ELSEWHERE = """
import json, sys, warnings
from pathlib import Path
sys.modules["splora"] = None  # importing it fails from here on
warnings.simplefilter("error")
import torch, transformers
from safetensors.torch import load_file, save_file
batch, found = load_file("batch.safetensors"), {}
def logits(model):
    with torch.no_grad():
        out = model(**batch)
    return out.logits if "logits" in out else torch.stack([out.start_logits, out.end_logits], dim=-1)
for folder in sorted([*Path(".").glob("dense*"), *Path(".").glob("pruned*")]):
    auto = next(name for name in json.loads((folder / "config.json").read_text())["auto_map"] if name != "AutoModel")
    auto = getattr(transformers, auto)
    model = auto.from_pretrained(folder, trust_remote_code=True)
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    found[folder.name] = logits(model)
    again = Path("again") / folder.name
    model.save_pretrained(again)
    assert (again / "model.safetensors").is_file()
    found[folder.name + ".again"] = logits(auto.from_pretrained(again, trust_remote_code=True))
    if auto is transformers.AutoModelForCausalLM:
        found[folder.name + ".written"] = model.generate(batch["input_ids"][:1], max_new_tokens=5, do_sample=False)
    try:
        auto.from_pretrained(folder, trust_remote_code=False)
    except OSError as error:
        assert "no file named model.safetensors" in str(error), error
    else:
        raise SystemExit("a stock class has made weights anew")
plain = transformers.AutoModelForSequenceClassification.from_pretrained("plain")
assert type(plain).__module__ == "transformers.models.bert.modeling_bert", type(plain)
save_file(found, "found.safetensors")
"""


@pytest.mark.slow
def test_stock_transformers_loads_where_splora_is_not(
    tiny: Any, outputs: Any, mixed: Plan, tmp_path: Path, elsewhere: Any
) -> None:
    ids = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    save_file(batch, tmp_path / "batch.safetensors")
    tiny("BertForSequenceClassification").save_pretrained(tmp_path / "plain")
    wanted: dict[str, Tensor] = {}
    written: dict[str, Tensor] = {}
    for name in NAMES:
        for kind, original in (("dense", tiny(name)), ("pruned", cut(tiny(name), mixed))):
            model, weights, grid = quantized(original, 3)
            save_quantized(model, weights, grid, None, tmp_path / f"{kind}{name}")
            with torch.no_grad():
                out = model(**batch)
            logits = out.logits if "logits" in out else torch.stack([out.start_logits, out.end_logits], dim=-1)
            wanted[f"{kind}{name}"] = logits
            if name.endswith(("CausalLM", "LMHeadModel")):
                written[f"{kind}{name}"] = model.generate(ids[:1], max_new_tokens=5, do_sample=False)
    found = elsewhere(_ELSEWHERE)
    assert len(written) == 2 * sum(family.causal for family in anatomy.FAMILIES.values())
    assert all(torch.equal(found.pop(f"{name}.written"), text) for name, text in written.items())
    assert len(found) == 2 * len(wanted)
    for name, logits in wanted.items():
        assert torch.equal(found[name], logits), name
        assert torch.equal(found[f"{name}.again"], logits), name


def test_what_cannot_be_loaded_is_one_sentence(tiny: Any, tmp_path: Path) -> None:
    model, weights, grid = quantized(tiny("OPTForCausalLM"))
    good = tmp_path / "good"
    save_quantized(model, weights, grid, None, good)
    with pytest.raises(InputError, match="missing: there is no such folder"):
        load_quantized(tmp_path / "missing")
    tiny("OPTForCausalLM").save_pretrained(tmp_path / "plain")
    assert not is_quantized(tmp_path / "plain")
    assert not is_quantized(tmp_path / "missing")
    with pytest.raises(InputError, match=r"plain: this model is not quantized; splora\.load_pruned loads it"):
        load_quantized(tmp_path / "plain")
    assert is_quantized(good)
    with pytest.raises(InputError, match=r"good: this model is quantized; splora\.load_quantized loads it"):
        load_pruned(good)

    def broken(name: str, change: Callable[[Path], object]) -> Path:
        folder = Path(shutil.copytree(good, tmp_path / name))
        change(folder)
        return folder

    def cut_short(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes((good / WEIGHTS).read_bytes()[:500])

    def reconfigure(**changes: Any) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            config = json.loads((folder / "config.json").read_text())
            config[SECTION] |= changes
            (folder / "config.json").write_text(json.dumps(config))

        return write

    def without(ending: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            tensors = load_file(folder / WEIGHTS)
            del tensors[next(name for name in tensors if name.endswith(ending))]
            save_file(tensors, folder / WEIGHTS)

        return write

    for name, change, told in (
        ("gone", lambda folder: (folder / WEIGHTS).unlink(), "cannot be read"),
        ("short", cut_short, "cannot be read"),
        ("bits", reconfigure(bits=3), "is damaged: 60 codes of 3 bits"),
        ("version", reconfigure(version=7), "version 7; known is 1"),
        ("steps", without("_steps"), "is damaged"),
        ("norm", without("final_layer_norm.weight"), "weights cannot be found, such as"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{told}"):
            load_quantized(broken(name, change))


def test_what_cannot_be_saved_is_one_sentence(tiny: Any, tmp_path: Path) -> None:
    model, weights, grid = quantized(tiny("BertForMaskedLM"))
    with pytest.raises(InputError, match="BertForMaskedLM cannot be saved quantized"):
        save_quantized(model, weights, grid, None, tmp_path / "model")
    model, weights, grid = quantized(tiny("OPTForCausalLM"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save_quantized(model, weights, grid, None, tmp_path / "file" / "model")
    assert not (tmp_path / "model").exists()


def test_the_package_offers_it_without_importing_torch() -> None:
    code = "import sys, splora; assert 'load_quantized' in splora.__all__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert splora.load_quantized is load_quantized
