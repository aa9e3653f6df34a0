"""Public checkpoints reach the accuracies published with them, where the data and the files are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.data.folder import labelled_folder
from forearm.errors import ArtifactError
from forearm.models.load import load_model

WEIGHTS = sets.root() / "cifar10_weights"
MOBILE = sets.root() / "imagenet" / "weights"


def share_right(name: str, pictures: Pictures) -> float:
    model = load_model(name)
    with torch.no_grad():
        right = [model(batch.x).argmax(1) == batch.y for batch in pictures.batches(50)]
    return float(torch.cat(right).float().mean())


@pytest.fixture(scope="module")
def cifar() -> Pictures:
    if not (sets.root() / "cifar10").is_dir():
        pytest.skip(f"no cifar10 under {sets.root()}")
    return sets.load("cifar10", "test").first(200)


@pytest.mark.parametrize(
    ("kind", "file", "low", "high"),
    [
        ("resnet20_a", "akamaster/resnet20-12fca82f.th", 0.88, 0.97),
        ("resnet2b", "abcrown/resnet2b.pth", 0.60, 0.80),
        ("cnn_a_adv4", "abcrown/cifar_cnn_a_adv4.model", 0.50, 0.70),
    ],
)
def test_cifar10_checkpoints(cifar: Pictures, kind: str, file: str, low: float, high: float) -> None:
    if not (WEIGHTS / file).is_file():
        pytest.skip(f"no {file} under {WEIGHTS}")
    assert low < share_right(f"{kind}={WEIGHTS / file}", cifar) < high


@pytest.mark.parametrize("depth", [32, 44, 56])
def test_the_deeper_ones_load(depth: int) -> None:
    found = list(WEIGHTS.glob(f"akamaster/resnet{depth}-*.th"))
    if not found:
        pytest.skip(f"no ResNet-{depth} under {WEIGHTS}")
    assert load_model(f"resnet{depth}_a={found[0]}").size == 32


@pytest.mark.parametrize("kind", ["ptq_int8", "quant_uint8"])
def test_mobilenet_on_photos(kind: str) -> None:
    file, folder = MOBILE / f"mobilenet_v2_1.0_224_{kind}.npz", sets.root() / "imagenette"
    if not (file.is_file() and folder.is_dir()):
        pytest.skip(f"no MobileNetV2 or imagenette under {sets.root()}")
    chosen = iter(range(10**6))
    photos = labelled_folder(folder, 224, lambda row: row["origin"] == "ilsvrc_val" and next(chosen) % 50 == 0)
    assert len(photos) == 10
    assert share_right(f"mobilenet_v2_ten={file}", photos) >= 0.7
    ten, all_ = load_model(f"mobilenet_v2_ten={file}"), load_model(f"mobilenet_v2={file}")
    x = photos.images[:1].float() / 255
    columns = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    with torch.no_grad():
        assert torch.equal(ten(x), all_(x)[:, columns])
        assert all_(x).shape == (1, 1000)


def test_a_file_of_other_operations_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", meta_json=np.frombuffer(b'{"ops": [{"op": "conv", "stride": 2, "groups": 1}]}', np.uint8))
    with pytest.raises(ArtifactError, match="other operations"):
        load_model(f"mobilenet_v2={tmp_path / 'a.npz'}")
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    with pytest.raises(ArtifactError, match="no quantised MobileNetV2"):
        load_model(f"mobilenet_v2={tmp_path / 'b.npz'}")
