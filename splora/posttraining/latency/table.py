"""Look-up tables of measured latencies: what a file holds, how it is read and checked, and what a budget makes of it.

The model of latency: `overhead + stretch · Σ over layers of (attention(heads) + feed_forward(neurons))`. Both terms
are what a block costs *more than one without units*. The overhead is measured: the model without any heads and neurons,
that is embeddings, biases, residual sums, norms and the task head, which no plan can prune. The stretch makes the sum
right for the dense model: inside it blocks meet other caches than by themselves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from splora.errors import InputError, nearest
from splora.files import write_json
from splora.json_values import read_object
from splora.posttraining.latency.conditions import Conditions, differences, version_warning
from splora.posttraining.latency.fit import LatencyFit, fit

Kind = Literal["mha", "ffn"]
KINDS: tuple[Kind, ...] = ("mha", "ffn")
_UNITS = {"mha": "heads", "ffn": "neurons"}


@dataclass(frozen=True)
class LatencyTable:
    """Measured latencies of one kind of block.

    Attributes:
        kind: `mha`, attention by its number of heads, or `ffn`, feed-forward by its number of neurons.
        sizes: numbers of units, ascending, from 0 to that of the dense model.
        milliseconds: of one block of each size, residual sum and norm included.
        model_milliseconds: of a forward pass of the dense model.
        overhead_milliseconds: of a forward pass of the model without any heads and neurons.
        measured_with: the conditions.
        source: the file, for messages.
    """

    kind: Kind
    sizes: tuple[int, ...]
    milliseconds: tuple[float, ...]
    model_milliseconds: float
    overhead_milliseconds: float
    measured_with: Conditions
    source: str = ""

    @property
    def layers(self) -> int:
        """Layers of the model, each with one such block."""
        return self.measured_with.layers

    @property
    def costs(self) -> tuple[float, ...]:
        """Milliseconds of a block of each size beyond those of a block without units; not negative."""
        return tuple(max(time - self.milliseconds[0], 0.0) for time in self.milliseconds)

    def fit(self) -> LatencyFit:
        """The piecewise-linear latency of a block, beyond that of a block without units."""
        return fit(self.sizes, self.costs)

    def save(self, path: str | Path) -> None:
        """Write the table as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        fields = dataclasses.asdict(self)
        write_json(path, {name: value for name, value in fields.items() if name != "source"})


def read_table(path: str | Path, kind: Kind) -> LatencyTable:
    """Read a table of this kind.

    Raises:
        InputError: no such file, not JSON, the other kind, or keys that are missing or hold no sense; all are named.
    """
    try:
        content = read_object(Path(path))
    except ValueError as error:
        raise InputError(f"{path}: the latency table {error}.") from error
    if content is None:
        raise InputError(f"{path}: the latency table is not there.")
    problems = _problems(content, kind)
    if problems:
        raise InputError(f"{path}: {problem}" for problem in problems)
    return LatencyTable(
        kind,
        tuple(content["sizes"]),
        tuple(map(float, content["milliseconds"])),
        float(content["model_milliseconds"]),
        float(content["overhead_milliseconds"]),
        Conditions(**{field.name: content["measured_with"][field.name] for field in dataclasses.fields(Conditions)}),
        str(path),
    )


def check(mha: LatencyTable, ffn: LatencyTable, now: Conditions) -> list[str]:
    """Make sure that both tables hold for this model, device and batch; returns warnings.

    Raises:
        InputError: one sentence for each condition of each file that does not hold, or files of two measurements.
    """
    problems = [problem for table in (mha, ffn) for problem in differences(table.source, table.measured_with, now)]
    if not problems and mha.model_milliseconds != ffn.model_milliseconds:
        problems = [
            f"{mha.source} and {ffn.source}: come from two measurements (the dense model took "
            f"{mha.model_milliseconds:.4g} and {ffn.model_milliseconds:.4g} ms); use the two files of one."
        ]
    if problems:
        raise InputError(problems)
    return [warning for table in (mha, ffn) for warning in version_warning(table.source, table.measured_with, now)]


def budget_milliseconds(constraint: float, mha: LatencyTable, ffn: LatencyTable) -> float:
    """Milliseconds that blocks by themselves may take for the model to take `constraint` of its dense latency.

    `(constraint · model − overhead) / stretch`: what the search gets as its budget.

    Raises:
        InputError: the overhead alone takes longer; the smallest possible constraint is told.
    """
    model, overhead = mha.model_milliseconds, mha.overhead_milliseconds
    if constraint * model < overhead:
        raise InputError(
            f"a latency constraint of {constraint:g} allows {constraint * model:.4g} of {model:.4g} ms, but "
            f"embeddings, norms and task head alone take {overhead:.4g} ms; the smallest possible constraint is "
            f"{overhead / model + 5e-4:.3f}."
        )
    return (constraint * model - overhead) / stretch(mha, ffn)


def model_milliseconds(blocks: float, mha: LatencyTable, ffn: LatencyTable) -> float:
    """Milliseconds of a model whose blocks take so many by themselves; undoes `budget_milliseconds`."""
    return mha.overhead_milliseconds + stretch(mha, ffn) * blocks


def stretch(mha: LatencyTable, ffn: LatencyTable) -> float:
    """How much longer the dense model's blocks take in the model than each by itself; near 1."""
    alone = mha.layers * (mha.costs[-1] + ffn.costs[-1])
    return (mha.model_milliseconds - mha.overhead_milliseconds) / alone if alone > 0 else 1.0


def _problems(content: dict[str, Any], kind: Kind) -> list[str]:
    """What is wrong with the content of a table's file."""
    wanted = [field.name for field in dataclasses.fields(LatencyTable) if field.name != "source"]
    missing = [name for name in wanted if name not in content]
    if missing:
        others = [name for name in content if name not in wanted]
        return [f"key {name!r} is missing{nearest(name, others) or '.'}" for name in missing]
    if content["kind"] != kind:
        return [f"key 'kind' is {content['kind']!r}; a table of kind {kind!r} ({_UNITS[kind]}) is wanted here."]
    return [*_number_problems(content), *_condition_problems(content["measured_with"], content["sizes"], kind)]


def _number_problems(content: dict[str, Any]) -> list[str]:
    sizes, times, problems = content["sizes"], content["milliseconds"], []
    whole = isinstance(sizes, list) and all(type(size) is int for size in sizes)
    if not whole or len(sizes) < 2 or sizes[0] != 0 or sizes != sorted(set(sizes)):
        problems.append("key 'sizes' must hold whole numbers in ascending order, from 0 on, none twice.")
    if not isinstance(times, list) or not all(_positive(time) for time in times):
        problems.append("key 'milliseconds' must hold positive numbers.")
    elif isinstance(sizes, list) and len(times) != len(sizes):
        problems.append(f"key 'milliseconds' holds {len(times)} numbers for the {len(sizes)} of 'sizes'.")
    if not _positive(content["model_milliseconds"]):
        problems.append(f"key 'model_milliseconds' is {content['model_milliseconds']!r}; it must be a positive number.")
    overhead = content["overhead_milliseconds"]
    if not _positive(overhead):
        problems.append(f"key 'overhead_milliseconds' is {overhead!r}; it must be a positive number.")
    elif not problems and overhead >= content["model_milliseconds"]:
        problems.append(f"key 'overhead_milliseconds' is {overhead!r}; it must be less than 'model_milliseconds'.")
    return problems


def _condition_problems(held: Any, sizes: Any, kind: Kind) -> list[str]:
    if not isinstance(held, dict):
        return ["key 'measured_with' must hold an object of conditions."]
    types, problems = get_type_hints(Conditions), []
    for name, wanted in types.items():
        if name not in held:
            problems.append(f"key 'measured_with.{name}' is missing{nearest(name, set(held) - set(types)) or '.'}")
        elif type(held[name]) is not wanted:
            words = "a whole number" if wanted is int else "text"
            problems.append(f"key 'measured_with.{name}' is {held[name]!r}; it must be {words}.")
    dense = held.get(_UNITS[kind])
    if not problems and isinstance(sizes, list) and sizes and sizes[-1] != dense:
        problems.append(f"key 'sizes' ends with {sizes[-1]!r}; the model had {dense} {_UNITS[kind]} per layer.")
    return problems


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < float("inf")
