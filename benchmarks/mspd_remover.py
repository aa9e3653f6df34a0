"""The learned remover of `mspd_reversion.py`: a small residual net from a release to what it was before, trained on pairs that its owner made himself.

The attacker knows the method and its settings and has a backbone (the defender's, or a surrogate). He arms CIFAR-10 *training* pictures with another seed
and the labeller's labels and learns

    r(p) = p - eps tanh(g(p)),   loss mean |r(p) - x|

with g of six 3 x 3 convolutions (32 channels, dilations 1 1 2 4 2, then 1), pictures mirrored at random, Adam on one cycle. Pairs are made with N = 5
instead of 20 copies (a quarter of the cost; one pixel of a hundred differs). It stands here and not in the package: it measures the defence and nobody
else has a use for it. Pairs and each epoch's state are kept below `runs/mspd_reversion/`, so a run that was broken off goes on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import forearm
from forearm.core.noise import Noise
from forearm.core.precision import fast
from forearm.core.quantize import levels, release
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.defenses.preemptive.mcgs import mcgs
from mspd_gain import labels_of

AT_ONCE, BATCH, SEED = 250, 50, 1
COUNT, EPOCHS = 2000, 6  # pairs, and how often each is seen


class Remover(nn.Module):
    """Releases `n 3 h w` in [0, 1] -> an estimate of the undefended pictures, within `eps` of the release."""

    def __init__(self, eps: float, width: int = 32) -> None:
        super().__init__()
        self.eps = eps
        reach = (1, 1, 2, 4, 2)
        self.first = nn.ModuleList(nn.Conv2d(3 if i == 0 else width, width, 3, padding=d, dilation=d) for i, d in enumerate(reach))
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, released: Tensor) -> Tensor:
        h = released - 0.5
        for i, layer in enumerate(self.first):
            made = F.relu(layer(h))
            h = made if i == 0 else h + made
        estimate: Tensor = released - self.eps * torch.tanh(self.last(h))
        return estimate


def pairs(folder: Path, backbone: str, count: int, threat: Threat) -> tuple[Tensor, Tensor]:
    """`count` training pictures and their releases on `backbone`, uint8 `n c h w`; kept in files of 250."""
    x = sets.load("cifar10", "train").first(count).images
    made = []
    for first in range(0, count, AT_ONCE):
        path = folder / f"pairs_{backbone}_{first}_{min(AT_ONCE, count - first)}.npy"
        if not path.exists():
            part, twin = x[first : first + AT_ONCE].float() / 255, fast(forearm.load_model(backbone))
            said = labels_of(forearm.load_model("labeller"), part)
            armed = []
            for k in range(0, len(part), BATCH):
                a, y, ids = part[k : k + BATCH], said[k : k + BATCH], torch.arange(first + k, first + min(k + BATCH, len(part)))
                armed.append(levels(release(mcgs(twin, a, y, threat=threat, noise=Noise(SEED, ids), copies=5), a, threat)))
            partial = path.with_suffix(".part.npy")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(partial, torch.cat(armed).numpy())
            partial.replace(path)
            print(f"pairs on {backbone}: {first + len(part)} of {count}", flush=True)
        made.append(torch.from_numpy(np.load(path)))
    return x, torch.cat(made)


def learned(folder: Path, backbone: str, threat: Threat, count: int = COUNT, epochs: int = EPOCHS) -> Remover:
    """The remover trained on `count` pairs of this backbone, from its last epoch on; its weights are those of a run in one piece."""
    x, armed = pairs(folder, backbone, count, threat)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = Remover(threat.eps)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    steps = epochs * -(-count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    path = folder / f"remover_{backbone}_{count}_{epochs}.pt"
    done = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        done = state["epochs"]
        for part, name in ((net, "net"), (optimizer, "optimizer"), (schedule, "schedule")):
            part.load_state_dict(state[name])
    for epoch in range(done, epochs):
        generator = torch.Generator().manual_seed(1000 * SEED + epoch)
        total = 0.0
        for part in torch.randperm(count, generator=generator).split(BATCH):
            pair = torch.cat([x[part], armed[part]], 1).float() / 255
            turned = torch.rand(len(part), generator=generator) < 0.5
            pair = torch.where(turned[:, None, None, None], pair.flip(3), pair)
            loss = (net(pair[:, 3:]) - pair[:, :3]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(part)
        held = {"epochs": epoch + 1, "net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        partial = path.with_suffix(".part")
        torch.save(held, partial)
        partial.replace(path)
        bare = float((armed.float() - x.float()).abs().mean())
        print(
            f"remover on {backbone}: epoch {epoch + 1}, {255 * total / count:.3f} levels from the originals ({bare:.3f} without)",
            flush=True,
        )
    return net.eval().requires_grad_(False)
