"""The page on decoders, as it stands, from training to Python, on a tiny model and a short text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splora.tasks.text_sources import Split, read_text
from tests.test_readme import commands, shortened

TINY = {"steps": 2, "layers": 2, "hidden": 128, "heads": 4, "key_value_heads": 2, "neurons": 48, "positions": 32}
#: Said after what the page says: of an option given twice the last counts.
SMALLER = [word for name, size in (TINY | {"vocabulary": 300}).items() for word in (f"--{name}", str(size))]
FINAL = {"train_small_llama": "small-llama", "stat": "small", "quantize": "small4", "fisher": "small-fisher"}


@pytest.mark.filterwarnings("ignore")  # what the libraries say to whoever copies the examples
def test_the_page_on_decoders_runs_from_top_to_bottom(
    tmp_path: Path,
    root: Path,
    command: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "project").mkdir()
    texts = tmp_path / "shared" / "data" / "wikitext2"
    texts.mkdir(parents=True)
    splits: dict[str, Split] = {"valid.txt": "train", "test.txt": "eval"}
    for name, split in splits.items():
        (texts / name).write_text(read_text("embedded", "ptb", split)[:20_000], encoding="utf-8")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    lines = commands("docs/decoders.md")
    assert len(lines) == len(FINAL)
    for line in lines:
        program, words = shortened(line)
        if program == "python":  # the same in this process
            words = [Path(words[0]).stem, *words[1:], *SMALLER]
        status, said = command(*words)
        assert status == 0, said[-2000:]
    assert all((Path(folder) / "result.json").is_file() for folder in FINAL.values())
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (root / "docs" / "decoders.md").read_text(encoding="utf-8"), re.S):
        exec(block, names)
    said = capsys.readouterr().out
    assert said.startswith("True ")
    assert max(names["pruned"].plan.head_counts) <= 2
    assert (Path("small-python") / "model.safetensors").is_file()
