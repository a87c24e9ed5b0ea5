"""How budgets read, and what is refused."""

from __future__ import annotations

import pytest

from splora.errors import InputError
from splora.posttraining.core.budget import Budget


@pytest.mark.parametrize("text", ["mac=0.5", "MACs = 0.5", "latency=.6"])
def test_budgets_read_as_people_write_them(text: str) -> None:
    assert 0 < Budget.parse(text).fraction < 1


@pytest.mark.parametrize("text", ["mac=1", "MAC=1.0"])
def test_all_macs_may_stay(text: str) -> None:
    assert Budget.parse(text) == Budget("mac", 1.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mac", "reads mac=0.5"),
        ("mac=0", "0 is out of range; .* larger than 0 and at most 1"),
        ("mac=1.01", "larger than 0 and at most 1"),
        ("mac=0,5", "larger than 0 and at most 1"),
        ("mac=nan", "larger than 0 and at most 1"),
        ("latency=0", "larger than 0 and smaller than 1"),
        ("latency=1", "1 of the dense model's latency asks for no speed-up at all; .* mac=1 keeps everything"),
        ("latency=2", "larger than 0 and smaller than 1"),
        ("latensy=0.5", "did you mean 'latency'"),
    ],
)
def test_other_budgets_are_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as raised:
        Budget.parse(text)
    assert len(raised.value.problems) == 1
