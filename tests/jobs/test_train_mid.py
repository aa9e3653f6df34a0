"""`forearm train mid` from settings to a student by name: pools and runs that are broken off end with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from forearm.cli.train import app
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.errors import ArtifactError, BudgetError, SpecError
from forearm.jobs import train_pool
from forearm.jobs.train_mid import PRESETS, MidSettings, stages, train_mid
from forearm.jobs.train_pool import Made, Member, make_pool, member
from forearm.models.autoencoder import Autoencoder
from forearm.models.load import Model, load_model

THREAT = Threat.parse("linf:0.3")
RUN = CliRunner()


def bars(n: int, seed: int = 0) -> tuple[Any, Any]:
    """8 x 8 pictures of two classes: a bright row or a bright column at a random place, and noise."""
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 90, (n, 8, 8)), np.arange(n) % 2
    for i, place in enumerate(random.integers(0, 8, n)):
        x[(i, place) if y[i] else (i, slice(None), place)] += 150
    return x.astype(np.uint8), y


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bars")
    (x_train, y_train), (x_test, y_test) = bars(48), bars(16, 1)
    np.savez(folder / "bars.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return f"npz(path={str(folder / 'bars.npz')!r})"


def settings(data: str, overrides: dict[str, Any] | None = None) -> MidSettings:
    values = {
        "data": data, "arch": "lenet_autoencoder(side=8)", "target": "lenet(side=8)", "members": ("pgd(steps=2)", "targeted:mi_fgsm(steps=2)"),
        "batch": 8, "epochs": 2, "target_epochs": 2, "teacher_epochs": 2, "rate": 0.02, "target_rate": 0.02, "teacher_rate": 0.02, "aim": 1,
        "device": "cpu",
    }  # fmt: skip
    return MidSettings.read(None, values | (overrides or {}))


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train_mid(settings(data), out)
    return out


def files(out: Path) -> dict[str, bytes]:
    """What must not depend on how a run came about."""
    names = ("weights.safetensors", "target/weights.safetensors", "teacher/weights.safetensors", "pool/1.npy", "pool/2.npy", "pool/pool.json",
             "samples.png")  # fmt: skip
    return {name: (out / name).read_bytes() for name in names}


def test_a_student_is_a_model_by_name_and_makes_pictures_again(whole: Path, data: str) -> None:
    model = load_model(whole)
    assert (model.card.recipe, model.card.threat, model.card.classes, model.size) == ("mid", "linf:0.3", ("0", "1"), 8)
    assert "order='second'" in model.card.settings
    x = sets.load(data, "test").images.float() / 255.0
    network = model.network
    assert isinstance(network, Autoencoder)
    with torch.no_grad():
        assert model(x).shape == (16, 2)
        made = network.regenerate(x)
    assert made.shape == x.shape
    assert float(made.min()) >= 0.0
    assert float(made.max()) <= 1.0
    assert load_model(whole / "target").card.recipe == "target of mid"
    teacher = load_model(whole / "teacher").network.state_dict()
    for name, value in network.state_dict().items():
        if not name.startswith("encoder."):
            assert torch.equal(value, teacher[name])
    assert not torch.equal(network.state_dict()["encoder.conv1.weight"], teacher["encoder.conv1.weight"])
    with Image.open(whole / "samples.png") as sheet:
        assert sheet.size == (8 * 10, 5 * 10)


class Cut(Exception):
    """The run ends here."""


def test_a_run_that_is_broken_off_anywhere_ends_with_the_same_bytes(
    whole: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    given = settings(data)
    state = torch.get_rng_state()

    def cut_at(wanted: int) -> Any:
        told: list[object] = []

        def tell(*what: object) -> None:
            told.append(what)
            if len(told) == wanted:
                raise Cut

        return tell

    for epoch in (1, 3):  # in the target, then in the teacher; of 2 + 2 epochs
        with pytest.raises(Cut):
            train_mid(given, out, report=cut_at(epoch))
    with pytest.raises(Cut):
        train_mid(given, out, progress=cut_at(1))
    train_mid(given, out, stop_after=1)
    assert not (out / "samples.png").exists()
    train_mid(given, out)
    assert files(out) == files(whole)
    assert torch.equal(torch.get_rng_state(), state)
    before = files(out)
    train_mid(given, out)  # finished: nothing changes
    assert files(out) == before


def test_another_seed_gives_another_student(whole: Path, data: str, tmp_path: Path) -> None:
    """The law above compares something: and `base` leaves target, teacher and pool where they are."""
    train_mid(settings(data, {"seed": 1, "base": whole}), tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() != (whole / "weights.safetensors").read_bytes()
    assert not (tmp_path / "run" / "pool").exists()


@pytest.mark.parametrize(
    ("changed", "stage"), [({"alpha": 0.1}, "run"), ({"target_rate": 0.01}, "target"), ({"teacher_pixels": 2.0}, "teacher")]
)
def test_a_folder_of_other_settings_is_refused(changed: dict[str, float], stage: str, whole: Path, data: str) -> None:
    before = files(whole)
    with pytest.raises(ArtifactError, match=f"{stage}: begun with other settings"):
        train_mid(settings(data, changed), whole)
    assert files(whole) == before


def test_every_preset_trains(whole: Path, data: str, tmp_path: Path) -> None:
    weights = {"published": (whole / "weights.safetensors").read_bytes()}
    for preset in set(PRESETS) - {"published"}:
        chosen = {"preset": preset, "base": whole, "epochs": 1} | ({"members": ("pgd(steps=1)",)} if preset == "adaptive" else {})
        train_mid(settings(data, chosen), tmp_path / preset)
        weights[preset] = (tmp_path / preset / "weights.safetensors").read_bytes()
    assert len(set(weights.values())) == len(PRESETS)


def test_presets_say_what_they_are() -> None:
    released = MidSettings.read(None, {"preset": "released"}).meta()
    assert (released.order, released.scale, released.total, released.train.cyclic, released.test.cyclic) == (
        "detached",
        "element",
        "sum",
        0,
        0,
    )
    published = MidSettings.read(None, {}).meta()
    assert (published.order, published.train.adversarial, published.train.cyclic, published.test.cyclic) == ("second", 1.5, 0.8, 1.0)
    assert MidSettings.read(None, {"preset": "adaptive"}).pool == "adaptive"
    assert MidSettings.read(None, {"preset": "released", "order": "first"}).order == "first"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"preset": "other"}, "preset"), ({"order": "third"}, "order"), ({"members": ("pdg",)}, "did you mean 'pgd'"), ({"epoch": 1}, "epoch"),
        ({"members": ("targeted:deepfool",)}, "no targeted form"), ({"members": ("carlini_wagner",)}, "norm"), ({"threat": "linf"}, "threat"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_in_one_line(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says) as error:
        MidSettings.read(None, values)
    assert "\n" not in str(error.value)


def test_a_classifier_without_a_decoder_is_refused(data: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="an autoencoder"):
        train_mid(settings(data, {"arch": "lenet(side=8)"}), tmp_path)


# --- pools


@pytest.fixture(scope="module")
def target(whole: Path) -> Model:
    return load_model(whole / "target")


def pictures(data: str) -> Pictures:
    return sets.load(data, "train")


def pool_of(folder: Path, target: Model, data: str, report: Any = lambda *_: None) -> train_pool.Pool:
    return make_pool(
        folder, target, pictures(data), [member("pgd(steps=2)", THREAT), member("targeted:fgsm", THREAT)], aim=1, report=report
    )


def test_a_pool_holds_its_members_inside_the_threat(target: Model, data: str, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, target, data)
    ids = torch.tensor([5, 0, 40])
    got = pool.of(ids)
    clean = pictures(data).images[ids].float() / 255.0
    assert got.shape == (3, 3, 1, 8, 8)
    assert torch.equal(got[0], clean)
    assert float((got - clean).abs().max()) <= 0.3 + 1e-6
    assert float((got[1:] - clean).abs().flatten(2).amax(2).min()) > 0.0
    assert all(made.n == 48 for made in pool.made)
    with torch.no_grad():
        clear = target(pictures(data).images.float() / 255.0)
        attacked = target(pool.of(torch.arange(48))[1])
    said = clear.argmax(1)
    assert float(attacked.gather(1, said[:, None]).mean()) < float(clear.gather(1, said[:, None]).mean())
    assert pool.made[0].right == int((attacked.argmax(1) == pictures(data).labels).sum())


def test_a_pool_killed_between_file_and_record_ends_with_the_same_bytes(
    target: Model, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_pool, "BLOCK", 16)
    pool_of(tmp_path / "whole", target, data)
    real, calls = train_pool._write, list[int]()

    def write(path: Path, key: dict[str, Any], made: dict[str, Made]) -> None:
        calls.append(1)
        if len(calls) in (2, 4):  # the block is in the file, the record does not count it
            raise Cut
        real(path, key, made)

    monkeypatch.setattr(train_pool, "_write", write)
    for _ in range(2):
        with pytest.raises(Cut):
            pool_of(tmp_path / "parts", target, data)
    pool_of(tmp_path / "parts", target, data)
    for name in ("1.npy", "2.npy", "pool.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    attacked: list[int] = []
    pool_of(tmp_path / "parts", target, data, lambda *_: attacked.append(1))
    assert attacked == []  # a finished pool is not made again


def test_a_record_that_counts_too_much_would_be_told(target: Model, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant of the law above: a record ahead of its file leaves pictures out, and the bytes differ."""
    monkeypatch.setattr(train_pool, "BLOCK", 16)
    pool_of(tmp_path / "whole", target, data)

    def cut(name: str, done: int, total: int) -> None:
        raise Cut

    with pytest.raises(Cut):
        pool_of(tmp_path / "parts", target, data, cut)
    record = json.loads((tmp_path / "parts" / "pool.json").read_text())
    record["made"]["pgd(steps=2)"]["n"] = 32
    (tmp_path / "parts" / "pool.json").write_text(json.dumps(record))
    pool_of(tmp_path / "parts", target, data)
    assert (tmp_path / "parts" / "1.npy").read_bytes() != (tmp_path / "whole" / "1.npy").read_bytes()


def test_pools_of_anything_else_are_refused(target: Model, data: str, tmp_path: Path) -> None:
    pool_of(tmp_path, target, data)
    one = [member("pgd(steps=2)", THREAT)]
    with pytest.raises(ArtifactError, match="another members"):
        make_pool(tmp_path, target, pictures(data), one, aim=1)
    with pytest.raises(ArtifactError, match="another pictures"):
        make_pool(tmp_path, target, pictures(data).first(20), one)
    with pytest.raises(SpecError, match="each once"):
        make_pool(tmp_path / "new", target, pictures(data), one * 2)
    (tmp_path / "pool.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a pool's record"):
        pool_of(tmp_path, target, data)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None])
def test_a_broken_member_file_is_refused(content: bytes | None, target: Model, data: str, tmp_path: Path) -> None:
    pool_of(tmp_path, target, data)
    if content is None:
        np.save(tmp_path / "1.npy", np.zeros((3, 1, 8, 8), np.uint8))
    else:
        (tmp_path / "1.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"1\.npy"):
        pool_of(tmp_path, target, data)


def test_an_attack_that_leaves_its_ball_is_refused(target: Model, data: str, tmp_path: Path) -> None:
    far = Member("far", lambda model, x, y, *, threat, noise: 1.0 - x, THREAT)
    with pytest.raises(BudgetError, match="far went"):
        make_pool(tmp_path, target, pictures(data), [far])


# --- the command


def test_the_command_trains_and_names_the_weights(data: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    given = settings(data)
    lines = [f"{name} = {json.dumps(value)}" for name, value in given.model_dump(mode="json", exclude_defaults=True).items()]
    recipe.write_text("\n".join(lines))
    done = RUN.invoke(app, ["mid", str(recipe), "-o", str(tmp_path / "run"), "--epochs", "1", "--order", "first"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "run" / "weights.safetensors")
    assert "teacher  epoch 2" in done.stderr
    assert "pool  pgd(steps=2)  48/48" in done.stderr
    assert "order='first'" in load_model(tmp_path / "run").card.settings


def test_stages_are_decided_by_their_own_settings_alone(data: str, tmp_path: Path) -> None:
    first, other = stages(settings(data), tmp_path), stages(settings(data, {"alpha": 0.1, "seed": 3}), tmp_path)
    assert first[0] == other[0]
    assert first[1] == other[1]
    assert first[2].said != other[2].said


@pytest.mark.slow
def test_the_small_recipe_learns(tmp_path: Path) -> None:
    """Under a CPU minute: attacks made on the target, which fool it, do not fool the student."""
    if not (sets.root() / "mnist").is_dir():
        pytest.skip("MNIST is not at hand")
    recipe = Path(__file__).parents[2] / "recipes" / "mnist_mid_small.toml"
    train_mid(MidSettings.read(recipe, {}), tmp_path)
    target, student = load_model(tmp_path / "target"), load_model(tmp_path)
    shown = sets.load("mnist", "test", first=200)
    x, y = shown.images.float() / 255.0, shown.labels
    x_adv = train_pool.attacked(target, next(shown.batches(200)), member("bim(steps=10)", THREAT), aim=0, seed=0)
    with torch.no_grad():
        right = {name: float((model(at).argmax(1) == y).float().mean()) for name, model, at in
                 (("target", target, x_adv), ("student", student, x_adv), ("clean", student, x))}  # fmt: skip
    assert right["clean"] > 0.8
    assert right["student"] > right["target"] + 0.3
