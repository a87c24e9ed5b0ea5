"""Writes configs/*.yaml: rows of the catalogue as files for ``lightning fit --config``.

python scripts/write_configs.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import yaml

from splora.files import write_text
from splora.hparams.catalogue import catalogue
from splora.run_files import reference
from splora.training.configuration import lightning_config
from splora.training.specification import RunSpecification

FOLDER = Path(__file__).resolve().parents[1] / "configs"
#: File stem → EXP ID of the row it is.
ROWS = {
    "demo_dense": 1,
    "demo_movement_splopa": 2,
    "squad_dense": 63,
    "squad_magnitude_splopa": 66,
    "squad_movement_splopa": 70,
    "squad_movement": 71,
    "squad_soft_movement_splopa": 74,
    "squad_l0_splopa": 78,
    "squad_stat_heal_splopa": 84,
    "squad_heads_and_neurons_splopa": 90,
    "squad_movement_published": 31,
    "mnli_movement_published": 126,
    "qqp_movement_published": 223,
}


def configurations() -> Iterator[tuple[str, str]]:
    """File stem and text of every shipped configuration."""
    rows = {spec.exp_id: spec for sheet in catalogue().values() for spec, _ in sheet}
    for stem, exp_id in ROWS.items():
        spec = _standalone(rows[exp_id])
        title = f"# Row {exp_id} of hparams/hyperparameters.xlsx ({spec.sheet}: {spec.model}).\n"
        yield stem, title + yaml.safe_dump(lightning_config(spec, f"runs/{stem}"), sort_keys=False, allow_unicode=True)


def _standalone(spec: RunSpecification) -> RunSpecification:
    """A configuration has no other rows to build on: it starts from the pretrained model, without a teacher.

    One that heals needs both: the run of `squad_dense.yaml`. Its precision is one that every machine has, so that the
    same rows give the same file everywhere.
    """
    if spec.alpha_hidden:
        dense = f"runs/{spec.task}_dense"
        return dataclasses.replace(spec, model_name_or_path=dense, teacher_name_or_path=dense, precision="32-true")
    pretrained = "embedded" if spec.sheet == "Demo" else "bert-base-uncased"
    starts = pretrained if reference(spec.model_name_or_path) is not None else spec.model_name_or_path
    precision = "32-true" if spec.precision == "auto" else spec.precision
    return dataclasses.replace(
        spec, model_name_or_path=starts, teacher_name_or_path=None, teacher_type=None, precision=precision
    )


def main() -> None:
    """Write all of them."""
    for stem, text in configurations():
        write_text(FOLDER / f"{stem}.yaml", text)
        print(FOLDER / f"{stem}.yaml")


if __name__ == "__main__":
    main()
