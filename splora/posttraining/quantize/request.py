"""What a person asks of `splora quantize`, and what can be found wrong with it beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from splora import anatomy
from splora.checkpoints.checkpoint import check_kind
from splora.errors import InputError, problems_of
from splora.export.quantized import is_quantized
from splora.posttraining.core.request import Request
from splora.posttraining.quantize.options import GridOptions, QuantizeOptions

#: Of a request's settings, those that quantization does not look at.
_OTHERS = ("budget", "tables", "tokens")


@dataclass(frozen=True)
class QuantizeRequest(Request):
    """One quantization: what it has in common with a pruning whose budget is everything.

    `method` is `gptq` or `rtn`; `options` are `bits`, `group_size` (-1: whole rows), `symmetric`, `act_order`,
    `damping`, `storage`, and `half`: what is not quantized is stored in fp16.
    """

    def quantization(self) -> QuantizeOptions:
        """How weights are quantized."""
        options = {name: value for name, value in self.options.items() if name != "half"}
        grid = {name: options.pop(name) for name in ("bits", "group_size", "symmetric") if name in options}
        if grid.get("group_size") == -1:
            grid["group_size"] = None
        return QuantizeOptions(GridOptions(**grid), self.method, **options)  # type: ignore[arg-type]  # see `check`

    def settings(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return {name: value for name, value in super().settings().items() if name not in _OTHERS}

    def check(self) -> None:
        """Find what is wrong with the request itself; loads no model and no data.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = problems_of(super().check, self.quantization().check, self._check_model)
        if problems:
            raise InputError(problems)

    def check_rows(self, model: str) -> None:
        """Compare the size of groups with the rows of a model's weights, by its configuration.

        Args:
            model: the one to be quantized, or the one that it will be pruned from, whose rows are no shorter.

        Raises:
            InputError: all rows are shorter than a group; or there is no such model, or none for the task.
        """
        self.quantization().check(_widest_row(check_kind(model, self.task)))

    def _check_model(self) -> None:
        if is_quantized(self.model):
            raise InputError(f"{self.model}: this model is quantized already; pass the one that it was made from.")


def _widest_row(config: Any) -> int:
    """Inputs of the widest linear of the layers that a configuration describes."""
    neurons = anatomy.family_of(config).sizes[1]
    layers = config.per_layer_config if getattr(config, "is_heterogeneous", False) else [config]
    return max(int(config.hidden_size), *(int(getattr(layer, neurons)) for layer in layers))
