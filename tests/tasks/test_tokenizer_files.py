"""Tokenizers whose files are of another shape, too large, or could not be written again: one sentence each."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splora.errors import InputError
from splora.reading import FACTOR
from splora.tasks import hub
from splora.tasks.embedded.model import write_embedded_model

FILES = ("tokenizer.json", "tokenizer_config.json")
STRANGE: tuple[Any, ...] = (None, [], {}, "x", 5, True, -1, [[]], {"type": "?"}, "\ud83d", 10**400)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_embedded_model(folder)
    return folder


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    for name in ("config.json", "model.safetensors", *FILES):
        shutil.copy(model / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "5", "{}", '{"model": 5}', "[" * 9_000, "\x00", "\ud83d"])
@pytest.mark.parametrize("name", FILES)
def test_files_of_another_shape(folder: Path, name: str, content: str) -> None:
    (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    if (name, content) in (("tokenizer_config.json", "{}"), ("tokenizer_config.json", '{"model": 5}')):
        return  # they tell nothing wrong
    with pytest.raises(InputError) as raised:
        hub.load_tokenizer(str(folder))
    assert len(raised.value.problems) == 1
    assert str(folder) in str(raised.value)
    assert len(str(raised.value)) < 600


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_of_another_kind_are_a_sentence_or_can_be_saved(data: st.DataObject, folder: Path, model: Path) -> None:
    """Whatever is loaded at the start can be written at the end."""
    name = data.draw(st.sampled_from(FILES))
    content = json.loads((model / name).read_text(encoding="utf-8"))
    place, key = {"": content}, ""
    for _ in range(data.draw(st.integers(1, 3))):
        inner: Any = place[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        place, key = inner, data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
    place[key] = data.draw(st.sampled_from(STRANGE))
    for other in FILES:
        shutil.copy(model / other, folder)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    with suppress(InputError):
        tokenizer = hub.load_tokenizer(str(folder))
        tokenizer.save_pretrained(str(folder / "saved"))


def test_half_a_character_in_settings_fails_at_the_start(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"note": "a\ud83d"}), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"tokenizer_config\.json: holds half a character \(\\ud83d\), which cannot be"
    ):
        hub.load_tokenizer(str(folder))


@pytest.mark.parametrize("longest", ["many", None, 0, -5, True, [512]])
def test_a_greatest_length_that_is_none(folder: Path, longest: Any) -> None:
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": longest}
    path.write_text(json.dumps(content), encoding="utf-8")
    if longest is None:  # transformers takes it for no limit
        assert hub.load_tokenizer(str(folder)).model_max_length > 0
        return
    with pytest.raises(InputError, match=f"model_max_length|{folder}"):
        hub.load_tokenizer(str(folder))


def test_a_file_larger_than_any_tokenizers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FACTOR, "0.0001")  # room enough for config.json, which is read first
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + " " * 10_000, encoding="utf-8")
    with pytest.raises(
        InputError, match=r"tokenizer\.json: has .* bytes; a tokenizer's file of at most 10,000 bytes is read"
    ):
        hub.load_tokenizer(str(folder))
