"""Names of weights under which programs save a model that they have wrapped, and the model's own names for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

#: What a wrapped model's weights begin with: DataParallel and DDP, Lightning modules, this program's, torch.compile.
PREFIXES = ("module.", "model.", "network.", "_orig_mod.")
#: Wrappers within a name: torch.compile, FSDP, activation checkpointing, DeepSpeed.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
#: Endings that old checkpoints have.
_OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def own_names(found: Iterable[str], wanted: Collection[str], base: str) -> dict[str, str]:
    """The model's own name of each tensor whose name in the file is a wrapper's, by the name in the file.

    Args:
        found: names in the checkpoint.
        wanted: names that the model has.
        base: where its encoder stands (`bert`), which checkpoints of an encoder alone leave out.
    """
    known = {*wanted, *(name.removeprefix(f"{base}.") for name in wanted)}
    return {name: own for name in found if (own := _own(name, known)) != name}


def prefixes(names: dict[str, str]) -> str:
    """What was taken away, for a sentence: `module.` or `model._orig_mod.`, each once."""
    return ", ".join(sorted({_removed(name, own) for name, own in names.items()}))


def _own(name: str, known: Collection[str]) -> str:
    """The longest end of a name, without wrappers, that the model knows; the name itself where there is none."""
    bare = name
    for wrapper in WRAPPERS:
        bare = bare.removeprefix(wrapper).replace(f".{wrapper}", ".")
    while True:
        old = next((end for end in _OLD_ENDINGS if bare.endswith(end)), None)
        plain = bare if old is None else bare.removesuffix(old) + _OLD_ENDINGS[old]
        if plain in known:
            return bare
        prefix = next((prefix for prefix in PREFIXES if bare.startswith(prefix)), None)
        if prefix is None:
            return name
        bare = bare.removeprefix(prefix)


def _removed(name: str, own: str) -> str:
    if name.endswith(own):
        return name.removesuffix(own)
    return "".join(wrapper for wrapper in WRAPPERS if wrapper in name)
