"""Model cards: the README.md of the folder of an adapter or of a trained, pruned or quantized model, from its result.

What is said there was measured: scores, density, MACs, bytes, latency, versions. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from splora.files import write_text
from splora.model_sizes import is_cut_folder
from splora.tasks.registry import REGISTRY
from splora.tasks.source_names import is_hub_model
from splora.tasks.sources import auto_model

CARD = "README.md"
#: Releases that folders are read by, as in `pyproject.toml`.
NEEDS = {"transformers": ">=5.15,<6", "peft": ">=0.21,<0.22"}

Rows = Sequence[Sequence[object]]


def write_card(folder: Path, card: str) -> None:
    """Put a card into a model's folder, in place of what a library wrote there."""
    write_text(folder / CARD, card)


def run_card(result: Mapping[str, Any], *, served: bool = False) -> str:
    """The card of what a training run leaves: its adapter, or the model that is served."""
    model, data = result["settings"]["model"], result["settings"].get("data") or {}
    task, base, adapter = result["task"], model["model_name_or_path"], result["adapter"]
    adapted = adapter != "none" and not served
    how = f"pruned by {result['method']}" if result["method"] != "none" else "not pruned"
    what = f"{'an adapter' if adapted else 'a model'} for {task}, {how}"
    rows: list[Sequence[object]] = [(_metric(name), _number(value)) for name, value in result["metrics"].items()]
    rows += [
        ("remaining encoder weights", f"{result['remaining_weights_percent']:.2f} %"),
        ("learned weights, over those of the encoder", f"{result['learned_weights_percent']:.2f} %"),
    ]
    # Without an adapter the first is that of the model, and in results of before the only one.
    if size := result.get("adapter_bytes") if adapted or adapter == "none" else result.get("model_bytes"):
        rows.append((f"bytes of the {'adapter' if adapted else 'model'}", f"{size:,}"))
    rows += [] if adapted else _served(result)
    made = [
        ("base model", _code(base)),
        ("method, adapter", f"{_code(result['method'])}, {_code(adapter)}"),
        ("training data", _source(data.get("train_file"), task)),
        ("evaluation data", _source(data.get("predict_file"), task)),
        ("tokens per window or example", data.get("max_seq_length", "")),
        ("steps, seed", f"{result.get('steps', '')}, {result['seed']}"),
    ]
    smaller = result.get("macs_kept", 1) < 1
    load = _load_smaller(task, quantized=False) if smaller else _load_model(task)
    first = (model.get("prune_first") or {}).get("method", "none")
    if adapted:
        load = _load_adapter(task, base, adapter, stock=first == "none" and not is_cut_folder(base))
    tags = ["splora", adapter if adapted else "pruned"]
    return _card(
        header=_front_matter(task, base, tags, "peft" if adapted else "transformers", data.get("train_file")),
        title=what[0].upper() + what[1:],
        intro=f"Trained by splora from {_code(base)}.",
        sections=[
            ("Measured", _table(("", "on the evaluation data"), rows)),
            ("Load", load),
            ("Made with", _table(("", ""), [*made, *_versions(result)])),
        ],
    )


def pruned_card(result: Mapping[str, Any]) -> str:
    """The card of a pruned, healed or quantized model."""
    settings, task, base = result["settings"], result["task"], result["model"]
    quantized, healed = "quantized" in result, result["method"] == "heal"
    after = "quantized" if quantized else "pruned"
    if quantized:
        title = f"{_name(base)}, weights in {settings['bits']} bits ({result['method']})"
    elif healed:
        title = f"{_name(base)}, healed, {100 * result['macs_kept']:.1f} % of the dense model's MACs"
    else:
        title = f"{_name(base)}, pruned to {100 * result['macs_kept']:.1f} % of its MACs ({result['method']})"
    command = "splora quantize" if quantized else "splora heal" if healed else f"splora prune {result['method']}"
    asked = f"{settings['bits']} bits" if quantized else _code(settings.get("budget", result.get("adapter")))
    made = [
        ("pruned model, dense teacher", f"{_code(base)}, {_code(result['teacher'])}")
        if healed
        else ("dense model", _code(base)),
        ("task, data", f"{_code(task)}, {_source(settings.get('data'), task)}"),
        ("adapter, steps", f"{asked}, {result['steps']:,}") if healed else ("asked for", asked),
        ("training rows, seed" if healed else "calibration samples, seed", f"{result['samples']:,}, {result['seed']}"),
        ("seconds", _number(result["seconds"])),
        ("precision, device, threads", ", ".join(str(result.get(k, "")) for k in ("precision", "device", "threads"))),
    ]
    return _card(
        header=_front_matter(task, base, ["splora", after], "transformers", settings.get("data")),
        title=title,
        intro=f"Made by splora (`{command}`) from {_code(base)}{'' if healed else ', without training'}.",
        sections=[
            ("Measured", _table(("", "dense", after), _compared(result, after))),
            ("Load", _load_smaller(task, quantized)),
            ("Made with", _table(("", ""), [*made, *_versions(result)])),
        ],
    )


def _served(result: Mapping[str, Any]) -> Rows:
    """What a trained model costs where it is served."""
    rows: list[Sequence[object]] = []
    if "macs_kept" in result:
        rows.append((f"MACs kept, at {result['macs_counted_at_tokens']} tokens", f"{100 * result['macs_kept']:.1f} %"))
        rows.append(("zeros among the weights that stay", f"{result['zeros_percent']:.2f} %"))
    if latency := result.get("latency_ms"):
        told = f"{latency['pruned']:.1f} ms, dense {latency['dense']:.1f} ms"
        rows.append((f"latency of {latency['batch_size']} × {latency['tokens']} tokens", told))
    return rows


def _compared(result: Mapping[str, Any], after: str) -> Rows:
    """Dense and smaller model side by side."""
    last = list(result["stages"])[-1]
    dense, smaller = result["metrics"]["dense"], result["metrics"][last]
    rows: list[Sequence[object]] = [
        (_metric(name), _number(value), _number(smaller.get(name))) for name, value in dense.items()
    ]
    rows.append(("divergence of predictions (KL)", "0", f"{result['kl_divergence'][last]:.4f}"))
    rows.append((f"MACs, at {result['macs_counted_at_tokens']} tokens", "100 %", f"{100 * result['macs_kept']:.1f} %"))
    parameters = result["parameters"]
    rows.append(("parameters", f"{parameters['dense']:,}", f"{parameters['pruned']:,}"))
    if sizes := result.get("bytes"):
        rows.append(("bytes of the weights", f"{sizes['dense']:,}", f"{sizes[after]:,}"))
    if latency := result.get("latency_ms"):
        shape = f"{latency['batch_size']} × {latency['tokens']} tokens"
        rows.append((f"latency of {shape}", *(f"{latency[name]:.1f} ms" for name in ("dense", "pruned"))))
    if after == "pruned":
        rows.append(("heads by layer", "", ", ".join(map(str, result["heads_kept"]))))
        rows.append(("neurons by layer", "", ", ".join(map(str, result["neurons_kept"]))))
    return rows


def _load_smaller(task: str, quantized: bool) -> str:
    load = "load_quantized" if quantized else "load_pruned"
    kind, code = auto_model(task), "`quantized_modeling.py`" if quantized else "`pruned_modeling.py`"
    return f"""With splora (no code of this folder is run):

```python
import splora

model = splora.{load}("path/to/this/folder")
```

Without it, by stock transformers {NEEDS["transformers"]} (older releases know no layers of different sizes). The remote
code is {code} of this folder, which needs torch and transformers alone:

```python
from transformers import {kind}, AutoTokenizer

model = {kind}.from_pretrained("path/to/this/folder", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

Pass on everything that the tokenizer makes, `token_type_ids` too: `model(**tokenizer(…, return_tensors="pt"))`.
{_predict(task)}"""


def _load_model(task: str) -> str:
    kind = auto_model(task)
    return f"""A plain checkpoint of transformers (pruned blocks are exactly zero):

```python
from transformers import {kind}, AutoTokenizer

model = {kind}.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```
{_predict(task)}"""


def _load_adapter(task: str, base: str, kind: str, *, stock: bool = True) -> str:
    """How an adapter is loaded; PEFT knows its own LoRA, and ours by an import.

    Args:
        stock: whether its base is a model as transformers has it, not one that was pruned before.
    """
    known = kind == "lora"
    auto, kind = auto_model(task), kind.upper()
    made = "splora makes the base model itself" if stock else "the base model was pruned before this was trained"
    made += "; `splora.load_adapter` knows how"
    fetched = f"base = {auto}.from_pretrained({base!r}, config=config)"
    return f"""With splora installed:

```python
import splora
from transformers import AutoTokenizer

model = splora.load_adapter("path/to/this/folder")  # base="…" where the base model lies elsewhere
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

{_by_peft(kind, known)}

```python
{"" if known else f"import splora.adapters  # before PeftModel.from_pretrained, else KeyError: '{kind}'{chr(10)}"}\
from peft import PeftModel
from transformers import AutoConfig, {auto}

config = AutoConfig.from_pretrained("path/to/this/folder")  # the base model's, with this task's labels
{f"base = ...  # {made}" if base == "embedded" or not stock else fetched}
model = PeftModel.from_pretrained(base, "path/to/this/folder")
stock = model.merge_and_unload()  # a plain model of transformers, pruned blocks zero; saved, it needs neither
```

Pass on everything that the tokenizer makes, `token_type_ids` too: `model(**tokenizer(…, return_tensors="pt"))`.
{_predict(task)}"""


def _by_peft(kind: str, known: bool) -> str:
    if known:
        return f"PEFT {NEEDS['peft']} loads the folder by itself."
    return (
        f"PEFT {NEEDS['peft']} loads the folder by itself once `splora.adapters` is imported, which makes {kind} known "
        f"to it.\nWithout that import it ends in **`KeyError: '{kind}'`**: PEFT has no other way to learn of a method."
    )


def _predict(task: str) -> str:
    found = REGISTRY[task]
    if not found.trained:
        return ""
    return (
        f"\n{found.title.capitalize()} of your own, without labels: `splora predict path/to/this/folder --input "
        f"{found.input}`."
    )


def _card(header: str, title: str, intro: str, sections: Iterable[tuple[str, str]]) -> str:
    body = "\n\n".join(f"## {heading}\n\n{text.strip()}" for heading, text in sections)
    return f"{header}\n# {title}\n\n{intro}\n\n{body}\n"


def _front_matter(task: str, base: str, tags: Sequence[str], library: str, train_file: object) -> str:
    import yaml

    fields: dict[str, Any] = {"library_name": library, "pipeline_tag": REGISTRY[task].pipeline, "tags": [*tags]}
    if is_hub_model(base):
        fields["base_model"] = base
    on_hub = REGISTRY[task].hub
    if train_file is None and REGISTRY[task].trained and on_hub is not None:
        fields["datasets"] = [on_hub[0]]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [[_cell(value) for value in row] for row in rows]
    marks = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), marks, *cells])


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _code(value: object) -> str:
    return "`" + " ".join(str(value).replace("`", "'").split()) + "`"


def _source(given: object, task: str) -> str:
    if given is None:
        return f"{task} of the hub"
    return "the embedded corpus" if given == "embedded" else _code(given)


def _name(model: str) -> str:
    return Path(model).name or model


def _metric(name: str) -> str:
    return {"f1": "F1", "exact_match": "exact match"}.get(name, name.replace("_", " "))


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)


def _versions(result: Mapping[str, Any]) -> Rows:
    shown = ("splora", "transformers", "peft", "torch")
    versions = result.get("versions") or {}
    return [("versions", ", ".join(f"{name} {versions[name]}" for name in shown if name in versions))]
