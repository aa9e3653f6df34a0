"""Names of the classes of public data sets, in the order of their logits."""

from __future__ import annotations

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IMAGENETTE = {
    0: "tench",
    217: "English_springer",
    482: "cassette_player",
    491: "chain_saw",
    497: "church",
    566: "French_horn",
    569: "garbage_truck",
    571: "gas_pump",
    574: "golf_ball",
    701: "parachute",
}  # index among ImageNet's 1,000 -> name


def numbered(count: int) -> tuple[str, ...]:
    """Classes whose names are not known here: "0", "1", ..."""
    return tuple(str(i) for i in range(count))
