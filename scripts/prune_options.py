"""Options that all commands that prune after training share, and the request they make. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from splora.errors import InputError
from splora.export.storage import DTYPES
from splora.posttraining.core.choices import BIAS_CORRECTIONS, FISHER_LABELS, PRECISIONS, STORAGES, TEACHERS
from splora.scripts.opt_names import checkpoint_name, summary_path
from splora.scripts.option_help import add_choice, wrong_choices
from splora.tasks.sources import TASKS

if TYPE_CHECKING:
    from splora.posttraining.core.budget import Budget
    from splora.posttraining.core.request import PruneRequest

T = TypeVar("T")

#: Training examples that each method calibrates with by default, as published; and windows of a text.
SAMPLES = {"fisher": 2048, "stat": 512}
TEXT_SAMPLES = 128


def add_calibration(parser: argparse.ArgumentParser, samples: int) -> None:
    """Options of any method that looks at samples."""
    parser.add_argument(
        "--num_samples",
        "--num-samples",
        type=int,
        metavar="N",
        help=f"training examples to calibrate with (default: {samples}; of a text, {TEXT_SAMPLES} windows)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw of these examples (default: 0)")
    parser.add_argument(
        "--max_seq_length",
        "--max-seq-length",
        type=int,
        metavar="N",
        help="tokens per example at most (default: 384 for questions, the model's positions for a text, 128 else)",
    )
    parser.add_argument(
        "--doc_stride",
        "--doc-stride",
        type=int,
        default=128,
        metavar="N",
        help="tokens that windows of a long context share (default: 128)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="where the data's columns are not recognized, e.g. label=gold; repeatable",
    )
    add_compute(parser)
    add_choice(
        parser,
        "--states",
        allowed=STORAGES,
        default="auto",
        help="where hidden states of the samples are kept between layers: in memory as fp32 or bf16, in temporary "
        "files, or (auto) in memory while they are small",
    )
    add_choice(
        parser,
        "--dtype",
        allowed=DTYPES,
        default="auto",
        help="what weights are stored in, if they are not quantized; auto: what they came in",
    )
    parser.add_argument("--force", action="store_true", help="replace another result in the output folder")


def add_compute(parser: argparse.ArgumentParser) -> None:
    """Where a command computes, and in what."""
    add_choice(
        parser,
        "--precision",
        allowed=PRECISIONS,
        default="auto",
        help="to compute in; auto is bf16 where that is fast",
    )
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="auto (default) is a GPU where there is one"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: torch's choice)")


def add_shared(parser: argparse.ArgumentParser, samples: int) -> None:
    """Options of any method of pruning."""
    add_calibration(parser, samples)
    parser.add_argument(
        "--seq_len",
        "--seq-len",
        type=int,
        metavar="N",
        help="sequence length that MACs are counted at (default: the examples' average)",
    )
    parser.add_argument(
        "--latency_batch_size",
        "--latency-batch-size",
        type=int,
        metavar="N",
        help="sequences per batch when latency is measured (default: 32, or that of the tables)",
    )
    parser.add_argument(
        "--latency_seq_len",
        "--latency-seq-len",
        type=int,
        metavar="N",
        help="tokens per sequence then (default: max_seq_length, or that of the tables)",
    )
    parser.add_argument("--mha_lut", "--mha-lut", metavar="FILE", help="measured latencies of attention blocks")
    parser.add_argument("--ffn_lut", "--ffn-lut", metavar="FILE", help="measured latencies of feed-forward blocks")


def add_data(parser: argparse.ArgumentParser, what: str = "folder of the task's data") -> None:
    """Where the data are; every command takes the published spelling and the one that messages name."""
    parser.add_argument(
        "--data", "--data_dir", "--data-dir", dest="data_dir", metavar="DIR", help=f"{what} (default: the hub)"
    )


def add_labelled(parser: argparse.ArgumentParser) -> None:
    """Whether the data say what is right."""
    parser.add_argument(
        "--no_labels",
        "--no-labels",
        dest="labelled",
        action="store_false",
        help="training data have no labels: none are read, and healing learns from the teacher alone",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where the result goes; spelled as `add_data`."""
    parser.add_argument(
        "--output",
        "--output_dir",
        "--output-dir",
        dest="output_dir",
        metavar="DIR",
        help="default: output/MODEL/TASK/…",
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The published flags that name a fine-tuned encoder and its task."""
    parser.add_argument(
        "--model_name",
        required=True,
        metavar="NAME",
        help="published name; the checkpoint itself where --ckpt_dir is missing",
    )
    add_choice(parser, "--task_name", allowed=TASKS, required=True, metavar="TASK", help="what it is fine-tuned for")
    parser.add_argument("--ckpt_dir", metavar="DIR", help="folder of the fine-tuned checkpoint")
    add_data(parser)


def add_place(parser: argparse.ArgumentParser) -> None:
    """The published flags that say where the result goes, and where it is computed."""
    add_output(parser)
    parser.add_argument("--gpu", type=int, metavar="N", help="number of the GPU; the same as --device cuda:N")


def device_of(options: argparse.Namespace) -> str:
    """`--device`, or the GPU that the published `--gpu` numbers."""
    number = getattr(options, "gpu", None)
    return str(options.device) if number is None else f"cuda:{number}"


def add_fisher(parser: argparse.ArgumentParser) -> None:
    """Options of Fisher pruning."""
    parser.add_argument(
        "--gradients",
        default="sample",
        metavar="sample|N",
        help="Fisher information from every sample's gradient (default) or from mini-batches of N",
    )
    add_choice(
        parser,
        "--fisher_labels",
        "--fisher-labels",
        allowed=FISHER_LABELS,
        default="model",
        help="Fisher information of the model's own predictions, or of the data's labels",
    )
    add_choice(
        parser,
        "--teacher",
        allowed=TEACHERS,
        default="dense",
        help="rescale towards the dense model, or the one pruned to the square root of the budget",
    )
    add_choice(
        parser,
        "--bias_correction",
        "--bias-correction",
        allowed=BIAS_CORRECTIONS,
        default="auto",
        help="let biases take up what is lost on average; auto: if held-out samples say that nothing is lost by it; "
        "off: as published",
    )
    parser.add_argument("--damping", type=float, default=1.0, help="of the least squares of rescaling (default: 1)")


def fisher_choices(options: argparse.Namespace) -> dict[str, Any]:
    """The method's own choices.

    Raises:
        InputError: values that are not allowed, all of them.
    """
    choices = {"fisher_labels": FISHER_LABELS, "teacher": TEACHERS, "bias_correction": BIAS_CORRECTIONS}
    problems = wrong_choices(options, {**choices, "states": STORAGES})
    if options.fisher_labels == "data" and not getattr(options, "labelled", True):
        problems.append("--no_labels is given, but --fisher_labels data needs them; model does not.")
    if not 0 <= options.damping < float("inf"):
        problems.append(f"--damping is {options.damping}; it must be 0 or larger.")
    batch_size = 0
    if options.gradients != "sample":
        if not options.gradients.isdigit() or int(options.gradients) < 1:
            problems.append(
                f"--gradients is {options.gradients!r}; it is 'sample' or a mini-batch's number of samples."
            )
        else:
            batch_size = int(options.gradients)
    if problems:
        raise InputError(problems)
    return {
        "gradient_batch_size": batch_size,
        "labels": options.fisher_labels,
        "teacher": options.teacher,
        "damping": options.damping,
        "bias_correction": options.bias_correction,
        "storage": options.states,
    }


def add_stat(parser: argparse.ArgumentParser) -> None:
    """Options of pruning by interpolative decompositions."""
    parser.add_argument(
        "--exact_paper",
        "--exact-paper",
        action="store_true",
        help="the published method: its budgets, its corrections from the dense model, no gradients",
    )
    parser.add_argument(
        "--no_reconstruction",
        "--no-reconstruction",
        action="store_true",
        help="leave out the last stage, which solves projections again on the pruned model's activations",
    )
    parser.add_argument(
        "--offload",
        action="store_true",
        help="for language models larger than memory: weights are read from safetensors files and written layer by "
        "layer, hidden states lie in files, one layer is held at a time; latency is not measured",
    )
    parser.add_argument(
        "--head_factors",
        "--head-factors",
        default="1",
        metavar="LIST",
        help="what errors of heads count against those of neurons; several are candidates whose divergence is measured "
        "(default: 1)",
    )


def stat_choices(options: argparse.Namespace) -> dict[str, Any]:
    """The method's own choices.

    Raises:
        InputError: values that are not allowed, all of them.
    """
    problems = wrong_choices(options, {"states": STORAGES})
    try:
        factors = tuple(float(part) for part in options.head_factors.split(","))
    except ValueError:
        factors = ()
    if not factors or not all(0 < factor < float("inf") for factor in factors):
        problems.append(f"--head_factors is {options.head_factors!r}; it is a list of numbers above 0, e.g. 1,0.5,2.")
    if options.mha_lut is not None or options.ffn_lut is not None:
        problems.append("--mha_lut and --ffn_lut are for latency budgets, which Fisher pruning has; STAT counts MACs.")
    if problems:
        raise InputError(problems)
    return {
        "exact_paper": options.exact_paper,
        "head_factors": list(factors),
        "reconstruct": not options.no_reconstruction,
        "storage": options.states,
    }


def mac_budget(budget: Budget) -> Budget:
    """The budget, if it counts MACs.

    Raises:
        InputError: it counts milliseconds.
    """
    if budget.metric != "mac":
        raise InputError("STAT counts MACs: give a budget such as mac=0.5; latency budgets are for Fisher pruning.")
    return budget


def request_of(
    options: argparse.Namespace,
    *,
    method: str,
    model: str,
    task: str,
    data: str | None,
    budget: Callable[[], Budget],
    output: str | None,
    model_label: str,
    choices: Callable[[], dict[str, Any]],
    checks_output: bool = True,
) -> PruneRequest:
    """The request that options make. Of a text, `model` may be a published name of an OPT.

    Args:
        budget: reads the budget from the options.
        output: folder of the result; None: one below `output/<model>/<task>/`.
        model_label: `<model>` of the text file that gets one line, `output/<model>/<task>.txt`, or
            `output/opt/<model>.txt` if the task is a text.
        choices: reads the method's own choices.
        checks_output: whether the result goes to the output folder itself.

    Raises:
        InputError: all that can be found wrong without loading anything.
    """
    from splora.posttraining.core.budget import Budget
    from splora.posttraining.core.request import PruneRequest
    from splora.tasks.registry import REGISTRY
    from splora.tasks.sources import canonical_task

    problems: list[str] = []

    def read(reader: Callable[[], T], otherwise: T) -> T:
        try:
            return reader()
        except InputError as error:
            problems.extend(error.problems)
            return otherwise

    found_task = read(lambda: canonical_task(task), "task")
    found_budget = read(budget, Budget("mac", 0.5))
    folder = Path("output") / model_label
    of_text = found_task in REGISTRY and REGISTRY[found_task].causal
    usual = TEXT_SAMPLES if of_text and REGISTRY[found_task].outputs == "losses" else SAMPLES[method]
    name = f"{method}-{found_budget.metric}-{found_budget.fraction:g}-seed-{options.seed}"
    request = PruneRequest(
        method=method,
        model=checkpoint_name(model) if of_text else model,
        task=found_task,
        data=data,
        budget=found_budget,
        output=Path(output) if output else folder / found_task / name,
        samples=usual if options.num_samples is None else options.num_samples,
        seed=options.seed,
        tokens=options.seq_len,
        max_seq_length=options.max_seq_length,
        doc_stride=options.doc_stride,
        precision=options.precision,
        device=device_of(options),
        threads=options.threads,
        tables=read(lambda: _tables(options.mha_lut, options.ffn_lut), None),
        latency_batch_size=options.latency_batch_size,
        latency_tokens=options.latency_seq_len,
        dtype=options.dtype,
        columns=read(lambda: columns_of(options.column), {}),
        labelled=getattr(options, "labelled", True),
        force=options.force,
        offload=getattr(options, "offload", False),
        summary=summary_path(model_label) if of_text else folder / f"{found_task}.txt",
        choices=read(choices, {}),
    )
    if checks_output:
        read(request.check, None)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return request


def carry_out(request: PruneRequest) -> None:
    """Prune with progress on the terminal, and print what came of it."""
    from splora.quiet import quiet_libraries
    from splora.scripts.console import StageProgress

    quiet_libraries()
    from splora.posttraining.core.outcome import summary_line
    from splora.posttraining.pipeline import prune

    with StageProgress() as progress:
        result = prune(request, progress.report)
    print(summary_line(result, request.output))
    for stage, notes in result["notes"].items():
        for sublayer, largest in notes.get("skipped", {}).items():
            print(f"{stage}: {sublayer} keeps its weights; its largest factor would be {largest:.3g}.")
        if "stored" in notes:
            print(f"{stage}: {notes['stored']}")
        for sublayer, told in notes.get("dependent_channels", {}).items():
            print(
                f"{stage}: {sublayer}: {told}, so an eigenvalue factorization, whose least-norm solution spreads over "
                f"all of them, was used instead of Cholesky's."
            )
    held = max((notes.get("hidden_state_bytes", 0) for notes in result["notes"].values()), default=0)
    print(
        f"memory: {result['peak_memory_bytes'] / 2**20:,.0f} MiB at most, {held / 2**20:,.0f} MiB of it hidden states"
    )


def columns_of(given: list[str]) -> dict[str, str]:
    """Names of columns by what they hold, from `NAME=COLUMN`.

    Raises:
        InputError: something else is given.
    """
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (name, sign, column) in zip(given, pairs, strict=True) if not (name and sign and column)]
    if wrong:
        raise InputError(f"--column is {text!r}; it reads NAME=COLUMN, e.g. label=gold." for text in wrong)
    return {name: column for name, _, column in pairs}


def _tables(mha: str | None, ffn: str | None) -> tuple[str, str] | None:
    if (mha is None) != (ffn is None):
        missing, given = ("--ffn_lut", "--mha_lut") if ffn is None else ("--mha_lut", "--ffn_lut")
        raise InputError(f"{given} is given without {missing}; scripts/generate_lut.py writes both.")
    return (mha, ffn) if mha is not None and ffn is not None else None
