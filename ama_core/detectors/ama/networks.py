"""Encoder E, generator G and critic D (layers as in the released code; SN-GAN residual blocks).

One more stage per doubling of the input size: 32 -> 64 -> 128 pixels.

All images are float tensors (N, C, H, W) in [-1, 1].
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from ama_core.detectors.ama.config import Config
from ama_core.detectors.modules import PooledConv2d, UpsampledConv2d, rebuilt

GRID = 4  # side of the smallest feature map of E and G


def _stages(config: Config) -> int:
    """How often the input is halved before the 4x4 grid: 3 for 32 pixels."""
    return int(math.log2(config.image_size // config.fold // GRID))


def _fold(config: Config) -> nn.Module:
    """Squares of pixels to channels, (N, c, S, S) to (N, c fold^2, S / fold, S / fold); nothing where fold is 1."""
    return nn.PixelUnshuffle(config.fold) if config.fold > 1 else nn.Identity()


class Encoder(nn.Module):
    """E: image (N, c, S, S) to code z (N, nz). Nothing is applied to z."""

    def __init__(self, config: Config):
        super().__init__()
        widths = [config.width_encoder * min(2**i, 4) for i in range(_stages(config))]
        layers: list[nn.Module] = []
        for c_in, c_out in zip([config.channels * config.fold**2, *widths], widths):
            layers += [nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2, inplace=True)]
        self.fold = _fold(config)
        self.features = nn.Sequential(*layers)
        self.to_code = nn.Conv2d(widths[-1], config.nz, GRID, bias=False)
        # Initialised as PyTorch does by default [C].

    def forward(self, x: Tensor) -> Tensor:
        """Codes (N, nz) of images x (N, c, S, S) in [-1, 1]."""
        return self.to_code(self.features(self.fold(x))).flatten(1)


class UpBlock(nn.Module):
    """Generator residual block that doubles the resolution."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.residual = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Identity(),  # stored weights are named by their place
            UpsampledConv2d(width, width),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        # A 1x1 convolution commutes with nearest upsampling, and costs a quarter before it.
        return self.residual(h) + self.up(self.shortcut(h))


class Generator(nn.Module):
    """G: code z (N, nz) to image (N, c, S, S) in [-1, 1] (tanh)."""

    def __init__(self, config: Config):
        super().__init__()
        self.width = config.width_generator
        self.from_code = nn.Linear(config.nz, GRID * GRID * self.width)
        self.blocks = nn.Sequential(*(UpBlock(self.width) for _ in range(_stages(config))))
        self.to_image = nn.Sequential(
            nn.BatchNorm2d(self.width),
            nn.ReLU(),
            nn.Conv2d(self.width, config.channels * config.fold**2, 3, padding=1),
            nn.Tanh(),
            *([nn.PixelShuffle(config.fold)] if config.fold > 1 else []),
        )
        _initialise_blocks(self.blocks)
        for layer in (self.from_code, self.to_image[2]):  # their biases keep PyTorch's default [C]
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, z: Tensor) -> Tensor:
        """Images (N, c, S, S) in [-1, 1] of codes z (N, nz)."""
        return self.to_image(self.blocks(self.from_code(z).unflatten(1, (self.width, GRID, GRID))))


class CriticBlock(nn.Module):
    """Critic residual block. `first` leaves out the activation before the first convolution, `down` halves the grid."""

    def __init__(self, c_in: int, width: int, *, first: bool = False, down: bool = False):
        super().__init__()
        self.residual = nn.Sequential(
            *([] if first else [nn.ReLU()]),
            nn.Conv2d(c_in, width, 3, padding=1),
            nn.ReLU(),
            PooledConv2d(width, width) if down else nn.Conv2d(width, width, 3, padding=1),
        )
        # Pooling and a 1x1 convolution commute: pool first, a quarter of the work.
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(c_in, width, 1)) if down else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        return self.residual(h) + self.shortcut(h)


class Critic(nn.Module):
    """D: a pair (x, y), concatenated on channels as (N, 2c, S, S), to its Wasserstein value.

    The plain ablation looks at single images (N, c, S, S). Every layer carries a spectral norm (one power iteration per
    training forward); a bundle stores the normalised weights, for which `spectral=False` builds the same network bare.
    """

    def __init__(self, config: Config, *, spectral: bool = True):
        super().__init__()
        width = config.width_critic
        c_in = config.channels * config.fold**2 * (2 if config.reconstruction == "mirrored" else 1)
        downs = _stages(config) - 2  # the first block halves too: 32 -> 8x8
        self.fold = _fold(config)
        self.blocks = nn.Sequential(
            CriticBlock(c_in, width, first=True, down=True),
            *(CriticBlock(width, width, down=True) for _ in range(downs)),
            CriticBlock(width, width),
            CriticBlock(width, width),
            nn.ReLU(),
        )
        self.to_value = nn.Linear(width, 1, bias=False)
        _initialise_blocks(self.blocks)
        nn.init.xavier_uniform_(self.to_value.weight)
        if spectral:
            for layer in _layers(self):
                spectral_norm(layer)

    def feature_map(self, pair: Tensor) -> Tensor:
        """Features before the spatial sum, (N, width, S/4, S/4) at 32 pixels: where the critic sees what."""
        return self.blocks(self.fold(pair))

    def feature_map_and_block_means(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """`feature_map`, and the spatial means of the outputs of all residual blocks, one after the other: (N, blocks * width)
        fp32.
        """
        h, means = self.fold(pair), []
        for block in self.blocks[:-1]:
            h = block(h)
            means.append(h.float().mean(dim=(2, 3)))
        return self.blocks[-1](h), torch.cat(means, dim=1)

    def features(self, pair: Tensor) -> Tensor:
        """f(x, y), (N, width) fp32: after the last ReLU and the spatial *sum*, before the linear layer."""
        return self.feature_map(pair).float().sum(dim=(2, 3))

    def value(self, f: Tensor) -> Tensor:
        """D's value (N,) from the features f, fp32 also under autocast: losses are small differences of these."""
        with torch.autocast(f.device.type, enabled=False):
            return self.to_value(f).squeeze(1)

    def forward(self, pair: Tensor) -> Tensor:
        """Values (N,), fp32, of pairs (N, 2c, S, S); in the plain ablation of images (N, c, S, S)."""
        return self.value(self.features(pair))


class Networks(nn.Module):
    """E, G and D of one model, together."""

    def __init__(self, config: Config, *, spectral: bool = True):
        super().__init__()
        self.config = config
        self.E = Encoder(config)
        self.G = Generator(config)
        self.D = Critic(config, spectral=spectral)

    def reconstruct(self, x: Tensor) -> Tensor:
        """x_hat = G(E(x))."""
        return self.G(self.E(x))

    def pair(self, x: Tensor, y: Tensor) -> Tensor:
        """The critic's input for (x, y): concatenated channels, or y alone in the plain ablation."""
        return torch.cat([x, y], dim=1) if self.config.reconstruction == "mirrored" else y

    def bare_state(self) -> dict[str, Tensor]:
        """State for `Networks(config, spectral=False)`: the critic's weights with their norm divided out."""
        was_training = self.D.training
        self.D.eval()  # a training forward would advance the power iteration
        state = {}
        for name, module in self.named_modules():
            prefix = f"{name}." if name else ""
            if ".parametrizations" in name:
                continue
            if parametrize.is_parametrized(module, "weight"):
                state[f"{prefix}weight"] = module.weight.detach()
                own = {key: p for key, p in module.named_parameters(recurse=False)}
            else:
                own = {key: p for key, p in module.named_parameters(recurse=False)}
                own |= {key: b for key, b in module.named_buffers(recurse=False)}
            state |= {f"{prefix}{key}": tensor.detach() for key, tensor in own.items()}
        self.D.train(was_training)
        return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def build_networks(config: Config, weights: dict[str, Tensor], device: torch.device) -> Networks:
    """Networks in eval mode on `device`, fp32, from the weights of `Networks.bare_state`.

    Raises ValueError where they do not belong to these settings.
    """
    return rebuilt(lambda: Networks(config, spectral=False), weights, device, torch.channels_last)


@dataclass(frozen=True)
class Stage:
    """A step on the way through a network; `shape` is what it hands on, (channels, height, width) or (length,)."""

    network: str
    name: str
    shape: tuple[int, ...]
    parameters: int


@torch.no_grad()
def summary(networks: Networks) -> list[Stage]:
    """The stages of E, G and D in order, as a black image passes through them; networks in eval mode."""
    config = networks.config
    size = (1, config.channels, config.image_size, config.image_size)
    x = torch.zeros(size, device=next(networks.parameters()).device)
    stages: list[Stage] = []

    def record(network: str, name: str, out: Tensor, *modules: nn.Module) -> Tensor:
        stages.append(Stage(network, name, tuple(out.shape[1:]), sum(map(count_parameters, modules))))
        return out

    E, G, D = networks.E, networks.G, networks.D
    h = record("E", "image x", x)
    if config.fold > 1:
        h = record("E", f"{config.fold}×{config.fold} pixels as channels", E.fold(h))
    for i in range(0, len(E.features), 3):
        step = E.features[i : i + 3]
        h = record("E", "conv 4×4, stride 2; batch norm; LeakyReLU", step(h), step)
    z = record("E", "conv 4×4 to the code z", E.to_code(h).flatten(1), E.to_code)
    h = record("G", "linear, from the code z", G.from_code(z).view(-1, G.width, GRID, GRID), G.from_code)
    for block in G.blocks:
        h = record("G", "residual block, doubled", block(h), block)
    x_hat = record("G", "batch norm; conv 3×3; tanh: x̂", G.to_image(h), G.to_image)
    pair = networks.pair(x, x_hat)
    h = record("D", "pair (x, x̂), on top of each other" if config.reconstruction == "mirrored" else "x̂ alone", pair)
    if config.fold > 1:
        h = record("D", f"{config.fold}×{config.fold} pixels as channels", D.fold(h))
    for block in D.blocks[:-1]:
        smaller = isinstance(block.shortcut, nn.Sequential)
        h = record("D", f"residual block{', halved' if smaller else ''}", block(h), block)
    f = record("D", "ReLU; sum over the grid: f", D.features(pair))
    record("D", "linear: the critic's value", D.to_value(f), D.to_value)
    return stages


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _layers(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def _initialise_blocks(blocks: nn.Module) -> None:
    """Residual blocks of G and D: Xavier-uniform, gain sqrt(2) on 3x3 convolutions and 1 on shortcuts; biases zero [C]."""
    for layer in _layers(blocks):
        nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(2) if layer.kernel_size == (3, 3) else 1.0)
        nn.init.zeros_(layer.bias)
