"""Every command of the README runs: as it stands, or shortened to a few steps where it takes minutes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forks

ROOT = Path(__file__).resolve().parents[1]
#: Added to a command that trains, so that it ends in seconds.
SHORT_ROW = ["--set", "max_train_examples=16", "--set", "max_steps=2", "--set", "per_gpu_train_batch_size=4"]
SHORT_FIT = ["--trainer.max_epochs", "1", "--trainer.max_steps", "2", "--data.init_args.max_train_examples", "16"]
#: Added to a command that prunes.
SHORT_PRUNING = ["--num_samples", "32", "--latency_batch_size", "1", "--latency_seq_len", "8", "--threads", "1"]
#: Commands that make the environment itself: the very run of this test shows that they work.
OF_MAKE = {"make setup", "make test", "make demo", "source .venv/bin/activate"}


#: The command whose result others read.
TRAINING = "python scripts/run_from_sheet.py --exp-id 2"


def commands(page: str = "README.md") -> list[str]:
    """Lines of a page's shell blocks, continuation lines joined, comments dropped."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.S)).replace("\\\n", " ")
    lines = (re.sub(r"\s+#.*", "", line).strip() for line in blocks.splitlines())
    return [line for line in dict.fromkeys(lines) if line and not line.startswith("#")]


def _excerpt(real: Path, folder: Path, sentences: Path) -> None:
    """The real weights and sheets, few sentences, and the questions of two paragraphs, so that scoring is quick."""
    (folder / "data" / "squad").mkdir(parents=True)
    for name in ("models", "sheets"):
        (folder / name).symlink_to(real / name)
    (folder / "data" / "sst2").symlink_to(sentences)
    for name in ("train.json", "dev.json"):
        content = json.loads((real / "data" / "squad" / name).read_text(encoding="utf-8"))
        article = content["data"][0]
        content["data"] = [{**article, "paragraphs": article["paragraphs"][:2]}]
        (folder / "data" / "squad" / name).write_text(json.dumps(content), encoding="utf-8")


def _project(folder: Path) -> None:
    """The same tree under another folder, so that runs/ of the person who tests is left alone."""
    folder.mkdir()
    for name in ("scripts", "splora", "callbacks", "hparams", "configs", "bert-base-uncased"):
        (folder / name).symlink_to(ROOT / name)


def shortened(line: str) -> tuple[str, list[str]]:
    """A command's program, and its words with what lets it end in seconds."""
    program, *rest = shlex.split(line)
    assert program in ("python", "lightning", "splora"), f"a page uses {program!r}, which this test does not know"
    checks_only = {"--list", "--check", "--dry-run"} & set(rest)
    if program == "python" and rest[0] == "scripts/run_from_sheet.py" and not checks_only:
        rest += SHORT_ROW
    if rest[:1] == ["fit"]:
        rest += SHORT_FIT
    if rest[:1] == ["prune"]:
        rest += SHORT_PRUNING
    if "--heal" in rest or rest[:1] == ["heal"]:
        rest += ["--max_steps", "2", "--set", "held_out=8"]
    if rest[:1] == ["quantize"]:
        rest += ["--num-samples", "32", "--threads", "1"]
    return program, rest


def give(program: str, rest: list[str], command: Callable[..., tuple[int, str]]) -> None:
    """Give a command in the folder that is the current one, which ends well."""
    if program != "python":
        status, said = command(*rest)
        assert status == 0, said[-2000:]
        return
    done = forks.run([sys.executable, *rest])
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the command that trains a row was given."""
    folder = tmp_path_factory.mktemp("trained") / "project"
    _project(folder)
    words = [sys.executable, *shlex.split(TRAINING)[1:], *SHORT_ROW]
    assert forks.run(words, cwd=folder).returncode == 0
    return folder


def test_the_readme_has_commands_of_every_kind() -> None:
    found = commands()
    assert TRAINING in found
    assert {"make demo", "make test"} <= set(found)
    assert any("run_from_sheet.py" in command for command in found)
    assert any(command.startswith("lightning fit") for command in found)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in commands() if line not in OF_MAKE])
def test_a_command_of_the_readme_runs(
    line: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, rest = shortened(line)
    _project(tmp_path / "project")
    if "../shared" in line:
        real = request.getfixturevalue("shared")
        _excerpt(real, tmp_path / "shared", request.getfixturevalue("few_sentences"))
    if "runs/" in line and program == "splora" and rest[0] in ("count", "plot"):
        shutil.copytree(request.getfixturevalue("trained") / "runs", tmp_path / "project" / "runs")
    if line == TRAINING:  # it ran for those that need its result
        assert (request.getfixturevalue("trained") / "runs" / "Demo" / "2" / "result.json").is_file()
        return
    monkeypatch.chdir(tmp_path / "project")
    give(program, rest, request.getfixturevalue("command"))


@pytest.mark.slow
@pytest.mark.real
def test_the_commands_of_the_page_on_healing_run_one_after_another(
    tmp_path: Path,
    shared: Path,
    few_sentences: Path,
    command: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _project(tmp_path / "project")
    _excerpt(shared, tmp_path / "shared", few_sentences)
    monkeypatch.chdir(tmp_path / "project")
    for line in commands("docs/healing.md"):
        give(*shortened(line), command)
    served = json.loads(Path("served/result.json").read_text(encoding="utf-8"))
    assert served["macs_kept"] < 0.31
