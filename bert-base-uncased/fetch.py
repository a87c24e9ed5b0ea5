"""Downloads BERT-base's weights and vocabulary from the hub into this folder, and verifies them.

    python bert-base-uncased/fetch.py

Afterwards ``--model bert-base-uncased`` needs no network when it is given from the project's folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from splora.errors import InputError, exit_on_input_error

REPOSITORY = "google-bert/bert-base-uncased"
FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
FOLDER = Path(__file__).resolve().parent
#: Weights of the encoder: 12 layers × (4·768² + 2·768·3072).
ENCODER_WEIGHTS = 84_934_656


def main() -> None:
    """Fetch what is missing, then verify everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-only", action="store_true", help="download nothing, verify what is here")
    options = parser.parse_args()
    with exit_on_input_error():
        if not options.check_only:
            for name in FILES:
                if not (FOLDER / name).is_file():
                    _download(name)
        problems = verify(FOLDER)
        if problems:
            raise InputError(problems)
        print(f"{FOLDER}: complete and verified.")


def verify(folder: Path) -> list[str]:
    """All that is wrong with the files of `folder`: missing, of another size than config.json says, cut off."""
    problems = [
        f"{folder / name}: is missing; run {Path(__file__).name} with a network."
        for name in FILES
        if not (folder / name).is_file()
    ]
    if problems:
        return problems
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    if len(words) != config["vocab_size"]:
        problems.append(f"{folder / 'vocab.txt'}: has {len(words)} words, config.json says {config['vocab_size']}.")
    return problems + _verify_weights(folder / "model.safetensors")


def _verify_weights(path: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        return [f"{path}: is no whole safetensors file ({error}); delete it and fetch it again."]
    matrices = [shape for name, shape in shapes.items() if ".encoder.layer." in name and len(shape) == 2]
    found = sum(rows * cols for rows, cols in matrices)
    if found != ENCODER_WEIGHTS:
        return [f"{path}: has {found:,} encoder weights, BERT-base has {ENCODER_WEIGHTS:,}."]
    return []


def _download(name: str) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        path = Path(hf_hub_download(REPOSITORY, name, local_dir=FOLDER))
        announced = get_hf_file_metadata(hf_hub_url(REPOSITORY, name)).etag
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name}: cannot be downloaded from {REPOSITORY} ({str(error).splitlines()[0].rstrip('.')}). Without a "
            f"network copy {', '.join(FILES)} of that repository into {FOLDER} from a machine that has one, then run "
            f"{Path(sys.argv[0]).name} --check-only; or pass another model's folder with --model."
        ) from None
    # Large files are named by the SHA-256 of their content, small ones by git's hash, which is no checksum of it.
    if announced and len(announced) == 64 and _sha256(path) != announced:
        path.unlink()
        raise InputError(f"{name}: what was downloaded differs from what the hub announced; try again.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
