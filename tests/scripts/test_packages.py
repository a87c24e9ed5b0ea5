"""Installed, everything lies below `splora`: a user's own `scripts/` or `callbacks.py` shadows nothing."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from splora.scripts.old_yaml import renamed
from splora.scripts.write_configs import FOLDER
from tests import forks

#: Folders of the top level that are installed below `splora`.
MOVED = ("callbacks", "hparams", "scripts")


def test_every_folder_of_code_is_installed(root: Path) -> None:
    folders = [
        path.parent.relative_to(root) for top in ("splora", *MOVED) for path in (root / top).rglob("__init__.py")
    ]
    names = {".".join(("splora", *f.parts) if f.parts[0] in MOVED else f.parts) for f in folders}
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert sorted(settings["packages"]) == sorted(names)
    assert settings["package-dir"] == {f"splora.{name}": name for name in MOVED}


@pytest.mark.slow
def test_a_users_own_folders_break_no_command_and_old_yaml_is_read(tmp_path: Path) -> None:
    (tmp_path / "callbacks.py").write_text("raise RuntimeError('not yours')\n", encoding="utf-8")
    for name in ("scripts", "hparams"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not yours')\n", encoding="utf-8")
    text = (FOLDER / "demo_movement_splopa.yaml").read_text(encoding="utf-8")
    (tmp_path / "old.yaml").write_text(text.replace("splora.callbacks.", "callbacks."), encoding="utf-8")
    program = [sys.executable, "-m", "splora.scripts.cli", "fit", "--config", "old.yaml", "--print_config"]
    done = forks.run(program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = [item["class_path"] for item in yaml.safe_load(done.stdout)["trainer"]["callbacks"]]
    assert "splora.callbacks.SparsitySchedule" in listed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- class_path: callbacks.WeightCount", "- class_path: splora.callbacks.WeightCount"),
        ('{"class_path": "callbacks.RunResult"}', '{"class_path": "splora.callbacks.RunResult"}'),
        ("- class_path: splora.callbacks.WeightCount", "- class_path: splora.callbacks.WeightCount"),
        ("- class_path: my.callbacks.Mine", "- class_path: my.callbacks.Mine"),
        ("callbacks: null", "callbacks: null"),
    ],
)
def test_only_class_paths_of_the_old_package_are_renamed(old: str, new: str) -> None:
    assert renamed(old) == new
