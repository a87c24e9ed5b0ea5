"""Language models left in their files: what comes out is what comes out of memory, and what goes in may be damaged."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from splora import anatomy, load_pruned
from splora.checkpoints.checkpoint import load_checkpoint
from splora.offload import Parked, is_offloaded, present, values_of
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import output_metrics
from splora.scripts import prune
from splora.tasks.byte_pairs import train_tokenizer
from splora.tasks.text_sources import read_text

INDEX = "model.safetensors.index.json"
SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "max_position_embeddings": 24}
GIVEN = ["--task=wikitext2", "--num_samples=24", "--precision=fp32", "--threads=1"]
CPU = torch.device("cpu")


@functools.cache
def words(text: str) -> Any:
    """A tokenizer of a text."""
    return train_tokenizer([text], 300, 24)


def write_model(path: Path, family: str, tied: bool, dtype: torch.dtype) -> Path:
    """A random model with a tokenizer, in several files."""
    text = read_text("embedded", "wikitext2", "train")[:8000]
    tokenizer = words(text)
    tokenizer.save_pretrained(path)
    (path / "text.txt").write_text(text, encoding="utf-8")
    settings: dict[str, Any] = SIZES | {"vocab_size": math.ceil(len(tokenizer) / 8) * 8, "tie_word_embeddings": tied}
    if family == "OPT":
        settings |= {"num_attention_heads": 4, "ffn_dim": 40, "word_embed_proj_dim": 16, "do_layer_norm_before": False}
    else:
        settings |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4, "intermediate_size": 40}
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**settings))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for parameter in model.parameters():
            norm = parameter.dim() == 1 and bool((parameter == 1).all())
            parameter.copy_(norm + (0.2 if parameter.dim() == 2 else 0.02) * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(path, max_shard_size="20KB")
    assert len(list(path.glob("*.safetensors"))) > 1
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Llama in bf16."""
    return write_model(tmp_path_factory.mktemp("llama") / "model", "Llama", False, torch.bfloat16)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in path.glob("model*.safetensors") for name, tensor in load_file(file).items()}


def pruned(model: Path, output: Path, *more: str) -> dict[str, Any]:
    given = ["--model", str(model), "--data", str(model.parent / "model" / "text.txt"), "--budget=mac=0.5"]
    prune.main(["stat", *given, "--output", str(output), *GIVEN, *more])
    result: dict[str, Any] = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return result


@pytest.mark.parametrize(
    ("family", "tied", "dtype", "more"),
    [
        ("Llama", False, torch.bfloat16, ["--exact_paper"]),
        ("Llama", False, torch.float32, []),
        ("Qwen3", True, torch.bfloat16, ["--head_factors=1,2"]),
        ("OPT", True, torch.float16, []),
        ("OPT", False, torch.float32, ["--exact_paper"]),
    ],
    ids=str,
)
def test_a_model_in_files_is_pruned_as_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, tied: bool, dtype: torch.dtype, more: list[str]
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    model = write_model(tmp_path / "model", family, tied, dtype)
    usual = pruned(model, tmp_path / "usual", "--latency_seq_len=8", *more)
    parked = pruned(model, tmp_path / "parked", "--offload", *more)
    plans = [(tmp_path / name / "plan.json").read_text(encoding="utf-8") for name in ("usual", "parked")]
    assert plans[0] == plans[1]
    whole, parts = weights(tmp_path / "usual"), weights(tmp_path / "parked")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(parts[name], tensor), name
        assert parts[name].dtype == dtype
    # One file for each layer and one for what is around them, which the same loaders read.
    assert len(list((tmp_path / "parked").glob("model-*.safetensors"))) == 1 + 3
    differing = {"latency_ms", "seconds", "seconds_of", "peak_memory_bytes", "bytes"}
    assert {name: value for name, value in usual.items() if name not in differing} == {
        name: value for name, value in parked.items() if name not in differing
    }
    assert "latency_ms" not in parked
    ids = torch.randint(10, 290, (2, 5), generator=torch.Generator().manual_seed(1))
    loaded: list[Any] = [load_pruned(tmp_path / name, dtype=torch.float32) for name in ("usual", "parked")]
    with torch.no_grad():
        assert torch.equal(*(each(ids).logits for each in loaded))
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sensitivities_layer_by_layer_are_those_of_the_whole_model(folder: Path, precision: Any) -> None:
    batches = [
        {"input_ids": torch.randint(5, 290, (rows, 24)), "attention_mask": torch.ones(rows, 24, dtype=torch.long)}
        for rows in (30, 4)
    ]
    models = [load_checkpoint(str(folder), "wikitext2", offload=offload) for offload in (None, CPU)]
    whole, parts = (output_metrics(model, batches, 0, Precision(precision)) for model in models)
    for ours, theirs in zip(whole, parts, strict=True):
        assert ours.keys() == theirs.keys() == {"heads", "neurons"}
        for name, metric in ours.items():
            torch.testing.assert_close(theirs[name](), metric(), rtol=1e-6, atol=1e-9)


def test_one_layer_is_in_memory_while_it_is_at_work_and_what_was_pruned_is_pruned_further(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[int, Any] = {}
    most: list[int] = []
    read, layers = Parked.values, anatomy.layers

    def counted(parked: Parked) -> torch.Tensor:
        most.append(sum(not isinstance(next(module.parameters()), Parked) for module in held.values()))
        return read(parked)

    def noted(model: Any) -> Any:
        found = layers(model)
        held.update({id(layer.module): layer.module for layer in found if is_offloaded(model)})
        return found

    monkeypatch.setattr(Parked, "values", counted)
    monkeypatch.setattr(anatomy, "layers", noted)
    before = pruned(folder, tmp_path / "once", "--offload", "--budget=mac=0.8")
    after = pruned(tmp_path / "once", tmp_path / "twice", "--offload", f"--data={folder / 'text.txt'}")
    assert len(held) > 3
    assert 1 <= max(most) <= 2  # the dense model's and the pruned one's
    assert after["dense"] == before["pruned"]
    assert after["parameters"]["pruned"] < before["parameters"]["pruned"] < after["parameters"]["dense"]


def test_what_is_changed_in_place_stays_and_what_was_made_of_it_does_not_change(folder: Path) -> None:
    from splora.offload import derived

    model: Any = load_checkpoint(str(folder), "wikitext2", offload=CPU)
    head = model.lm_head
    before, other = values_of(head.weight), derived(head.weight, lambda values: values[:2])
    with torch.no_grad(), present(head):
        head.weight.add_(1)
    assert torch.equal(values_of(head.weight), before + 1)
    assert torch.equal(values_of(other), before[:2])
    with present(model):
        assert not is_offloaded(model)
    assert is_offloaded(model)


def _without_a_part(path: Path) -> None:
    (path / "model-00002-of-00002.safetensors").unlink()


def _halved(path: Path) -> None:
    file = path / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _only_pickled(path: Path) -> None:
    torch.save(weights(path), path / "pytorch_model.bin")
    for file in (*path.glob("*.safetensors"), path / INDEX):
        file.unlink()


def _without_a_weight(path: Path) -> None:
    file = path / "model-00001-of-00002.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file)


def _not_finite(path: Path) -> None:
    file = path / "model-00001-of-00002.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = math.inf
    save_file(tensors, file)


def _of_another_shape(path: Path) -> None:
    file = path / "model-00001-of-00002.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 24)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("damage", "more", "sentence"),
    [
        (_without_a_part, [], "model: model-00002-of-00002.safetensors is in the list of its files of weights"),
        (_halved, [], "model/model-00002-of-00002.safetensors: the weights cannot be read"),
        (_only_pickled, [], "--offload reads weights from safetensors files, and these are in pytorch_model.bin"),
        (_without_a_weight, [], "1 weight of the encoder cannot be found, such as model.layers.1.mlp.up_proj.weight"),
        (_not_finite, [], "model.layers.1.mlp.up_proj.weight holds NaN or infinite values (1 of 960)"),
        (_of_another_shape, [], "model.layers.1.mlp.up_proj.weight is 3×24 in the checkpoint, but 40×24"),
        (lambda _: None, ["--task=sst2"], "--offload is for language models that STAT prunes on a text"),
        (lambda _: None, ["--latency_seq_len=8"], "--offload measures no latency; leave out"),
    ],
    ids=["part", "halved", "pickled", "weight", "infinite", "shape", "task", "latency"],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_one_sentence(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., tuple[int, str]],
    damage: Callable[[Path], None],
    more: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    size = sum(p.nbytes for p in model.parameters())
    model.save_pretrained("model", max_shard_size=int(size * 0.8))
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained("model")
    damage(Path("model"))
    given = [
        "--model=model",
        "--data",
        str(folder / "text.txt"),
        "--budget=mac=0.5",
        "--output=out",
        *GIVEN,
        "--offload",
        *more,
    ]
    status, told = command("prune", "stat", *given)
    assert status == 2, told
    assert sentence in told
    assert "Traceback" not in told
    assert not Path("out").exists()
