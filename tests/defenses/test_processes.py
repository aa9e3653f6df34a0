"""Several processes give the gradients of one: in threads that stand for them, and in two real ones under torchrun."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forearm.core.threat import Threat
from forearm.data.batches import Batch
from forearm.defenses.training import processes as module
from forearm.defenses.training.mid import ORDERS, Meta, Weights, against_student, mid
from forearm.defenses.training.processes import ALONE, Processes
from forearm.errors import SpecError
from forearm.jobs.train_pool import member
from forearm.models.autoencoder import Autoencoder, frozen, student_of
from forearm.models.lenet import lenet_autoencoder
from forearm.models.load import load_model
from forearm.models.weights import read_weights

COUNT = 2
LOCK = threading.Lock()


class Meeting:
    """What a collective does, for threads: everyone brings a tensor and gets the mean."""

    def __init__(self, count: int) -> None:
        self.brought: dict[int, Tensor] = {}
        self.here = threading.local()
        self.barrier = threading.Barrier(count, timeout=60)

    def mean(self, values: Tensor, count: int) -> Tensor:
        self.brought[self.here.rank] = values.detach().clone()
        self.barrier.wait()
        total = torch.stack([self.brought[rank] for rank in range(count)]).sum(0)
        self.barrier.wait()
        return total / count


def together(work: Callable[[Processes], list[Tensor]], monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """What `work` gives in each of `COUNT` processes."""
    meeting, results = Meeting(COUNT), dict[int, list[Tensor]]()
    monkeypatch.setattr(module, "_mean", meeting.mean)

    def run(rank: int) -> None:
        meeting.here.rank = rank
        try:
            results[rank] = work(Processes(rank, COUNT))
        except BaseException:
            meeting.barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[rank] for rank in range(COUNT)]


def nets() -> tuple[Autoencoder, Autoencoder]:
    with LOCK, torch.random.fork_rng(devices=[]):  # torch's generator belongs to all threads
        torch.manual_seed(0)
        teacher, student = (lenet_autoencoder(side=8, classes=3).double() for _ in range(2))
    frozen(teacher)
    return teacher, student_of(teacher, student)


def batch(n: int = 4) -> Batch:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Batch(x, torch.arange(n) % 3, torch.arange(n) + 7)


def variants(model: nn.Module, given: Batch, key: int) -> Tensor:
    return torch.stack([given.x, (given.x + 0.2).clamp(0, 1), 1.0 - given.x])


def gradients(among: Processes, order: str = "second", adaptive: bool = False) -> list[Tensor]:
    """The student's gradients after one step of MID and the exchange that the loop makes."""
    teacher, student = nets()
    one = member("pgd(steps=2)", Threat.parse("linf:0.1"))
    two = member("mi_fgsm(steps=2)", Threat.parse("linf:0.1"))
    members = against_student([(one.attack, one.threat), (two.attack, two.threat)]) if adaptive else variants
    weights = Weights(1.0, 1.5, 0.8, 2.0)
    mid(teacher, members, Meta(order, rate=0.3, train=weights, test=weights), among)(student, batch())["loss"].backward()  # type: ignore[no-untyped-call]
    among.average(student)
    return [p.grad.clone() for p in student.encoder.parameters() if p.grad is not None]


def far(found: list[Tensor], expected: list[Tensor]) -> float:
    scale = max(float(e.abs().max()) for e in expected)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / scale


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("adaptive", [False, True])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(order: str, adaptive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradients(ALONE, order, adaptive)
    for found in together(lambda among: gradients(among, order, adaptive), monkeypatch):
        assert len(found) == len(expected) > 0
        assert far(found, expected) < 1e-10


def test_an_inner_step_of_ones_own_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant, which is what DDP around the step would do: each process takes the inner step along its own part's gradient."""
    expected = gradients(ALONE)
    monkeypatch.setattr(module.Processes, "mean", lambda self, values: values)

    def work(among: Processes) -> list[Tensor]:
        return gradients(among)  # without any exchange

    apart = together(work, monkeypatch)
    means = [torch.stack(pair).mean(0) for pair in zip(*apart, strict=True)]
    assert far(means, expected) > 1e-4


def test_parts_are_disjoint_and_complete() -> None:
    whole = batch(6)
    parts = [Processes(rank, 3).part(whole) for rank in range(3)]
    assert sorted(int(i) for part in parts for i in part.ids) == whole.ids.tolist()
    assert {len(part.y) for part in parts} == {2}
    assert ALONE.part(whole) is whole
    with pytest.raises(SpecError, match=r"torchrun: got a batch of 6 for 4 processes.*for example"):
        Processes(0, 4).part(whole)


@pytest.mark.slow
def test_two_processes_of_torchrun_train_to_the_weights_of_one(tmp_path: Path) -> None:
    random, y = np.random.default_rng(0), np.arange(48) % 2
    x = (random.integers(0, 90, (48, 8, 8)) + 120 * (y[:, None, None] & (np.arange(8) < 4)[None, None, :])).astype(np.uint8)
    np.savez(tmp_path / "bars.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "r.toml").write_text(
        f"data = \"npz(path='{tmp_path / 'bars.npz'}')\"\narch = 'lenet_autoencoder(side=8)'\ntarget = 'lenet(side=8)'\n"
        "members = ['pgd(steps=2)', 'targeted:mi_fgsm(steps=2)']\nbatch = 8\nepochs = 2\ntarget_epochs = 2\nteacher_epochs = 2\naim = 1\n"
        "device = 'cpu'\nrate = 0.02\n"
    )
    alone = [sys.executable, "-m", "forearm", "train", "mid", str(tmp_path / "r.toml"), "-o"]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *alone[1:]]
    logs = {}
    for name, command in (("one", alone), ("two", two)):
        done = subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        logs[name] = (tmp_path / name / "log.csv").read_text().splitlines()
        assert done.stderr.count("target  epoch 2") == 1
    assert load_model(tmp_path / "two").card.recipe == "mid"
    assert len(logs["two"]) == len(logs["one"]) == 3
    for part in ("target", "teacher", "."):
        first, second = (read_weights(tmp_path / name / part / "weights.safetensors")[0] for name in ("one", "two"))
        for key, value in first.items():
            torch.testing.assert_close(second[key].float(), value.float(), rtol=2e-2, atol=2e-3)
