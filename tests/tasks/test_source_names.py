"""What a name means is decided once: folders, files, and names of the hub beside folders of the same owner."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splora.tasks import source_names
from splora.training.preflight import _local_config


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, an empty folder, data, and a folder named like an owner on the hub."""
    monkeypatch.chdir(tmp_path)
    for folder in ("models/minilm-squad", "bert-base-uncased", "rajpurkar/old", "google-bert", "data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models/minilm-squad/model.safetensors").touch()
    (tmp_path / "data/train.json").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "is_folder", "is_hub", "is_data", "is_refused"),
    [
        ("models/minilm-squad", True, False, False, True),  # it has no config.json
        ("./bert-base-uncased", True, False, False, True),
        ("bert-base-uncased", False, True, False, False),  # it has no weights, so it shadows no name of the hub
        ("google-bert/bert-large-uncased", False, True, True, False),
        ("rajpurkar/squad", False, True, True, False),
        ("models/minilm-sqad", False, True, True, True),  # nearly a folder's
        ("bert-base-uncase", False, True, False, False),
        ("data/train.jsn", False, True, False, True),
        ("rajpurkar/squad-v1.1", False, True, True, False),
        ("data/dev.txt", False, True, False, False),
        ("data/trains.json", False, True, False, True),
        ("../models", False, False, False, True),
        ("a/b/c", False, False, False, True),
        ("embedded", False, False, False, False),
        ("x" * 5000, False, True, False, False),
    ],
)
def test_a_name_means_the_same_everywhere(
    place: Path, name: str, is_folder: bool, is_hub: bool, is_data: bool, is_refused: bool
) -> None:
    assert (source_names.local_folder(name) is not None) == is_folder
    assert source_names.is_hub_model(name) == is_hub
    assert source_names.is_data_set(name) == is_data
    config, problems = _local_config(name, "model_name_or_path")
    assert config is None
    assert bool(problems) == is_refused


def test_what_was_meant_is_named(place: Path) -> None:
    _, problems = _local_config("models/minilm-sqad", "model_name_or_path")
    assert str(problems[0].message).endswith("there is no such folder; did you mean 'models/minilm-squad'?")
    assert source_names.mistyped("data/trains.json") == "; did you mean 'data/train.json'?"
    assert source_names.mistyped("data/train.json") == ""


@given(st.text(max_size=40))
def test_any_text_is_a_name(name: str) -> None:
    if "\0" not in name:
        assert not (source_names.is_path(name) and source_names.is_hub_model(name))
        assert not (source_names.is_path(name) and source_names.is_data_set(name))
    assert source_names.mistyped(name).startswith(("", "; did you mean"))
