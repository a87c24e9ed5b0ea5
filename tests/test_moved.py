"""Imports by old names say where modules went, and they are there."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec

import pytest

from splora.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_says_the_new_one(old: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(old)} is {re.escape(MOVED[old])} now"):
        importlib.import_module(old)
    assert find_spec(MOVED[old]) is not None


def test_what_was_never_there_is_told_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'splora\.never'$"):
        importlib.import_module("splora.never")
