"""A saved pruned model loads bit for bit: here, and by stock transformers where splora cannot be imported."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

import splora
from splora import anatomy
from splora.errors import InputError
from splora.export import pruned_modeling
from splora.export.cut import cut
from splora.export.folder import load_pruned, save_pruned
from splora.export.plan import Plan
from splora.export.quantized import save_quantized
from splora.export.storage import name_of, stored_in, weight_files
from splora.posttraining.quantize.grid import GridOptions
from splora.tasks.embedded.tokenizer import build_tokenizer
from tests.families import ONE_OF_EACH

#: A model of each family, the last of its tasks: of decoders that is text.
NAMES = ONE_OF_EACH


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_loads_bit_for_bit(name: str, plan: Plan, tiny: Any, outputs: Any, tmp_path: Path) -> None:
    smaller = cut(tiny(name), plan)
    save_pruned(smaller, None, tmp_path / "model")
    loaded = splora.load_pruned(tmp_path / "model")
    assert not loaded.training
    assert torch.equal(outputs(loaded), outputs(smaller))
    assert {path: tuple(tensor.shape) for path, tensor in loaded.state_dict().items()} == {
        path: tuple(tensor.shape) for path, tensor in smaller.state_dict().items()
    }
    loaded.save_pretrained(tmp_path / "plain")  # as a person would who knows only transformers
    save_pruned(loaded, None, tmp_path / "model")  # over itself
    for folder in ("plain", "model"):
        assert torch.equal(outputs(load_pruned(tmp_path / folder)), outputs(smaller))
    assert (tmp_path / "plain" / "config.json").read_text() == (tmp_path / "model" / "config.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "plain"], "no scraps"


def test_the_folder_holds_what_it_should(mixed: Plan, tiny: Any, tmp_path: Path) -> None:
    model = tiny("DistilBertForQuestionAnswering")
    save_pruned(cut(model, mixed), build_tokenizer(), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["per_layer_config"] == {
        "0": {"n_heads": 2, "hidden_dim": 4},
        "1": {"n_heads": 0, "hidden_dim": 1},
        "2": {"n_heads": 1, "hidden_dim": 0},
    }
    assert (config["n_heads"], config["hidden_dim"]) == (4, 20)
    assert config["architectures"] == ["DistilBertForQuestionAnswering"]
    assert config["model_type"] == "distilbert"
    assert config["auto_map"] == {
        "AutoModelForQuestionAnswering": "pruned_modeling.DistilBertForQuestionAnswering",
        "AutoModel": "pruned_modeling.OnlyForTasks",
    }
    assert (tmp_path / "model" / "pruned_modeling.py").read_text() == Path(pruned_modeling.__file__).read_text()
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "model")) == len(build_tokenizer())
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert weights["distilbert.transformer.layer.1.attention.q_lin.weight"].shape == (0, 24)
    assert sum(tensor.numel() for tensor in weights.values()) < sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "OPTForCausalLM"])
def test_options_reach_the_loaded_model(name: str, plan: Plan, tiny: Any, outputs: Any, tmp_path: Path) -> None:
    save_pruned(cut(tiny(name), plan), None, tmp_path / "model")
    eager, sdpa = (load_pruned(tmp_path / "model", attn_implementation=choice) for choice in ("eager", "sdpa"))
    assert (eager.config._attn_implementation, sdpa.config._attn_implementation) == ("eager", "sdpa")
    torch.testing.assert_close(outputs(eager), outputs(sdpa), atol=1e-5, rtol=1e-5)
    eager.set_attn_implementation("sdpa")
    assert torch.equal(outputs(eager), outputs(sdpa))
    half = load_pruned(tmp_path / "model", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    save_pruned(half, None, tmp_path / "half")
    assert torch.equal(outputs(load_pruned(tmp_path / "half")), outputs(half))


class _Allocations(TorchDispatchMode):
    """Records the shapes of all tensors that get memory of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.device.type != "meta":
            known = {tensor.data_ptr() for tensor in args if isinstance(tensor, torch.Tensor)}
            if out.data_ptr() not in known:
                self.shapes.add(tuple(out.shape))
        return out


def test_no_dense_weights_are_allocated(mixed: Plan, tiny: Any, tmp_path: Path) -> None:
    name, dense = "BertForSequenceClassification", {(24, 24), (20, 24), (24, 20)}
    model = tiny(name)
    with _Allocations() as building:
        pruned_modeling.task_model(name)(model.config)
    assert dense <= building.shapes, "this is how a dense weight would be seen"
    # Without the pooler, whose weight has the shape of a dense attention's.
    dense -= {(24, 24)}
    with _Allocations() as cutting:
        smaller = cut(model, mixed)
    with _Allocations() as loading:
        save_pruned(smaller, None, tmp_path / "model")
        load_pruned(tmp_path / "model")
    assert cutting.shapes
    assert loading.shapes
    assert not (cutting.shapes | loading.shapes) & dense


_ELSEWHERE = """
import json, re, sys, warnings
from pathlib import Path
sys.modules["splora"] = None  # importing it fails from here on
warnings.simplefilter("error")
import torch, transformers
from safetensors.torch import load_file, save_file
try:
    import splora
except ImportError:
    pass
else:
    raise SystemExit("splora can be imported")
batch, here = load_file("batch.safetensors"), Path(".")
found = {}
def logits(model):
    with torch.no_grad():
        out = model(**batch)
    return out.logits if "logits" in out else torch.stack([out.start_logits, out.end_logits], dim=-1)
for folder in sorted(here.glob("[A-Z]*")):
    auto = next(name for name in json.loads((folder / "config.json").read_text())["auto_map"] if name != "AutoModel")
    auto = getattr(transformers, auto)
    model = auto.from_pretrained(folder, trust_remote_code=True)
    assert not model.training
    found[folder.name] = logits(model)
    again = Path("again") / folder.name
    model.save_pretrained(again)
    found[folder.name + ".again"] = logits(auto.from_pretrained(again, trust_remote_code=True))
    eager = auto.from_pretrained(folder, trust_remote_code=True, attn_implementation="eager")
    found[folder.name + ".eager"] = logits(eager)
    if auto is transformers.AutoModelForCausalLM:
        found[folder.name + ".written"] = model.generate(batch["input_ids"][:1], max_new_tokens=5, do_sample=False)
    if folder.name.startswith("Bert"):  # which come first
        others = [name for name in sys.modules if re.search(r"modeling_(distilbert|roberta|opt)$", name)]
        assert not others, others
    try:
        transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)
    except ValueError as error:
        assert f"use transformers.{auto.__name__}.from_pretrained(" in str(error), error
    else:
        raise SystemExit("AutoModel has loaded something")
plain = transformers.AutoModelForSequenceClassification.from_pretrained("plain")
assert type(plain).__module__ == "transformers.models.bert.modeling_bert", type(plain)
save_file(found, "found.safetensors")
"""


@pytest.mark.slow
def test_stock_transformers_loads_where_splora_is_not(
    mixed: Plan, tiny: Any, outputs: Any, tmp_path: Path, elsewhere: Any
) -> None:
    ids = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    save_file(batch, tmp_path / "batch.safetensors")
    tiny("BertForSequenceClassification").save_pretrained(tmp_path / "plain")
    wanted, written = {}, {}
    for name in NAMES:
        smaller = cut(tiny(name), mixed)
        save_pruned(smaller, None, tmp_path / name)
        with torch.no_grad():
            out = smaller(**batch)
        wanted[name] = out.logits if "logits" in out else torch.stack([out.start_logits, out.end_logits], dim=-1)
        if name.endswith(("CausalLM", "LMHeadModel")):
            written[name] = smaller.generate(ids[:1], max_new_tokens=5, do_sample=False)
    found = elsewhere(_ELSEWHERE)
    assert len(written) >= 5
    assert all(torch.equal(found.pop(f"{name}.written"), text) for name, text in written.items())
    assert len(found) == 3 * len(NAMES)
    for name in NAMES:
        assert torch.equal(found[name], wanted[name]), name
        assert torch.equal(found[f"{name}.again"], wanted[name]), name
        torch.testing.assert_close(found[f"{name}.eager"], wanted[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("version", "told"), [("4.57.1", True), ("5.14.9", True), ("5.15.0", False), ("6.0.0.dev0", False)]
)
def test_an_older_transformers_is_told_in_a_sentence(version: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)  # the one that is imported from now on
    code = compile(Path(pruned_modeling.__file__).read_text(encoding="utf-8"), "pruned_modeling.py", "exec")
    names: dict[str, Any] = {"__name__": "pruned_modeling"}
    monkeypatch.setitem(sys.modules, "pruned_modeling", ModuleType("pruned_modeling"))
    if not told:
        exec(code, names)
        return
    with pytest.raises(
        ImportError, match=rf"need transformers 5\.15 or newer, and {version} is installed: pip install"
    ):
        exec(code, names)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["BertForSequenceClassification", "OPTForCausalLM"])
def test_weights_are_stored_in_the_type_that_was_asked_for(
    name: str, dtype: torch.dtype, mixed: Plan, tiny: Any, tmp_path: Path
) -> None:
    smaller = cut(tiny(name), mixed)
    before = {path: tensor.clone() for path, tensor in smaller.state_dict().items()}
    save_pruned(smaller, None, tmp_path / "model", dtype=dtype)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model" / "model.safetensors").values()} == {dtype}
    assert stored_in(weight_files(str(tmp_path / "model"))) == name_of(dtype)
    loaded = load_pruned(tmp_path / "model", dtype=torch.float32).state_dict()
    for path, tensor in smaller.state_dict().items():
        assert torch.equal(tensor, before[path]), "the model in memory is left alone"
        assert torch.equal(loaded[path], tensor.to(dtype).float()), path


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_weights_have_the_permissions_of_new_files(mask: int, mixed: Plan, tiny: Any, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        save_pruned(cut(tiny("BertForSequenceClassification"), mixed), None, tmp_path / "model")
        save_quantized(tiny("BertForSequenceClassification"), {}, GridOptions(), None, tmp_path / "quantized")
        Plan.dense(tiny("OPTForCausalLM")).save(tmp_path, Plan.dense(tiny("OPTForCausalLM")))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert {"model.safetensors", "quantized.safetensors", "masks.safetensors"} <= modes.keys()
    assert set(modes.values()) == {0o666 & ~mask}, modes


def test_without_trust_the_stock_class_refuses(mixed: Plan, tiny: Any, tmp_path: Path) -> None:
    save_pruned(cut(tiny("BertForQuestionAnswering"), mixed), None, tmp_path / "model")
    with pytest.raises(RuntimeError, match="per-layer attribute"):
        transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "model", trust_remote_code=False)


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForMaskedLM", "OPTForCausalLM"])
def test_a_plain_model_loads_as_itself(name: str, tiny: Any, tmp_path: Path) -> None:
    model = tiny(name)
    model.save_pretrained(tmp_path / "model")
    loaded = load_pruned(tmp_path / "model")
    assert type(loaded) is getattr(transformers, name)
    assert all(torch.equal(tensor, model.state_dict()[path]) for path, tensor in loaded.state_dict().items())


def test_what_cannot_be_loaded_is_one_sentence(mixed: Plan, tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing: there is no such folder"):
        load_pruned(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: this folder holds no model; it has no config\.json"):
        load_pruned(tmp_path / "empty")
    good = tmp_path / "good"
    save_pruned(cut(tiny("BertForSequenceClassification"), mixed), None, good)
    broken = Path(shutil.copytree(good, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:500])
    with pytest.raises(InputError, match="broken: the model cannot be read"):
        load_pruned(broken)
    unknown = Path(shutil.copytree(good, tmp_path / "unknown"))
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(InputError, match="class 'BertForMaskedLM' is not known; pruned ones are BertForSequence"):
        load_pruned(unknown)
    sizes = {**config["per_layer_config"], "0": {"num_attention_heads": 3, "intermediate_size": 4}}
    (unknown / "config.json").write_text(json.dumps(config | {"per_layer_config": sizes}))
    with pytest.raises(InputError, match="unknown: the model cannot be read"):
        load_pruned(unknown)


def test_other_content_is_not_replaced(mixed: Plan, tiny: Any, tmp_path: Path) -> None:
    smaller = cut(tiny("BertForSequenceClassification"), mixed)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="notes: holds no model and is not empty"):
        save_pruned(smaller, None, tmp_path / "notes")
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_pruned(smaller, None, tmp_path / "file" / "model")


@pytest.mark.real
def test_real_weights(shared: Path, masked: Any, tmp_path: Path) -> None:
    folder = shared / "models" / "minilm-sst2"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    dense = Plan.dense(model)
    heads = tuple(kept[layer % 2 :: 2] if layer != 4 else () for layer, kept in enumerate(dense.heads))
    neurons = tuple(kept[layer % 3 :: 3] if layer != 2 else () for layer, kept in enumerate(dense.neurons))
    plan = Plan(heads, neurons)
    smaller = cut(model, plan)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["a gorgeous, witty film", "dull", "it never quite finds its feet , but it is a pleasure to watch ."]
    batch = words(texts, padding=True, return_tensors="pt")
    masked(model, plan)
    with torch.no_grad():
        wanted, found = model(**batch).logits, smaller(**batch).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    save_pruned(smaller, words, tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(load_pruned(tmp_path / "model")(**batch).logits, found)
    assert sum(layer.heads for layer in anatomy.layers(smaller)) == 30
