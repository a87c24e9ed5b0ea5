"""A finished run becomes the folder of the model that is served: merged, and without what its masks emptied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.adapter_files import ADAPTER
from splora.errors import InputError
from splora.export.card import run_card, write_card
from splora.export.dense import is_cut
from splora.export.folder import WEIGHTS
from splora.export.zeros import Cut, cut_zeros, fullness
from splora.files import refuse_link, replacing_folder, write_json
from splora.json_values import table, text, whole
from splora.tasks import hub
from splora.tasks.model_inputs import positions
from splora.training.result_file import RESULT, read_result
from splora.training.saving import MODEL, load_run
from splora.training.serving import describe, measure_latency, merged

#: Rows and tokens of the random batch by which the smaller model is compared with the merged one.
COMPARED = (8, 64)
#: Layers that a sentence speaks of.
_SHOWN = 12


def export(run: Path, output: Path, *, force: bool = False) -> dict[str, Any]:
    """Write the model of a finished run, as small as its masks allow; returns the result, which is also written.

    Raises:
        InputError: there is no finished run, its masks empty nothing, or the output folder holds something else.
    """
    result = read_result(run)
    if output.resolve() == run.resolve() or output.resolve().is_relative_to(run.resolve()):
        raise InputError(f"--output: {output} lies in the run's own folder; give another one.")
    _check_free(output, force)
    whole_model = merged(load_run(run))
    served = cut_zeros(whole_model)
    if not served.is_smaller and not is_cut(whole_model):
        raise InputError(_nothing_empty(run, whole_model))
    tokens = whole(result.get("macs_counted_at_tokens")) or 128
    found = {
        **{name: value for name, value in result.items() if name not in ("artifacts", "adapter_bytes", "model_bytes")},
        "exported_from": str(run),
        **describe(served, tokens),
        "latency_ms": measure_latency(served.model),
        "largest_difference": largest_difference(whole_model, served.model),
    }
    _save(run, output, served, found)
    return found


@torch.inference_mode()
def largest_difference(one: nn.Module, other: nn.Module, seed: int = 0) -> float:
    """The largest difference of two models' logits on one batch of random tokens, padded on the right."""
    config = anatomy.config_of(one)
    rows, tokens = COMPARED[0], min(COMPARED[1], positions(config) or COMPARED[1])
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(int(config.vocab_size), (rows, tokens), generator=generator)
    keep = torch.arange(tokens) < torch.randint(1, tokens + 1, (rows, 1), generator=generator)
    pad = config.pad_token_id or 0
    inputs = {"input_ids": ids.masked_fill(~keep, pad), "attention_mask": keep.long()}
    first, second = (_logits(model.eval()(**inputs)) for model in (one, other))
    differences = (first - second).abs()
    return float((differences[keep] if differences.shape[:2] == keep.shape else differences).max())


def _logits(outputs: Any) -> Tensor:
    found: Tensor = (
        outputs["logits"] if "logits" in outputs else torch.stack([outputs.start_logits, outputs.end_logits], -1)
    )
    return found


def _nothing_empty(run: Path, model: nn.Module) -> str:
    """How much each layer lacks of losing a head or a neuron."""
    lacking = [
        f"layer {number}: {100 * heads:.0f} % and {100 * neurons:.0f} %"
        for number, (heads, neurons) in enumerate(fullness(layer) for layer in anatomy.layers(model))
    ]
    more = f", and {len(lacking) - _SHOWN} more layers" if len(lacking) > _SHOWN else ""
    return (
        f"{run}: its masks empty no head and no neuron, so that nothing can be cut; of their weights the emptiest head "
        f"and the emptiest neuron still have, {'; '.join(lacking[:_SHOWN])}{more}. Rows with pruning_units "
        f"heads_and_neurons or hybrid can be cut; {run / MODEL} is the merged model with its zeros."
    )


def _check_free(output: Path, force: bool) -> None:
    refuse_link(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output: {output} is a file; give a folder.")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / RESULT).is_file() or not (output / WEIGHTS).is_file():
        raise InputError(f"--output: {output} holds other files; give a new or empty folder.")
    if not force:
        raise InputError(f"--output: {output} holds another result; give another folder, or --force to replace it.")


def _save(run: Path, output: Path, served: Cut, result: dict[str, Any]) -> None:
    bare: Any = served.model
    settings = table(table(result.get("settings")).get("model"))
    source = next((part for part in (run / MODEL, run / ADAPTER) if part.is_dir()), None)
    tokenizer = hub.load_tokenizer(str(source) if source is not None else text(settings.get("model_name_or_path")))
    with replacing_folder(output) as beside:
        bare.save_pretrained(str(beside))
        tokenizer.save_pretrained(str(beside))
        result["model_bytes"] = (beside / WEIGHTS).stat().st_size
        if served.is_smaller:
            served.plan.save(beside, served.whole)
        write_card(beside, run_card(result, served=True))
        write_json(beside / RESULT, result)
