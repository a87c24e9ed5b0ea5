"""Masking the linears of a model, finding them, and folding the masks into stock weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from splora.errors import InputError
from splora.masks import METHODS, BlockMask, MaskedLinear, fold, mask_linears, masked_layers, update_global_cutoffs


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(24, 24)
        self.norm = nn.LayerNorm(24)
        self.ffn = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.norm(x + self.attention(x))
        return hidden + self.ffn(hidden)


TARGETS = {"0.attention": (4, 4), "1.attention": (4, 4), "0.ffn.0": (8, 1), "1.ffn.2": (1, 48)}


def model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(Block(), Block())


def masked(method: str, v: float = 0.5) -> tuple[nn.Sequential, list[BlockMask]]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = model()
        masks = mask_linears(net, TARGETS, method, "uniform", 1.0)
    for mask in masks:
        mask.set_threshold(v)
    update_global_cutoffs(masks)
    return net, masks


def test_targets_are_wrapped_and_found() -> None:
    net, masks = masked("topK")
    layers = masked_layers(net)
    assert list(layers) == ["0.attention", "0.ffn.0", "1.attention", "1.ffn.2"]
    assert all(isinstance(layer, MaskedLinear) for layer in layers.values())
    assert [mask.block for mask in masks] == list(TARGETS.values())
    assert all(net.get_submodule(name).block_mask is mask for name, mask in zip(TARGETS, masks, strict=True))
    assert sorted(mask.index for mask in masks) == [0, 1, 2, 3]
    more = mask_linears(net, {"0.ffn.2": (2, 2)}, "topK")
    assert more[0].index == 4


def test_a_full_mask_changes_nothing() -> None:
    net, _ = masked("topK", 1.0)
    x = torch.randn(3, 24)
    assert torch.equal(net(x), model()(x))


def test_wrapped_layers_keep_their_mode_and_place() -> None:
    net = model().eval().to("meta")
    (mask,) = mask_linears(net, {"0.attention": (4, 4)}, "topK")
    assert not net[0].attention.training
    assert not mask.training
    assert mask.scores is not None
    assert mask.scores.is_meta


@pytest.mark.parametrize("method", METHODS)
def test_folding_gives_the_stock_model_with_the_same_outputs_and_exact_zeros(method: str) -> None:
    net, masks = masked(method)
    net.eval()
    x = torch.randn(5, 24)
    expected = net(x)
    pruned = {name: ~layer.binary_mask() for name, layer in masked_layers(net).items()}
    fold(net)
    stock = model()
    assert [(name, type(m)) for name, m in net.named_modules()] == [(n, type(m)) for n, m in stock.named_modules()]
    assert list(net.state_dict()) == list(stock.state_dict())
    assert torch.equal(net(x), expected)
    for name, (p, q) in TARGETS.items():
        weight = net.get_submodule(name).weight
        blocks = weight.unflatten(0, (-1, p)).unflatten(2, (-1, q)).transpose(1, 2)
        zeros = blocks[pruned[name]]
        assert zeros.numel() == pruned[name].sum() * p * q > 0
        assert not zeros.any()
        assert not zeros.signbit().any()
        assert blocks[~pruned[name]].all(), "kept blocks keep their values"
    assert len(masks) == len(TARGETS)


def test_a_masked_linear_alone_folds_to_its_linear() -> None:
    mask = BlockMask((4, 4), (2, 2), "topK", "uniform", 1.0)
    mask.set_threshold(0.25)
    linear = fold(MaskedLinear(nn.Linear(4, 4), mask))
    assert type(linear) is nn.Linear
    assert int((linear.weight == 0).sum()) == 12


@pytest.mark.parametrize("method", METHODS)
def test_packed_to_bits_a_mask_keeps_its_density(method: str) -> None:
    net, _ = masked(method, 0.3)
    for layer in masked_layers(net.eval()).values():
        assert isinstance(layer, MaskedLinear)
        kept = layer.binary_mask()
        bits = np.packbits(kept.numpy().ravel())
        assert bits.nbytes == -(-kept.numel() // 8)
        back = np.unpackbits(bits, count=kept.numel()).reshape(kept.shape)
        assert torch.equal(torch.from_numpy(back).bool(), kept)
        assert int.from_bytes(bits.tobytes(), "big").bit_count() == int(kept.sum())


def test_a_wrapper_that_passes_attributes_on_does_not_hide_the_layer() -> None:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

    wrapper = Wrapper(MaskedLinear(nn.Linear(4, 4), BlockMask((4, 4), (2, 2), "topK")))
    assert list(masked_layers(wrapper)) == ["inner"]


def test_a_checkpoint_of_a_masked_model_loads_into_another() -> None:
    net, _ = masked("topK_global", 0.3)
    other, _ = masked("topK_global", 0.9)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(net.state_dict())
    x = torch.randn(3, 24)
    assert torch.equal(other(x), net(x))


def test_all_bad_targets_are_named_and_nothing_is_wrapped() -> None:
    net = model()
    targets = {"0.attention": (4, 4), "0.atention": (4, 4), "1.norm": (1, 1), "1.ffn.0": (5, 4)}
    with pytest.raises(InputError) as caught:
        mask_linears(net, targets, "topK")
    missing, norm, grid = caught.value.problems
    assert "0.atention" in missing
    assert "did you mean '0.attention'" in missing
    assert "1.norm" in norm
    assert "LayerNorm" in norm
    assert all(word in grid for word in ("1.ffn.0", "48 × 24", "5 × 4", "4 or 6"))
    assert masked_layers(net) == {}


def test_an_unknown_method_is_said_once_per_layer_and_wraps_nothing() -> None:
    net = model()
    with pytest.raises(InputError, match="did you mean 'magnitude'"):
        mask_linears(net, {"0.attention": (4, 4)}, "magnitute")
    assert masked_layers(net) == {}
