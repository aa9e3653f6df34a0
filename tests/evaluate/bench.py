"""A bench in miniature, on disk: random pictures, most of which a tiny network gets right, and tiny networks of different shapes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from forearm.evaluate.cell import Cell, spans
from forearm.evaluate.chosen import Chosen, Sources
from forearm.evaluate.matrix import cells, matrix_from
from forearm.jobs.train import write_weights
from forearm.models.card import Card, write_card
from forearm.models.classes import CIFAR10
from forearm.models.load import load_model
from forearm.models.weights import file_sum
from tests.models.tiny import ARCH, network

N = 60


def write_bench(folder: Path) -> Path:
    """`folder` with models `victim`, `backbone` and `labeller`, and `data/cifar10` in the binary version: 60 pictures, every sixth label wrong."""
    coarse = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    pixels = (torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear") * 255.0).to(torch.uint8)
    for name, arch in (("victim", ARCH), ("backbone", "preact_resnet(width=6, blocks=(1, 1))"), ("labeller", "resnet9(width=4)")):
        write_balanced(folder / name, arch, pixels.float() / 255.0)
    with torch.no_grad():
        y = load_model(folder / "victim")(pixels.float() / 255.0).argmax(1)
    y[::6] = (y[::6] + 1) % 10
    (folder / "data" / "cifar10").mkdir(parents=True)
    records = torch.cat([y[:, None].to(torch.uint8), pixels.flatten(1)], 1)
    records.numpy().tofile(folder / "data" / "cifar10" / "test_batch.bin")
    return folder


def write_balanced(folder: Path, arch: str, x: Tensor) -> None:
    """A network of random weights that likes no class better than another on the whole: its mean logits over `x` are taken off its last bias,
    where it has one."""
    made = network(arch)
    last = [module for module in made.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        logits = made(x)
        last.weight.mul_(5.0 / logits.std(0).mean())
        if last.bias is not None:
            last.bias.zero_().sub_(made(x).mean(0))
    folder.mkdir(parents=True)
    write_weights(made, folder / "weights.safetensors")
    card = Card(
        name=folder.name, arch=arch, weights="weights.safetensors", sha256=file_sum(folder / "weights.safetensors"), classes=CIFAR10, size=32
    )  # fmt: skip
    write_card(card, folder / "card.toml")


def matrix_text(
    folder: Path,
    attacks: str = '"fgsm"',
    defenses: str = '"none"',
    threats: str = '"linf:1/255"',
    more: str = "",
    top: str = "examples = 30",
) -> str:
    """A matrix over the bench in `folder`; lists without their brackets."""
    return f"""
dataset = "cifar10"
backbone = "{folder / "backbone"}"
labeller = "{folder / "labeller"}"
masking = false
{top}
[[grid]]
models = ["{folder / "victim"}"]
attacks = [{attacks}]
defenses = [{defenses}]
threats = [{threats}]
{more}
"""


def cells_of(folder: Path, text: str) -> tuple[Cell, ...]:
    """The cells of a matrix over the bench."""
    return cells(matrix_from(text, "matrix"), Sources(folder / "data"))


def block_of(folder: Path, cell: Cell, number: int = 0) -> Chosen:
    """One block of a cell's pictures."""
    whole = Sources(folder / "data").pictures(cell.dataset, cell.split, cell.examples, cell.pick)
    return whole.part(list(spans(cell.examples))[number])
