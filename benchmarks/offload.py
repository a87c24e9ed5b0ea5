"""Peak memory of `splora prune stat --offload` on layers of Llama-2-7B's shapes, with random weights in bf16 files.

    python benchmarks/offload.py --windows 2 4
    python benchmarks/offload.py --hidden 1024 --heads 8 --neurons 2752 --windows 4 16
    python benchmarks/offload.py --computed

The whole command runs in a process of its own for each number of calibration windows: load, evaluate, prune, evaluate
each stage, write. Its peak is that of all its resident pages, those of files too (VmHWM, as `ru_maxrss`), by what was
done; less what it holds when libraries are loaded and one pass has been made, and over the fp32 bytes of one layer's
weights, which have to be there. The vocabulary is small so that layers decide. `--computed` adds up what Llama-2-7B
needs at 128 windows of 2,048 tokens, in memory and on disk; nothing is run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GIB = 2**30


def main() -> None:
    """Measure each number of windows, or compute."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--neurons", type=int, default=11008)
    parser.add_argument("--vocabulary", type=int, default=1000)
    parser.add_argument("--windows", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--tokens", type=int, default=2048, help="per window")
    parser.add_argument("--budget", type=float, default=0.7)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--exact-paper", action="store_true")
    parser.add_argument("--computed", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        measure(options)
        return
    if options.computed:
        print(computed(options))
        return
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), options)
        for windows in options.windows:
            given = [sys.executable, __file__, *sys.argv[1:], "--windows", str(windows), "--folder", place]
            subprocess.run(given, check=True)


def layer_shapes(options: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Of the weights of one layer, by their names below it."""
    square, wide = (options.hidden, options.hidden), (options.neurons, options.hidden)
    return {
        **{f"self_attn.{name}_proj.weight": square for name in "qkvo"},
        **{f"mlp.{name}_proj.weight": wide for name in ("gate", "up")},
        "mlp.down_proj.weight": wide[::-1],
        "input_layernorm.weight": square[:1],
        "post_attention_layernorm.weight": square[:1],
    }


def layer_bytes(options: argparse.Namespace) -> int:
    """Of the weights of one layer in fp32."""
    sizes = layer_shapes(options).values()
    return 4 * sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in sizes)


def write(folder: Path, options: argparse.Namespace) -> None:
    """A random model in bf16, one file after another, with a tokenizer and a text of two windows."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    from splora.tasks.byte_pairs import train_tokenizer
    from splora.tasks.text_sources import read_text

    torch.manual_seed(0)
    text = read_text("embedded", "wikitext2", "train")
    tokenizer = train_tokenizer([text], options.vocabulary, options.tokens)
    tokenizer.save_pretrained(folder)
    ids = tokenizer(text)["input_ids"][: 2 * options.tokens + 64]
    (folder / "text.txt").write_text(tokenizer.decode(ids), encoding="utf-8")
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.neurons,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        max_position_embeddings=options.tokens,
        pad_token_id=0,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    words = {"model.embed_tokens.weight": (options.vocabulary, options.hidden), "model.norm.weight": (options.hidden,)}
    files: list[dict[str, tuple[int, ...]]] = [{**words, "lm_head.weight": (options.vocabulary, options.hidden)}]
    for number in range(options.layers):
        files.append({f"model.layers.{number}.{name}": shape for name, shape in layer_shapes(options).items()})
    listed = {}
    for number, shapes in enumerate(files, 1):
        part = f"model-{number:05}-of-{len(files):05}.safetensors"
        tensors = {
            name: (0.02 * torch.randn(shape) if len(shape) > 1 else torch.ones(shape)).bfloat16()
            for name, shape in shapes.items()
        }
        save_file(tensors, folder / part, metadata={"format": "pt"})
        listed |= dict.fromkeys(shapes, part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}), encoding="utf-8")


def measure(options: argparse.Namespace) -> None:
    """Prune once, and print the peak."""
    import torch

    from splora.posttraining.core.budget import Budget
    from splora.posttraining.core.request import PruneRequest
    from splora.posttraining.pipeline import prune
    from splora.quiet import quiet_libraries

    quiet_libraries()
    folder, (windows,) = options.folder, options.windows
    request = PruneRequest(
        method="stat",
        model=str(folder),
        task="wikitext2",
        data=str(folder / "text.txt"),
        budget=Budget("mac", options.budget),
        output=folder / f"out-{windows}",
        samples=windows,
        precision=options.precision,
        device="cpu",
        offload=True,
        choices={"exact_paper": options.exact_paper},
    )
    torch.randn(64, 64) @ torch.randn(64, 64)
    peaks: dict[str, tuple[int, str]] = {}
    now, base = ["start", ""], 0

    def report(stage: str, item: str, _: float) -> None:
        nonlocal base
        most = peak()
        peaks[now[0]] = max(peaks.get(now[0], (0, "")), (most, now[1]))
        if now[0] == "load" and stage != "load":
            base = resident()
        now[:] = stage, item

    begin = time.perf_counter()
    result: dict[str, Any] = prune(request, report)
    report("end", "", 1.0)
    layer, most = layer_bytes(options), max(value for value, _ in peaks.values())
    print(f"{windows} windows of {options.tokens:,} tokens, {time.perf_counter() - begin:,.0f} s in all, GiB:")
    for stage, (value, item) in peaks.items():
        print(f"  {stage:24} {value / GIB:6.2f}  {item}")
    print(
        f"  peak {most / GIB:.2f}, of which {base / GIB:.2f} were there before and {layer / GIB:.2f} are one layer in "
        f"fp32: {(most - base - layer) / GIB:.2f} over one layer's weights; perplexity {result['dense']:.0f}, pruned "
        f"{result['pruned']:.0f}; seconds {result['seconds_of']}",
        flush=True,
    )


def peak() -> int:
    """The most resident bytes since this was asked last."""
    found = _status("VmHWM")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return found


def resident() -> int:
    """Resident bytes now, those of mapped files too."""
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def computed(options: argparse.Namespace) -> str:
    """What one layer, and a model of 32, needs at 128 windows of 2,048 tokens."""
    hidden, neurons, layers, words = options.hidden, options.neurons, 32, 32000
    heads_gram, neurons_gram = 8 * hidden**2, 8 * neurons**2
    tokens, batch, sample = 128 * 2048, 4096, 8192
    changed = 4 * hidden * (hidden + neurons) * options.budget
    memory = {
        "one layer's weights, fp32": layer_bytes(options),
        "  the same in its file, bf16": layer_bytes(options) // 2,
        "Gram matrix of heads, float64": heads_gram,
        "Gram matrix of neurons, float64": neurons_gram,
        "elimination: inverse and its copies, fp32": 2 * neurons_gram // 2,
        "reconstruction: Gram matrices of both halves": 2 * neurons_gram,
        "  cross products of both halves, float64": 2 * 8 * hidden * neurons,
        "  systems of both halves and a factor, fp32": 3 * neurons_gram // 2,
        "  one copy in float64": neurons_gram,
        "activations of a batch of 4,096 tokens, fp32": 4 * batch * (2 * hidden + 3 * neurons),
        "embeddings and head, fp32, outside of layers": 2 * 4 * words * hidden,
    }
    disk = {
        "hidden states, dense and pruned": 2 * 4 * tokens * hidden,
        "Gram matrices of all layers, packed": layers * (heads_gram + neurons_gram) * 7 // 24,
        "sensitivities of all layers, float64": layers * 2 * heads_gram,
        "  hidden states and gradients for them": 4 * sample * hidden * (layers + 2),
        "projections that were solved, twice, fp32": round(layers * 2 * changed),
        "the result, bf16": round(layers * layer_bytes(options) / 2 * options.budget) + 2 * 2 * words * hidden,
    }
    lines = [f"{name:48} {value / GIB:6.2f} GiB" for name, value in memory.items()]
    lines += [f"on disk, {name:39} {value / GIB:6.2f} GiB" for name, value in disk.items()]
    return "\n".join([*lines, f"{'on disk, sum':48} {sum(disk.values()) / GIB:6.2f} GiB"])


if __name__ == "__main__":
    main()
