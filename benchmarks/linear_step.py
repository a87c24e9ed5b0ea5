"""One training step of a linear layer with SPLoPA against `nn.Linear` that trains its weight and bias.

    python benchmarks/linear_step.py [--threads 2] [--repeats 40] [--naive-repeats 3]

Shapes 768→768 and 768→3072, 1,536 tokens, 64 prototypes of rank 1, blocks of 32 × 32, movement scores in training, CPU
fp32. A step is forward and backward (to the input as well); the optimizer's share is printed beside it, not counted,
because it favours the adapter. The layers take turns in one process, and medians are compared. For comparison:
an implementation that builds K Kronecker products and lets autograd do the rest.

Memory is what PyTorch's CPU allocator says: the profiler records every allocation and release (also those inside an
operation), and the peak of their running sum over one step counts, output and gradients included. "Extra" is this
peak less that of `nn.Linear`, in units of the weight's own size.

On a machine that is busy otherwise take ``--threads 1``: with more threads than free cores each operation waits for its
last thread, and the number of operations is measured instead of their work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from splora.adapters import SPLoPAConfig, attach_block_masks

TOKENS, BLOCK, PROTOTYPES = 1536, 32, 64
TIME_TARGET, MEMORY_TARGET = 1.15, 3.0


class NaiveSPLoPA(nn.Module):
    """x (M ⊙ (W0 + Σ_k P_k ⊗ c_k r_k))ᵀ + b, one Kronecker product after another, gradients by autograd."""

    def __init__(self, out: int, into: int) -> None:
        super().__init__()
        grid = (out // BLOCK, into // BLOCK)
        self.register_buffer("weight", torch.randn(out, into) / into**0.5)
        self.position_weights = nn.Parameter(torch.randn(PROTOTYPES, *grid))
        self.columns = nn.Parameter(torch.randn(PROTOTYPES, BLOCK, 1))
        self.rows = nn.Parameter(torch.randn(PROTOTYPES, 1, BLOCK))
        self.mask = nn.Parameter(torch.ones(grid))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        products = [
            torch.kron(p, c @ r) for p, c, r in zip(self.position_weights, self.columns, self.rows, strict=True)
        ]
        mask = self.mask.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        return nn.functional.linear(x, mask * (self.weight + torch.stack(products).sum(0)), self.bias)


def splopa(out: int, into: int) -> nn.Module:
    """The layer as a training run has it: own bias, movement masks that keep half of the blocks."""
    from peft import get_peft_model

    config = SPLoPAConfig(
        num_prototypes=PROTOTYPES, block_shape=(BLOCK, BLOCK), target_modules=["0"], bias="all", init_range=1e-2
    )
    model = get_peft_model(nn.Sequential(nn.Linear(into, out)), config)
    for mask in attach_block_masks(model, "topK", "uniform", 0.1):
        mask.set_threshold(0.5)
    return model.base_model.model[0]


def forget(layer: nn.Module, x: Tensor) -> None:
    x.grad = None
    layer.zero_grad()


def step(layer: nn.Module, x: Tensor, gradient: Tensor) -> None:
    forget(layer, x)
    layer(x).backward(gradient)


def peak_bytes(layer: nn.Module, x: Tensor, gradient: Tensor) -> int:
    """Peak of the running sum of what the CPU allocator gave out and took back during one step."""
    forget(layer, x)  # a release of what was there before would count as negative
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step(layer, x, gradient)
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak


def timed(action: Callable[[], None]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def optimizer_seconds(layer: nn.Module, x: Tensor, gradient: Tensor, repeats: int) -> float:
    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad])
    step(layer, x, gradient)
    optimizer.step()
    return statistics.median(timed(optimizer.step) for _ in range(repeats))


def compare(out: int, into: int, repeats: int, naive_repeats: int) -> None:
    x, gradient = torch.randn(TOKENS, into, requires_grad=True), torch.randn(TOKENS, out)
    layers = {
        "nn.Linear": nn.Linear(into, out),
        "SPLoPA": splopa(out, into),
        "K Kronecker products": NaiveSPLoPA(out, into),
    }
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for turn in range(repeats + 2):
        for name, layer in layers.items():
            if name == "K Kronecker products" and turn >= naive_repeats + 2:
                continue
            passed = timed(lambda layer=layer: step(layer, x, gradient))  # type: ignore[misc]
            if turn >= 2:  # the first two warm up
                seconds[name].append(passed)
    medians = {name: statistics.median(values) for name, values in seconds.items() if values}
    peaks = {name: peak_bytes(layer, x, gradient) for name, layer in layers.items()}
    weight_bytes = out * into * 4
    print(f"{into} → {out}, {TOKENS} tokens, {torch.get_num_threads()} threads, weight {weight_bytes / 2**20:.2f} MiB")
    for name in medians:
        ratio = medians[name] / medians["nn.Linear"]
        extra = (peaks[name] - peaks["nn.Linear"]) / weight_bytes
        print(
            f"  {name:<21} {medians[name] * 1e3:8.2f} ms  ratio {ratio:5.2f}   "
            f"peak {peaks[name] / 2**20:7.1f} MiB  extra {extra:6.2f} × weight"
        )
    ratio = medians["SPLoPA"] / medians["nn.Linear"]
    extra = (peaks["SPLoPA"] - peaks["nn.Linear"]) / weight_bytes
    print(f"  time   {ratio:.2f} × (target ≤ {TIME_TARGET} ×): {'reached' if ratio <= TIME_TARGET else 'missed'}")
    print(
        f"  memory {extra:.2f} × (target ≤ {MEMORY_TARGET:.0f} ×): {'reached' if extra <= MEMORY_TARGET else 'missed'}"
    )
    adam = {name: optimizer_seconds(layers[name], x, gradient, repeats) for name in ("nn.Linear", "SPLoPA")}
    whole = (medians["SPLoPA"] + adam["SPLoPA"]) / (medians["nn.Linear"] + adam["nn.Linear"])
    print(
        f"  with AdamW ({adam['nn.Linear'] * 1e3:.2f} ms for nn.Linear, {adam['SPLoPA'] * 1e3:.2f} ms for SPLoPA): "
        f"{whole:.2f} ×"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--naive-repeats", type=int, default=3)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for out in (768, 3072):
        compare(out, 768, options.repeats, options.naive_repeats)


if __name__ == "__main__":
    main()
