"""A detector as one module from uint8 images to scores and p-value: what another program needs, calibration included."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.conformal import as_stored

Outputs = dict[str, Tensor]


class Graph(nn.Module):
    """Everything that a detector says of images, from uint8 (N, S, S, C) to named tensors.

    Args:
        network: what is computed with. outputs: from the network and float images (N, C, S, S) in [-1, 1] to outputs by name,
            each with N rows; among them `ranks_by`.
        ranks_by: the output that gives the p-value. low: whether low values of it are anomalous.
        held_out: anomaly scores of held-out normal images, (n,).

    The last output is `p_value` (N,), see `conformal.conformal_p_value`.
    """

    def __init__(
        self,
        network: nn.Module,
        outputs: Callable[[nn.Module, Tensor], Outputs],
        ranks_by: str,
        low: bool,
        held_out: np.ndarray,
    ):
        super().__init__()
        self.network, self.outputs, self.ranks_by, self.low = network, outputs, ranks_by, low
        self.register_buffer("held_out", torch.from_numpy(np.sort(as_stored(held_out))))

    def forward(self, images: Tensor) -> Outputs:
        x = images.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
        found = self.outputs(self.network, x)
        value = found[self.ranks_by].float()
        anomaly = -value if self.low else value
        at_least = (self.held_out[None] >= anomaly[:, None]).double().sum(dim=1)
        return found | {"p_value": (1 + at_least) / (len(self.held_out) + 1)}
