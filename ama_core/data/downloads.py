"""Public data sets through torchvision, as arrays. Each fetcher is (root, split) → (uint8 images, int64 labels), of shapes
(N, H, W, C) and (N,).

torchvision checks what is already under `root` and downloads only what is missing there; what goes wrong with that is raised as
torchvision raises it (see `data.sets.load`).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torchvision import datasets
from torchvision.datasets.utils import download_url

Arrays = tuple[np.ndarray, np.ndarray]
SIZE = 32
TINY_IMAGENET = ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")


def mnist(root: Path, split: str) -> Arrays:
    """Handwritten digits, (N, 28, 28, 1), labels 0 to 9; 60,000 for train and 10,000 for test."""
    return _grey(datasets.MNIST(root, train=split == "train", download=True))


def fashionmnist(root: Path, split: str) -> Arrays:
    """Clothes, (N, 28, 28, 1), labels 0 to 9; 60,000 for train and 10,000 for test."""
    return _grey(datasets.FashionMNIST(root, train=split == "train", download=True))


def cifar10(root: Path, split: str) -> Arrays:
    """Photographs of objects, (N, 32, 32, 3), labels 0 to 9; 50,000 for train and 10,000 for test."""
    data = datasets.CIFAR10(root, train=split == "train", download=True)
    return data.data, np.array(data.targets, np.int64)


def cifar100(root: Path, split: str) -> Arrays:
    """Photographs of objects, (N, 32, 32, 3), labels 0 to 99; 50,000 for train and 10,000 for test."""
    data = datasets.CIFAR100(root, train=split == "train", download=True)
    return data.data, np.array(data.targets, np.int64)


def svhn(root: Path, split: str) -> Arrays:
    """House numbers, (N, 32, 32, 3), labels 0 to 9, the digit in the centre; 73,257 for train and 26,032 for test."""
    data = datasets.SVHN(root, split=split, download=True)
    return np.ascontiguousarray(data.data.transpose(0, 2, 3, 1)), data.labels.astype(np.int64)


def omniglot(root: Path, split: str) -> Arrays:
    """105×105, black on white → 32×32, white on black, area-averaged. train is "background", test "evaluation"."""
    data = datasets.Omniglot(root, background=split == "train", download=True)
    return _stack((ImageOps.invert(image.convert("L")), label) for image, label in data)


def gtsrb(root: Path, split: str) -> Arrays:
    """Signs of 15 to 250 pixels → 32×32, antialiased, whatever the aspect (they are nearly square)."""
    return _stack(datasets.GTSRB(root, split=split, download=True), Image.Resampling.BILINEAR)


def tinyimagenet(root: Path, split: str) -> Arrays:
    """64×64 → 32×32, antialiased. test is the official "val", whose labels are public; read from the archive itself."""
    url, md5 = TINY_IMAGENET
    download_url(url, root, md5=md5)
    with zipfile.ZipFile(root / Path(url).name) as archive:
        top = "tiny-imagenet-200"
        classes = {name: i for i, name in enumerate(sorted(archive.read(f"{top}/wnids.txt").decode().split()))}
        if split == "train":
            names = sorted(n for n in archive.namelist() if n.startswith(f"{top}/train/") and n.endswith(".JPEG"))
            members = [(name, classes[name.split("/")[2]]) for name in names]
        else:
            lines = archive.read(f"{top}/val/val_annotations.txt").decode().splitlines()
            members = [(f"{top}/val/images/{name}", classes[wnid]) for name, wnid, *_ in map(str.split, lines)]
        opened = ((Image.open(io.BytesIO(archive.read(name))).convert("RGB"), label) for name, label in members)
        return _stack(opened, Image.Resampling.BILINEAR)


FETCHERS = {f.__name__: f for f in (fashionmnist, mnist, omniglot, cifar10, cifar100, svhn, gtsrb, tinyimagenet)}


def _grey(data: datasets.MNIST) -> Arrays:
    return data.data.numpy()[..., None], data.targets.numpy().astype(np.int64)


def _stack(pairs: Iterable[tuple[Image.Image, int]], resample=Image.Resampling.BOX) -> Arrays:
    images, labels = zip(*((np.asarray(image.resize((SIZE, SIZE), resample)), label) for image, label in pairs), strict=True)
    stacked = np.stack(images)
    return stacked if stacked.ndim == 4 else stacked[..., None], np.array(labels, np.int64)
