"""Convolutions that pool or upsample by themselves: function, gradient and gradient of a gradient as one after the other."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ama_core.detectors.modules import PooledConv2d, UpsampledConv2d


def one_after_the_other(layer, x):
    if isinstance(layer, PooledConv2d):
        return F.avg_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=1), 2)
    return F.conv2d(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), layer.weight, layer.bias, padding=1)


def everything(apply, layer, x):
    """The output, the gradients of a loss, and those of a penalty on the input's gradient, as a critic's training has them."""
    y = apply(x)
    (of_input,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
    parameters = list(layer.parameters())
    first = torch.autograd.grad((y**2).sum(), parameters, retain_graph=True)
    second = torch.autograd.grad((of_input.flatten(1).norm(dim=1) - 1).square().sum(), parameters)
    return [y, of_input, *first, *second]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", [PooledConv2d, UpsampledConv2d])
@pytest.mark.parametrize("size", [(2, 2), (8, 8), (4, 10)])
def test_the_same_as_one_after_the_other(kind, size, normalised):
    torch.manual_seed(0)
    layer = kind(3, 5).double()
    assert layer.weight.shape == (5, 3, 3, 3), "stored as the plain 3x3 kernel"
    if normalised:
        spectral_norm(layer)
    layer.eval()  # of a spectral norm no further power iteration
    x = torch.randn(4, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = everything(lambda x: one_after_the_other(layer, x), layer, x)
    for joined in (True, False):
        layer.joined = joined
        for ours, theirs in zip(everything(layer, layer, x), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_trained_model_scores_the_same_either_way(tiny_detector, digits):
    images = digits.images[:16]
    joined = tiny_detector.scores(images)
    layers = [m for m in tiny_detector.networks_.modules() if isinstance(m, (PooledConv2d, UpsampledConv2d))]
    assert {type(layer) for layer in layers} == {PooledConv2d, UpsampledConv2d}
    try:
        for layer in layers:
            layer.joined = False
        apart = tiny_detector.scores(images)
    finally:
        for layer in layers:
            del layer.joined
    for name, values in joined.items():
        torch.testing.assert_close(torch.from_numpy(values), torch.from_numpy(apart[name]), rtol=1e-3, atol=1e-5)
