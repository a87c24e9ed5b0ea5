"""A whole BERT-base-shaped training step: SPLoPA with movement masks against plain full fine-tuning, both with AdamW.

    python benchmarks/bert_step.py [--repeats 3] [--threads 2] [--device cpu] [--precision fp32|bf16] [--layers 12]
        [--units blocks|heads_and_neurons]

Batch 8 × 384 tokens, random weights, scaled-dot-product attention, dropout 0, question answering. SPLoPA: all 72
linears of the encoder, 64 shared prototypes of rank 1, blocks of 32 × 32, topK masks at half density, learned scores,
trained biases and LayerNorms. A step is forward, backward and optimizer. The two models take turns in one process, and
medians are compared.

Memory is everything a step needs at its peak: weights, gradients, optimizer states, activations. On a CPU, weights and
optimizer states are summed from the tensors themselves, and a step's own peak above them is the peak of the running sum
of the allocator's events that PyTorch's profiler records; on CUDA it is `torch.cuda.max_memory_allocated`, measured for
each model with the other one on the CPU.

On a machine that is busy otherwise take ``--threads 1``: with more threads than free cores each operation waits for its
last thread, and the number of operations is measured instead of their work.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertForQuestionAnswering

from splora.adapters import SPLoPAConfig, attach_block_masks

BATCH, TOKENS, BLOCK, PROTOTYPES = 8, 384, 32, 64
#: By what masks lie over: time and memory.
TARGETS = {"blocks": (1.15, 0.8), "heads_and_neurons": (1.05, 0.75)}


class Trainee:
    """A model, its optimizer and its step."""

    def __init__(self, model: nn.Module, device: str, precision: str) -> None:
        self.model = model.to(device).train()
        self.device, self.precision = device, precision
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-5)

    def step(self, batch: dict[str, Tensor]) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()

    def seconds(self, batch: dict[str, Tensor]) -> float:
        begin = time.perf_counter()
        self.step(batch)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def resident_bytes(self) -> int:
        """Weights, buffers and optimizer states."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.model.parameters(), *self.model.buffers(), *(s for s in states if isinstance(s, Tensor))]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def move(self, device: str) -> None:
        self.optimizer.zero_grad()
        self.model.to(device)
        for state in self.optimizer.state.values():
            state.update({key: v.to(device) for key, v in state.items() if isinstance(v, Tensor) and v.dim() > 0})

    def peak_bytes(self, batch: dict[str, Tensor]) -> int:
        self.optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.step(batch)
            return torch.cuda.max_memory_allocated()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            self.step(batch)
        events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
        running = peak = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            running += event.nbytes()
            peak = max(peak, running)
        return self.resident_bytes() + peak


def bert(layers: int) -> BertForQuestionAnswering:
    config = BertConfig(num_hidden_layers=layers, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config._attn_implementation = "sdpa"
    return BertForQuestionAnswering(config)


def pruned_and_adapted(layers: int, units: str) -> nn.Module:
    if units != "blocks":
        from splora.training.model import prepare
        from splora.training.options import AdapterOptions, PruningOptions

        adapter = AdapterOptions(kind="splopa", num_prototypes=PROTOTYPES, prototype_rank=1)
        network, masks = prepare(bert(layers), adapter, PruningOptions(method="topK", units=units))
        for mask in masks:
            mask.set_threshold(0.5)
        return network
    from peft import get_peft_model

    config = SPLoPAConfig(
        num_prototypes=PROTOTYPES,
        block_shape=(BLOCK, BLOCK),
        target_modules=["query", "key", "value", "dense"],
        modules_to_save=["LayerNorm"],
        bias="all",
        task_type="QUESTION_ANS",
    )
    model = get_peft_model(bert(layers), config)
    for mask in attach_block_masks(model, "topK", "constant", 0.0):
        mask.set_threshold(0.5)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--units", default="blocks", choices=tuple(TARGETS))
    options = parser.parse_args()
    time_target, memory_target = TARGETS[options.units]
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    batch = {
        "input_ids": torch.randint(0, 30000, (BATCH, TOKENS), device=options.device),
        "start_positions": torch.randint(0, TOKENS, (BATCH,), device=options.device),
        "end_positions": torch.randint(0, TOKENS, (BATCH,), device=options.device),
    }
    trainees = {
        "full fine-tuning": Trainee(bert(options.layers), options.device, options.precision),
        "SPLoPA + topK": Trainee(pruned_and_adapted(options.layers, options.units), options.device, options.precision),
    }
    seconds: dict[str, list[float]] = {name: [] for name in trainees}
    for trainee in trainees.values():
        trainee.seconds(batch)  # warms up and makes the optimizer's states
    for _ in range(options.repeats):
        for name, trainee in trainees.items():
            seconds[name].append(trainee.seconds(batch))
            trainee.optimizer.zero_grad()
    peaks: dict[str, int] = {}
    for name, trainee in trainees.items():
        if options.device == "cuda":
            for other in trainees.values():
                other.move("cuda" if other is trainee else "cpu")
        peaks[name] = trainee.peak_bytes(batch)
    print(
        f"BERT, {options.layers} layers, batch {BATCH} × {TOKENS}, {options.precision} on {options.device}, "
        f"{torch.get_num_threads()} threads, median of {options.repeats}"
    )
    for name in trainees:
        median = statistics.median(seconds[name])
        print(f"  {name:<17} {median * 1e3:9.1f} ms per step   peak {peaks[name] / 2**20:8.0f} MiB")
    full, ours = (statistics.median(values) for values in seconds.values())
    time_ratio, memory_ratio = ours / full, peaks["SPLoPA + topK"] / peaks["full fine-tuning"]
    verdict = {True: "reached", False: "missed"}
    print(f"  time   {time_ratio:.2f} × (target ≤ {time_target} ×): {verdict[time_ratio <= time_target]}")
    print(f"  memory {memory_ratio:.2f} × (target ≤ {memory_target} ×): {verdict[memory_ratio <= memory_target]}")


if __name__ == "__main__":
    main()
