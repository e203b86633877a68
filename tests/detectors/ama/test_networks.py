"""E, G and D: sizes of the paper, shapes, and the same functions written out once more from the layers' table."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ama_core import AMADetector, Config
from ama_core.detectors.ama.networks import Critic, Encoder, Generator, Networks, build_networks, count_parameters

SMALL = dict(nz=8, width_encoder=8, width_generator=8, width_critic=8)


def small(**changes) -> Config:
    return Config(**{**SMALL, **changes})


def warmed_up(config: Config, forwards: int = 3, scale: float = 1.0) -> Networks:
    """Networks with biases and batch-norm statistics that are not the initial zeros and ones."""
    torch.manual_seed(0)
    networks = Networks(config)
    with torch.no_grad():
        for name, p in networks.named_parameters():
            if name.endswith("bias"):
                p.copy_(0.2 * torch.randn_like(p))
        for _ in range(forwards):
            x = scale * torch.randn(6, config.channels, config.image_size, config.image_size)
            networks.D(networks.pair(x, networks.reconstruct(x)))
    return networks


def test_parameter_counts_of_the_paper():
    networks = Networks(Config())
    counts = [round(count_parameters(getattr(networks, name)) / 1e6, 2) for name in "EGD"]
    assert counts == [1.18, 4.28, 1.06]


def test_parameter_counts_by_hand():
    e, g, d, z, c = 64, 256, 128, 128, 3
    networks = Networks(Config())
    convolutions = 16 * (c * e + e * 2 * e + 2 * e * 4 * e + 4 * e * z)
    assert count_parameters(networks.E) == convolutions + 2 * (e + 2 * e + 4 * e)
    block = 2 * (9 * g * g + g) + (g * g + g) + 2 * 2 * g
    assert count_parameters(networks.G) == (z + 1) * 16 * g + 3 * block + 2 * g + 9 * g * c + c
    three, one = 9 * d * d + d, d * d + d
    first = (9 * 2 * c * d + d) + three + (2 * c * d + d)
    assert count_parameters(networks.D) == first + (2 * three + one) + 2 * 2 * three + d


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reconstruction", ["mirrored", "plain"])
def test_shapes(image_size, channels, reconstruction):
    config = small(image_size=image_size, channels=channels, reconstruction=reconstruction, width_critic=12, nz=5)
    networks = Networks(config)
    x = torch.rand(2, channels, image_size, image_size) * 2 - 1
    z = networks.E(x)
    x_hat = networks.G(z)
    pair = networks.pair(x, x_hat)
    assert z.shape == (2, 5) and x_hat.shape == x.shape and x_hat.abs().max() <= 1
    assert pair.shape == (2, channels * (2 if reconstruction == "mirrored" else 1), image_size, image_size)
    assert networks.D.feature_map(pair).shape == (2, 12, 8, 8)
    assert networks.D.features(pair).shape == (2, 12) and networks.D(pair).shape == (2,)


@pytest.mark.parametrize("width", [4, 7, 33])
def test_any_width(width):
    config = Config(nz=3, width_encoder=width, width_generator=width, width_critic=width)
    x = torch.rand(2, 3, 32, 32)
    networks = Networks(config)
    assert networks.D(networks.pair(x, networks.reconstruct(x))).shape == (2,)


def test_the_pair_is_x_first_and_the_plain_critic_sees_the_second_alone():
    x, y = torch.rand(2, 2, 3, 32, 32)
    torch.testing.assert_close(Networks(small()).pair(x, y), torch.cat([x, y], dim=1))
    torch.testing.assert_close(Networks(small(reconstruction="plain")).pair(x, y), y)


def test_nothing_but_convolution_is_applied_to_the_code():
    """z is linear in the last feature map, so it takes both signs and any size."""
    encoder = Encoder(small()).eval()
    x = torch.randn(64, 3, 32, 32)
    h = encoder.features(x)
    expected = torch.einsum("nchw,zchw->nz", h, encoder.to_code.weight)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-4)
    assert encoder(x).min() < 0 < encoder(x).max()
    assert isinstance(encoder.features[2], nn.LeakyReLU) and encoder.features[2].negative_slope == 0.2


def test_critic_has_no_batch_norm_and_rows_are_independent():
    critic = Critic(small())
    assert not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in critic.modules())
    critic.eval()
    pair = torch.randn(5, 6, 32, 32)
    torch.testing.assert_close(critic(pair), torch.cat([critic(row[None]) for row in pair]), rtol=1e-4, atol=1e-4)


def test_every_critic_layer_is_normalised_and_no_other():
    networks = Networks(small())
    for module in networks.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            in_critic = any(module is m for m in networks.D.modules())
            assert hasattr(module, "parametrizations") == in_critic


def test_spectral_norm_of_the_critic_is_one():
    critic = Critic(small(width_critic=16))
    with torch.no_grad():
        for _ in range(60):
            critic(torch.randn(1, 6, 32, 32))
    critic.eval()
    for module in critic.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            matrix = module.weight.detach().flatten(1).numpy().astype(np.float64)
            assert np.linalg.svd(matrix, compute_uv=False)[0] == pytest.approx(1, abs=0.02)


def test_features_are_the_spatial_sum_after_the_last_relu():
    networks = warmed_up(small()).eval()
    pair = torch.randn(3, 6, 32, 32)
    with torch.no_grad():
        grid = networks.D.feature_map(pair).numpy()
        f = networks.D.features(pair).numpy()
        value = networks.D(pair).numpy()
    assert grid.min() == 0 and (grid == 0).any()
    np.testing.assert_allclose(f, grid.astype(np.float64).sum(axis=(2, 3)), rtol=1e-5)
    weight = networks.bare_state()["D.to_value.weight"].numpy().astype(np.float64)
    np.testing.assert_allclose(value, f.astype(np.float64) @ weight[0], rtol=1e-4, atol=1e-4)


def critic_by_hand(w: dict, pair: torch.Tensor, n_blocks: int, n_down: int) -> torch.Tensor:
    """The table's critic in the textbook order: the 1x1 shortcut *before* pooling. Returns f."""
    h = pair
    for i in range(n_blocks):
        convs = [name for name in w if name.startswith(f"D.blocks.{i}.residual") and name.endswith("weight")]
        first, second = (name.removesuffix("weight") for name in sorted(convs))
        r = h if i == 0 else F.relu(h)
        r = F.conv2d(r, w[first + "weight"], w[first + "bias"], padding=1)
        r = F.conv2d(F.relu(r), w[second + "weight"], w[second + "bias"], padding=1)
        if i < n_down:
            (shortcut,) = (n.removesuffix("weight") for n in w if n.startswith(f"D.blocks.{i}.shortcut") and "weight" in n)
            skip = F.conv2d(h, w[shortcut + "weight"], w[shortcut + "bias"])
            h = F.avg_pool2d(r, 2) + F.avg_pool2d(skip, 2)
        else:
            h = h + r
    return F.relu(h).sum(dim=(2, 3))


def batch_norm(w: dict, name: str, h: torch.Tensor) -> torch.Tensor:
    mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    scaled = (h - mean.view(1, -1, 1, 1)) / (var.view(1, -1, 1, 1) + 1e-5).sqrt()
    return scaled * w[f"{name}.weight"].view(1, -1, 1, 1) + w[f"{name}.bias"].view(1, -1, 1, 1)


def generator_by_hand(w: dict, z: torch.Tensor, width: int, stages: int) -> torch.Tensor:
    """The table's generator in the textbook order: upsample *before* the 1x1 shortcut."""

    def up(h):
        return h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def conv(name, h, padding=1):
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    h = (z @ w["G.from_code.weight"].T + w["G.from_code.bias"]).reshape(-1, width, 4, 4)
    for i in range(stages):
        block = f"G.blocks.{i}"
        r = conv(f"{block}.residual.3", up(F.relu(batch_norm(w, f"{block}.residual.0", h))))
        r = conv(f"{block}.residual.6", F.relu(batch_norm(w, f"{block}.residual.4", r)))
        h = r + conv(f"{block}.shortcut", up(h), padding=0)
    return torch.tanh(conv("G.to_image.2", F.relu(batch_norm(w, "G.to_image.0", h))))


@pytest.mark.parametrize("image_size, stages", [(32, 3), (64, 4)])
def test_critic_and_generator_are_the_table_s(image_size, stages):
    """Layer by layer in float64; shows also that pooling or upsampling commutes with the 1x1 convolution exactly."""
    config = small(image_size=image_size)
    networks = warmed_up(config, forwards=2).double().eval()
    w = {name: t.double() for name, t in networks.bare_state().items()}
    torch.manual_seed(1)
    with torch.no_grad():
        z = torch.randn(3, 8, dtype=torch.float64)
        torch.testing.assert_close(networks.G(z), generator_by_hand(w, z, 8, stages), rtol=1e-9, atol=1e-9)
        pair = torch.randn(3, 6, image_size, image_size, dtype=torch.float64)
        by_hand = critic_by_hand(w, pair, n_blocks=stages + 1, n_down=stages - 1)
        found = networks.D.feature_map(pair).sum(dim=(2, 3))
        torch.testing.assert_close(found, by_hand, rtol=1e-9, atol=1e-9)


def test_bare_state_is_the_same_critic_without_its_norm():
    config = small(channels=1)
    live = warmed_up(config)
    before = copy.deepcopy(live.state_dict())
    state = live.bare_state()
    assert live.training and live.D.training
    after = live.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    bare = Networks(config, spectral=False)
    bare.load_state_dict(state)  # strict: every tensor, and none too many
    live.eval(), bare.eval()
    x = torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(bare.reconstruct(x), live.reconstruct(x), rtol=0, atol=0)
        pair = live.pair(x, live.reconstruct(x))
        torch.testing.assert_close(bare.D.features(pair), live.D.features(pair), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(bare.D(pair), live.D(pair), rtol=1e-6, atol=1e-6)


def test_bare_state_is_a_copy():
    live = warmed_up(small())
    state = live.bare_state()
    kept = {name: t.clone() for name, t in state.items()}
    with torch.no_grad():
        for p in live.parameters():
            p.add_(1)
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_initialisation():
    """As in the released code. G, D: uniform with |w| < gain sqrt(6 / (fan in + fan out)), gain sqrt(2) on the blocks' 3x3
    convolutions alone. E: |w| < sqrt(1 / fan in). Biases are zero, but for two of G: |b| < sqrt(1 / fan in)."""
    torch.manual_seed(0)
    networks = Networks(Config(width_encoder=16, width_generator=32, width_critic=32), spectral=False)
    pytorch_biases = {"G.from_code", "G.to_image.2"}
    seen = set()
    for name, module in networks.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        seen.add(name)
        w = module.weight.detach().numpy()
        area = int(np.prod(w.shape[2:]))
        gain = 2**0.5 if ".residual." in name else 1
        bound = gain * np.sqrt(6 / (area * (w.shape[0] + w.shape[1])))
        if name.startswith("E"):
            bound = np.sqrt(1 / (area * w.shape[1]))
        assert np.abs(w).max() <= bound * 1.0001, name
        if w.size > 500:
            assert np.abs(w).max() > 0.97 * bound, name
            assert w.std() == pytest.approx(bound / np.sqrt(3), rel=0.1), name
        if module.bias is not None:
            b = module.bias.detach().numpy()
            limit = np.sqrt(1 / (area * w.shape[1])) if name in pytorch_biases else 0
            assert np.abs(b).max() <= limit * 1.0001, name
            assert limit == 0 or np.abs(b).max() > 0.3 * limit, name
    assert pytorch_biases <= seen


def test_the_encoder_starts_as_the_released_one_at_paper_width():
    """Standard deviations of its first and last convolution, from the specification."""
    torch.manual_seed(0)
    encoder = Encoder(Config())
    assert encoder.features[0].weight.std().item() == pytest.approx(0.082, abs=0.003)
    assert encoder.to_code.weight.std().item() == pytest.approx(0.0090, abs=0.0001)


def test_generator_output_follows_the_code():
    generator = Generator(small()).eval()
    with torch.no_grad():
        images = generator(3 * torch.randn(4, 8))
    assert (images[0] - images[1]).abs().max() > 1e-3


def test_building_from_weights_leaves_the_caller_s_random_numbers_alone():
    weights = Networks(small(), spectral=False).state_dict()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    built = build_networks(small(), weights, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in built.state_dict().items())


def folded(x: np.ndarray) -> np.ndarray:
    """(N, c, S, S) to (N, 4 c, S / 2, S / 2), by its definition: channel 4 i + 2 a + b holds the pixels (2 y + a, 2 x + b)."""
    places = [x[:, i, a::2, b::2] for i in range(x.shape[1]) for a in range(2) for b in range(2)]
    return np.stack(places, axis=1)


@torch.no_grad()
def test_folding_makes_pixels_channels_and_back():
    """Of 64 pixels folded by 2, the networks see what those of 32 would, with four times the channels."""
    config = small(image_size=64, channels=3, fold=2)
    networks = Networks(config).eval()
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    small_x = torch.from_numpy(folded(x.numpy()))
    E, G, D = networks.E, networks.G, networks.D
    torch.testing.assert_close(networks.E(x), E.to_code(E.features(small_x)).flatten(1))
    pair = networks.pair(x, x.flip(0))
    torch.testing.assert_close(D.feature_map(pair), D.blocks(torch.from_numpy(folded(pair.numpy()))))
    assert D.feature_map(pair).shape == (2, 8, 8, 8) and len(G.blocks) == 3
    x_hat = networks.reconstruct(x)
    before = G.to_image[:4](G.blocks(G.from_code(networks.E(x)).view(-1, G.width, 4, 4)))
    assert x_hat.shape == x.shape
    np.testing.assert_array_equal(folded(x_hat.numpy()), before.numpy())


def test_a_folded_model_trains_scores_and_is_loaded_again(tmp_path):
    config = small(image_size=64, channels=1, fold=2, batch_size=8, epochs=1, precision="fp32", n_critic=1)
    images = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 1), dtype=np.uint8)
    detector = AMADetector(config, device="cpu", verbose=False).fit(images)
    detector.save(tmp_path / "m")
    again = AMADetector.load(tmp_path / "m", device="cpu")
    assert again.config.fold == 2
    np.testing.assert_array_equal(again.scores(images[:5])["T"], detector.scores(images[:5])["T"])
    assert sum(stage.parameters for stage in again.stages()) == count_parameters(again.networks_)
    assert again.maps(images[:2]).shape == (2, 8, 8)
