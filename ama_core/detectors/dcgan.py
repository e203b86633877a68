"""Convolutional networks in the manner of DCGAN that several adversarial detectors share."""

import math

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

GRID = 4  # side of the smallest feature map


def stages(image_size: int) -> int:
    """How often an image is halved before the 4 x 4 grid: 3 for 32 pixels."""
    return int(math.log2(image_size // GRID))


class Features(nn.Module):
    """Images (N, c, S, S) to feature vectors (N, size): convolutions of stride 2, doubled in width at each.

    Args:
        norm: batch normalisation between them. spectral: spectral normalisation of every layer.
    """

    def __init__(self, image_size: int, channels: int, width: int, *, norm: bool = True, spectral: bool = False):
        super().__init__()
        widths = [width * 2**i for i in range(stages(image_size))]
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(zip([channels, *widths], widths)):
            convolution = nn.Conv2d(c_in, c_out, 4, 2, 1, bias=not (norm and i))
            layers.append(spectral_norm(convolution) if spectral else convolution)
            layers += [nn.BatchNorm2d(c_out)] if norm and i else []
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.size = widths[-1] * GRID * GRID

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Generator(nn.Module):
    """Codes (N, nz) to images (N, c, S, S) in [-1, 1]: transposed convolutions of stride 2, halved in width at each."""

    def __init__(self, image_size: int, channels: int, width: int, nz: int):
        super().__init__()
        widths = [width * 2**i for i in reversed(range(stages(image_size)))]
        self.width = widths[0]
        self.from_code = nn.Linear(nz, widths[0] * GRID * GRID)
        layers: list[nn.Module] = []
        for c_in, c_out in zip(widths, [*widths[1:], channels]):
            layers += [nn.BatchNorm2d(c_in), nn.ReLU(), nn.ConvTranspose2d(c_in, c_out, 4, 2, 1)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.from_code(z).unflatten(1, (self.width, GRID, GRID)))


class Critic(nn.Module):
    """Features and a value of each image."""

    def __init__(self, image_size: int, channels: int, width: int, *, norm: bool = True, spectral: bool = False):
        super().__init__()
        self.features = Features(image_size, channels, width, norm=norm, spectral=spectral)
        self.to_value = nn.Linear(self.features.size, 1)
        if spectral:
            spectral_norm(self.to_value)

    def forward(self, x: Tensor) -> Tensor:
        """Values (N,) fp32: a logit, or a Wasserstein value."""
        return self.to_value(self.features(x)).float().squeeze(1)
