"""Cards say what was measured, and their code runs as it stands: on the very folder that holds them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from splora.adapters import registry
from splora.export import pruned_modeling, quantized_modeling
from splora.export.card import CARD, NEEDS, pruned_card, run_card, write_card
from splora.export.cut import cut
from splora.export.folder import save_pruned
from splora.export.pruned_modeling import REQUIRED_TRANSFORMERS
from splora.tasks.embedded.tokenizer import build_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TASKS = {
    "squad": ("BertForQuestionAnswering", {"f1": 71.25, "exact_match": 58.5}),
    "sst2": ("DistilBertForSequenceClassification", {"accuracy": 88.3}),
    "mnli": ("RobertaForSequenceClassification", {"accuracy": 80.0, "accuracy_mismatched": 79.5}),
    "wikitext2": ("OPTForCausalLM", {"perplexity": 31.4}),
}


def pruned_result(task: str, **changes: Any) -> dict[str, Any]:
    """What a pruning measured."""
    metrics = TASKS[task][1]
    result: dict[str, Any] = {
        "method": "stat",
        "model": "../models/mine|odd",
        "task": task,
        "stages": {"decompose": 1.0, "reconstruct": 2.0},
        "kl_divergence": {"decompose": 0.5, "reconstruct": 0.125},
        "metrics": {
            "dense": {name: value + 1 for name, value in metrics.items()},
            "decompose": dict.fromkeys(metrics, 0.0),
            "reconstruct": metrics,
        },
        "macs_kept": 0.4987,
        "macs_counted_at_tokens": 200,
        "heads_kept": [2, 0, 1],
        "neurons_kept": [4, 1, 0],
        "parameters": {"dense": 22_000_000, "pruned": 15_000_000},
        "seconds": 25.5,
        "samples": 512,
        "seed": 3,
        "precision": "fp32",
        "device": "cpu",
        "threads": 2,
        "versions": {"splora": "0.1.0", "transformers": "5.23.0", "peft": "0.21.2", "torch": "2.13"},
        "settings": {"data": "../data", "budget": "mac=0.5"},
        "latency_ms": {"dense": 100.25, "pruned": 52.5, "batch_size": 32, "tokens": 256},
        "bytes": {"dense": 45_400_000, "pruned": 34_800_000},
    }
    return result | changes


def run_result(task: str, adapter: str, **changes: Any) -> dict[str, Any]:
    """What a training measured."""
    result: dict[str, Any] = {
        "method": "topK",
        "adapter": adapter,
        "task": task,
        "metrics": TASKS[task][1],
        "remaining_weights_percent": 50.0,
        "learned_weights_percent": 3.5,
        "steps": 500,
        "seed": 92,
        "adapter_bytes": 1_500_000,
        "versions": {"splora": "0.1.0", "transformers": "5.23.0", "peft": "0.21.2", "torch": "2.13"},
        "settings": {
            "model": {"model_name_or_path": "bert-large-uncased"},
            "data": {"train_file": None, "predict_file": "embedded", "max_seq_length": 256},
        },
    }
    return result | changes


def front_matter(card: str) -> dict[str, Any]:
    """The fields at the head of a card."""
    return dict(yaml.safe_load(card.split("---\n")[1]))


def blocks(card: str, folder: Path) -> list[str]:
    """The code of a card, for its folder."""
    return [code.replace("path/to/this/folder", str(folder)) for code in re.findall(r"```python\n(.*?)```", card, re.S)]


def test_what_is_needed_is_what_the_project_needs() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, releases in NEEDS.items():
        assert f'"{name}{releases}"' in project


@pytest.mark.parametrize("task", list(TASKS))
def test_a_pruned_card_tells_the_result(task: str) -> None:
    card = pruned_card(pruned_result(task))
    for told in ("49.9 %", "mac=0.5", "512, 3", "100.2 ms", "52.5 ms", "45,400,000", "34,800,000", "15,000,000"):
        assert told in card
    for value in TASKS[task][1].values():
        assert f"| {value + 1:.2f} | {value:.2f} |" in card
    assert "| heads by layer |  | 2, 0, 1 |" in card
    assert NEEDS["transformers"] in card
    assert "transformers 5.23.0" in card
    assert ("splora predict" in card) == (task != "wikitext2")
    head = front_matter(card)
    assert head["library_name"] == "transformers"
    assert head["tags"] == ["splora", "pruned"]
    assert "base_model" not in head, "a path is no name of the hub"
    assert "datasets" not in head
    assert all(row.count("|") - row.count("\\|") == row.count(" | ") + 2 for row in card.splitlines() if row[:1] == "|")


def test_what_a_result_lacks_is_left_out() -> None:
    result = pruned_result("squad")
    card = pruned_card({name: value for name, value in result.items() if name not in ("bytes", "latency_ms")})
    assert "bytes" not in card
    assert "latency" not in card


def test_a_quantized_card_tells_the_result() -> None:
    result = pruned_result("squad", quantized=71.25, settings={"data": None, "bits": 4}, method="gptq")
    result["bytes"] = {"dense": 100, "quantized": 25}
    card = pruned_card({name: value for name, value in result.items() if name != "latency_ms"})
    assert "weights in 4 bits (gptq)" in card
    assert "| bytes of the weights | 100 | 25 |" in card
    assert "splora.load_quantized(" in card
    assert "`quantized_modeling.py`" in card
    assert front_matter(card)["datasets"] == ["rajpurkar/squad"]


@pytest.mark.parametrize("adapter", ["none", "splopa", "splora"])
@pytest.mark.parametrize("task", ["squad", "sst2", "mnli"])
def test_the_card_of_a_run_tells_the_result(task: str, adapter: str) -> None:
    card = run_card(run_result(task, adapter))
    for value in TASKS[task][1].values():
        assert f"| {value:.2f} |" in card
    for told in ("50.00 %", "3.50 %", "1,500,000", "the embedded corpus", "500, 92"):
        assert told in card
    head = front_matter(card)
    assert head["base_model"] == "bert-large-uncased"
    assert head["library_name"] == ("transformers" if adapter == "none" else "peft")
    assert (f"KeyError: '{adapter.upper()}'" in card) == (adapter != "none")
    assert ("splora.load_adapter(" in card) == (adapter != "none")
    assert (NEEDS["peft"] in card) == (adapter != "none")


@pytest.mark.parametrize("task", list(TASKS))
def test_the_code_of_a_pruned_card_runs(task: str, mixed: Any, tiny: Any, outputs: Any, tmp_path: Path) -> None:
    smaller = cut(tiny(TASKS[task][0]), mixed)
    save_pruned(smaller, build_tokenizer(), tmp_path / "model")
    card = pruned_card(pruned_result(task))
    write_card(tmp_path / "model", card)
    own, stock = blocks((tmp_path / "model" / CARD).read_text(encoding="utf-8"), tmp_path / "model")
    for code in (own, stock):
        names: dict[str, Any] = {}
        exec(code, names)
        assert torch.equal(outputs(names["model"].eval()), outputs(smaller))
    assert names["tokenizer"]("a").input_ids


def adapted(task: str, adapter: str, base: Path) -> Any:
    """A network with an adapter and masks, all of it moved by a random step."""
    from splora.masks import masked_layers
    from splora.training.model import load_base, prepare
    from splora.training.options import AdapterOptions, PruningOptions

    labels = {"sst2": {"negative": 0, "positive": 1}, "mnli": {"neutral": 0, "contradiction": 1, "entailment": 2}}
    network, masks = prepare(
        load_base(str(base), task, label2id=labels.get(task)),
        AdapterOptions(kind=adapter, num_prototypes=3, rank=2, init_range=0.1),
        PruningOptions("topK", "uniform", 1.0, attention_block=(8, 8), ffn_block=(8, 8)),
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    for mask in masks:
        mask.set_threshold(0.5)
    assert masked_layers(network)
    return network.eval()


@torch.no_grad()
def logits(model: nn.Module, tokenizer: Any) -> Tensor:
    """What a model says of a pair, with all that its tokenizer makes."""
    inputs = tokenizer("Which river is long?", "The first river is long and cold.", return_tensors="pt")
    assert inputs["token_type_ids"].any()
    found = model(**inputs)
    return found.logits if "logits" in found else torch.stack([found.start_logits, found.end_logits])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder with the embedded vocabulary."""
    from transformers import BertModel

    from splora.tasks.embedded.model import embedded_config

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(embedded_config(**sizes)).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("adapter", ["splopa", "splora"])
@pytest.mark.parametrize("task", ["squad", "sst2", "mnli"])
def test_a_saved_adapter_is_whole_and_the_code_of_its_card_runs(
    task: str, adapter: str, encoder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    import splora
    from splora.training.saving import save_trained

    network, tokenizer = adapted(task, adapter, encoder), build_tokenizer()
    result = run_result(task, adapter)
    result["settings"]["model"]["model_name_or_path"] = str(encoder)
    saved = save_trained(network, tokenizer, tmp_path, result)
    folder = tmp_path / "adapter"
    assert saved == result["adapter_bytes"] == (folder / "adapter_model.safetensors").stat().st_size
    assert "load_adapter" in json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["note"]
    wanted = logits(network, tokenizer)
    for where in (folder, tmp_path):
        torch.testing.assert_close(logits(splora.load_adapter(where), tokenizer), wanted, rtol=0, atol=0)
    own, plain = blocks((folder / CARD).read_text(encoding="utf-8"), folder)
    names: dict[str, Any] = {}
    exec(own, names)
    torch.testing.assert_close(logits(names["model"], names["tokenizer"]), wanted, rtol=0, atol=0)
    assert names["model"].config.id2label == network.config.id2label
    exec(plain, names)
    torch.testing.assert_close(logits(names["stock"].eval(), AutoTokenizer.from_pretrained(folder)), wanted)
    # A folder of PEFT alone, as one's own training saves it: the classes are those of the head, without names.
    (folder / "config.json").unlink()
    bare = splora.load_adapter(folder)
    torch.testing.assert_close(logits(bare, tokenizer), wanted, rtol=0, atol=0)


@pytest.mark.slow
def test_an_adapter_loads_in_a_process_that_never_imported_splora(encoder: Path, tmp_path: Path) -> None:
    from splora.training.saving import save_trained

    network, tokenizer = adapted("squad", "splopa", encoder), build_tokenizer()
    result = run_result("squad", "splopa")
    result["settings"]["model"]["model_name_or_path"] = str(encoder)
    save_trained(network, tokenizer, tmp_path, result)
    card = (tmp_path / "adapter" / CARD).read_text(encoding="utf-8")
    own, plain = blocks(card, tmp_path / "adapter")
    say = "print(model(**tokenizer('Which river?', 'The first.', return_tensors='pt')).start_logits.tolist())\n"
    bare = "from peft import PeftConfig\ntry:\n    PeftConfig.from_pretrained(FOLDER)\nexcept KeyError as e: print(e)\n"
    code = f"import sys\nFOLDER = {str(tmp_path / 'adapter')!r}\n{bare}assert 'splora' not in sys.modules\n{own}\n{say}"
    code += f"{plain}\nmodel.eval()\n{say}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    error, first, second = done.stdout.splitlines()
    assert f"KeyError: {error}" in card
    with torch.no_grad():
        wanted = network(**tokenizer("Which river?", "The first.", return_tensors="pt")).start_logits
    torch.testing.assert_close(torch.tensor(json.loads(first)), wanted)
    torch.testing.assert_close(torch.tensor(json.loads(second)), wanted)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("base", "there is no such folder"),
        ("settings", "adapter_config.json: is not JSON"),
        ("list", "adapter_config.json: holds no JSON object"),
        ("weights", "adapter_model.safetensors: cannot be read"),
        ("nothing", "holds no adapter"),
        ("missing", "there is no such folder"),
        ("nameless", "names no base model"),
    ],
)
def test_what_cannot_be_loaded_ends_in_a_sentence(damage: str, told: str, encoder: Path, tmp_path: Path) -> None:
    import splora
    from splora.errors import InputError
    from splora.training.saving import save_trained

    result = run_result("sst2", "splora")
    save_trained(adapted("sst2", "splora", encoder), build_tokenizer(), tmp_path, result)
    folder = tmp_path / "adapter"
    settings = folder / "adapter_config.json"
    if damage in ("base", "nameless"):
        written = json.loads(settings.read_text(encoding="utf-8"))
        written["base_model_name_or_path"] = "./gone" if damage == "base" else None
        settings.write_text(json.dumps(written), encoding="utf-8")
    elif damage == "weights":
        (folder / "adapter_model.safetensors").write_bytes(b"0" * 20)
    elif damage in ("settings", "list"):
        settings.write_text("{" if damage == "settings" else "[]", encoding="utf-8")
    elif damage == "nothing":
        settings.unlink()
    else:
        folder = tmp_path / "none"
    with pytest.raises(InputError, match=re.escape(told)) as refused:
        splora.load_adapter(folder)
    assert len(refused.value.problems) == 1


def test_a_base_named_by_a_path_is_found_from_anywhere(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    import splora
    from splora.training.saving import save_trained

    shutil.copytree(encoder, tmp_path / "runs" / "base")
    monkeypatch.chdir(tmp_path)
    network = adapted("squad", "splora", Path("runs/base"))
    save_trained(network, build_tokenizer(), Path("runs/mine"), run_result("squad", "splora"))
    monkeypatch.chdir("/")
    found = splora.load_adapter(tmp_path / "runs" / "mine")
    torch.testing.assert_close(logits(found, build_tokenizer()), logits(network, build_tokenizer()), rtol=0, atol=0)
    other = splora.load_adapter(tmp_path / "runs" / "mine" / "adapter", base=encoder)
    torch.testing.assert_close(logits(other, build_tokenizer()), logits(network, build_tokenizer()), rtol=0, atol=0)


def test_limits_of_versions_are_those_that_the_package_is_installed_with(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, limits in NEEDS.items():
        assert f"{name}{limits}" in project["dependencies"]
    assert f"'peft{NEEDS['peft']}'" in Path(registry.__file__).read_text(encoding="utf-8")
    least = NEEDS["transformers"].partition(",")[0]
    assert least == f">={REQUIRED_TRANSFORMERS}"
    for module in (pruned_modeling, quantized_modeling):
        assert f"transformers {least.replace('>=', '>= ')}" in " ".join(str(module.__doc__).split())
