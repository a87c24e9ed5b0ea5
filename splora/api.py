"""Pruning and quantization of models in memory; the commands do the same with files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from splora.errors import InputError, in_words_of_command, nearest
from splora.export.cut import check_class
from splora.export.plan import Plan
from splora.posttraining.core.budget import Budget, Costs
from splora.posttraining.core.choices import Quantizer
from splora.posttraining.core.examples import Examples
from splora.posttraining.core.method import commands
from splora.posttraining.core.options import checked
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.probe import check_parts
from splora.posttraining.core.pruning import Pruning
from splora.posttraining.core.stages import Report, silent
from splora.posttraining.quantize.options import GROUP_SIZE, GridOptions, QuantizeOptions

if TYPE_CHECKING:
    from splora.posttraining.quantize.grid import QuantizedWeight


class Pruned(NamedTuple):
    """A smaller model, and which heads and neurons of the one before it has."""

    model: nn.Module
    plan: Plan


def prune(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    budget: str = "mac=0.5",
    method: str = "stat",
    *,
    tokens: int | None = None,
    precision: str = "auto",
    seed: int = 0,
    report: Report = silent,
    **options: Any,
) -> Pruned:
    """Prune a fine-tuned model without training it; `model` stays as it is.

    Args:
        model: a task model of transformers of one of the described families, dense or already pruned.
        batches: some hundred calibration examples, see `Examples`. Labels are not looked at, but by Fisher information
            with `labels="data"`.
        budget: `mac=F`, the fraction of the dense model's multiply-accumulate operations that may be left.
        method: one of `splora prune`: `stat` (Flynn et al. 2024, as this program has it), `fisher` (Kwon et al. 2022).
        tokens: the length that operations are counted at; None: the examples' average.
        precision: `auto`, `fp32` or `bf16`: what calibration computes in.
        seed: of random directions.
        report: told of progress.
        options: of the method: the fields of `StatOptions` or `FisherOptions`.

    Raises:
        InputError: an unknown method, option or family, a budget that is none or more than the model keeps already, or
            far too few examples.
    """
    wanted = Budget.parse(budget, "budget")
    if wanted.metric != "mac":
        raise InputError("budget: from Python only mac=F is known; splora prune has latency budgets.")
    if method not in commands():
        raise InputError(
            f"method: {method!r} is none; allowed are {', '.join(commands())}{nearest(method, commands()) or '.'}"
        )
    chosen = commands()[method]
    own = checked(chosen.options, options)
    examples = Examples(batches)
    pruning = Pruning(
        model,
        examples,
        Costs.of(model, tokens or examples.tokens),
        wanted,
        Precision.parse(precision, "precision"),
        seed,
        report,
    )
    if pruning.keeps_less:
        raise InputError(
            f"budget: is {budget}, and the model keeps {pruning.present:.3f} of its dense self's MACs already."
        )
    check_class(model)
    check_parts(model)
    with evaluating(model):
        chosen.check(pruning)
        *_, last = chosen.stages(pruning, own)
    return Pruned(last.model, last.plan)


class Quantized(NamedTuple):
    """A quantized model in memory.

    Attributes:
        model: its weights are those that the codes stand for, in the type that they came in.
        weights: codes, steps and zeros by parameter name.
    """

    model: nn.Module
    weights: dict[str, QuantizedWeight]

    def save(self, tokenizer: Any, folder: str | Path) -> None:
        """Write packed weights and tokenizer (or None) as `splora quantize` does; `splora.load_quantized` reads them.

        Raises:
            InputError: the model is none that can be saved so, or the folder cannot be written to.
        """
        from splora.export.quantized import save_quantized

        grid = next(iter(self.weights.values())).options
        save_quantized(self.model, self.weights, grid, tokenizer, folder)


def quantize(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]] | None = None,
    bits: int = 4,
    group_size: int | None = GROUP_SIZE,
    method: Quantizer = "gptq",
    *,
    symmetric: bool = False,
    precision: str = "auto",
    report: Report = silent,
    **options: Any,
) -> Quantized:
    """Round the weights of a model's layers to a few bits without training it; `model` stays as it is.

    Args:
        model: a task model of transformers of one of the described families, dense or pruned.
        batches: some hundred calibration examples, see `Examples`; `rtn` looks at none.
        bits: per weight: 2, 3, 4 or 8.
        group_size: neighbouring weights of a row that share a step; None: the whole row.
        method: `gptq` (Frantar et al. 2022) or `rtn`, each weight to the nearest value.
        symmetric: zero is the middle of the grid.
        precision: `auto`, `fp32` or `bf16`: what calibration computes in.
        report: told of progress.
        options: other fields of `QuantizeOptions`: `act_order`, `damping`, `storage`.

    Raises:
        InputError: an unknown option or family, a value that may not be, or far too few examples.
    """
    from splora.posttraining.quantize.model import quantized_copy

    with in_words_of_command(_IN_PYTHON):
        given = {"method": method, **options}
        wanted = checked(QuantizeOptions, given, "splora.quantize", grid=GridOptions(bits, group_size, symmetric))
        wanted.check()
        if batches is None and method != "rtn":
            raise InputError(f"batches: are missing; {method} needs calibration examples, and only rtn needs none.")
        examples = [] if batches is None else list(Examples(batches))
        precise = Precision.parse(precision, "precision")
        check_parts(model)
        with evaluating(model):
            return Quantized(*quantized_copy(model, examples, wanted, precision=precise, report=report))


#: How options of the command are called here.
_IN_PYTHON = {
    "or -1 for whole rows": "or None for whole rows",
    **{f"--{name}": name.replace("-", "_") for name in ("bits", "group-size", "method", "states", "damping")},
}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode, and as it was afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
