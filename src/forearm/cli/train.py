"""`forearm train`: train a network by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forearm.cli.examples import ending

app = typer.Typer(
    help="Train a network: plain, adversarial, by TRADES, by MID or by the challenge's recipe. Resumable: the same command goes on where it stopped.",
    no_args_is_help=True,
)


def _run(kind: str, recipe: Path | None, out: Path, stop_after: int | None, **overrides: object) -> None:
    from forearm.jobs.train import TrainSettings, train

    settings = TrainSettings.read(recipe, overrides)

    def line(row: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        typer.echo(f"epoch {int(row['epoch'])}/{settings.epochs}  {values}", err=True)

    train(kind, settings, out, line, stop_after)
    typer.echo(f"{out / 'weights.safetensors'}")


Recipe = Annotated[Path | None, typer.Argument(help="A recipe file in TOML, for example recipes/cifar10_backbone.toml.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoint, the log, the weights and the card.")]
Data = Annotated[str | None, typer.Option(help="Data set, for example cifar10 or 'imagenette(side=160)'.")]
Folder = Annotated[Path | None, typer.Option(help="Where the data set lies (default: FOREARM_DATA).")]
Arch = Annotated[str | None, typer.Option(help="Architecture, for example 'preact_resnet(width=64)'.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training pictures.")]
Batch = Annotated[int | None, typer.Option(min=2, help="Pictures a step.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate of the one-cycle schedule.")]
Smoothing = Annotated[float | None, typer.Option(help="Label smoothing.")]
Augment = Annotated[
    str | None, typer.Option(help="Augmentation: crop_flip, crop_flip_colour, crop_flip_cutout, photo128, photo128_colour.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the weights, the order and the augmentation.")]
Examples = Annotated[int | None, typer.Option(min=1, help="Only the first so many training pictures.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda (default: a GPU if there is one).")]
StopAfter = Annotated[int | None, typer.Option(min=1, help="End after this epoch and stay resumable.")]


@app.command("standard", epilog=ending("train standard"))
def standard(
    recipe: Recipe = None, *, out: Out, data: Data = None, folder: Folder = None, arch: Arch = None, epochs: Epochs = None, batch: Batch = None,
    rate: Rate = None, smoothing: Smoothing = None, augment: Augment = None, seed: Seed = None, examples: Examples = None,
    device: Device = None, stop_after: StopAfter = None,
) -> None:  # fmt: skip
    """Plain training: cross-entropy with label smoothing."""
    _run(
        "standard", recipe, out, stop_after, data=data, folder=folder, arch=arch, epochs=epochs, batch=batch, rate=rate, smoothing=smoothing,
        augment=augment, seed=seed, examples=examples, device=device,
    )  # fmt: skip


@app.command("adversarial", epilog=ending("train adversarial"))
def adversarial(
    recipe: Recipe = None, *, out: Out, threat: Annotated[str | None, typer.Option(help="Threat trained against, for example linf:8/255.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="PGD steps; 0 is N-FGSM.")] = None,
    data: Data = None, folder: Folder = None, arch: Arch = None, epochs: Epochs = None, batch: Batch = None,
    rate: Rate = None, smoothing: Smoothing = None, augment: Augment = None, seed: Seed = None, examples: Examples = None,
    device: Device = None, stop_after: StopAfter = None,
) -> None:  # fmt: skip
    """Adversarial training: N-FGSM, or PGD with `--steps`."""
    _run(
        "adversarial", recipe, out, stop_after, threat=threat, steps=steps, data=data, folder=folder, arch=arch, epochs=epochs, batch=batch,
        rate=rate, smoothing=smoothing, augment=augment, seed=seed, examples=examples, device=device,
    )  # fmt: skip


@app.command("trades", epilog=ending("train trades"))
def trades(
    recipe: Recipe = None, *, out: Out, threat: Annotated[str | None, typer.Option(help="Threat trained against, for example linf:8/255.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Ascents of the divergence.")] = None,
    beta: Annotated[float | None, typer.Option(min=0.0, help="Weight of the divergence; the paper's is 6.")] = None,
    data: Data = None, folder: Folder = None, arch: Arch = None, epochs: Epochs = None, batch: Batch = None,
    rate: Rate = None, augment: Augment = None, seed: Seed = None, examples: Examples = None,
    device: Device = None, stop_after: StopAfter = None,
) -> None:  # fmt: skip
    """TRADES: accuracy on clean pictures, and the same answer all over the ball."""
    _run(
        "trades", recipe, out, stop_after, threat=threat, steps=steps, beta=beta, data=data, folder=folder, arch=arch, epochs=epochs, batch=batch,
        rate=rate, augment=augment, seed=seed, examples=examples, device=device,
    )  # fmt: skip


@app.command("denoising", epilog=ending("train denoising"))
def denoising(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file in TOML, for example recipes/cifar10_denoiser.toml.")] = None, *, out: Out,
    level: Annotated[float | None, typer.Option(help="Most deviation of the noise, where pictures are 0 to 1.")] = None,
    data: Data = None, folder: Folder = None, arch: Arch = None, epochs: Epochs = None, batch: Batch = None,
    rate: Rate = None, augment: Augment = None, seed: Seed = None, examples: Examples = None,
    device: Device = None, stop_after: StopAfter = None,
) -> None:  # fmt: skip
    """A purifier: an autoencoder that takes noise away, for `regenerate(student='OUT')` before any model."""
    _run(
        "denoising", recipe, out, stop_after, level=level, data=data, folder=folder, arch=arch, epochs=epochs, batch=batch, rate=rate,
        augment=augment, seed=seed, examples=examples, device=device,
    )  # fmt: skip


@app.command("challenge", epilog=ending("train challenge"))
def challenge(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file in TOML, for example recipes/cifar10_challenge.toml.")] = None, *, out: Out,
    trunk: Annotated[Path | None, typer.Option(help="Weights file of a pretrained network to begin from.")] = None,
    mixup: Annotated[float | None, typer.Option(min=0.0, help="Weight of MixUp; 0 leaves it out.")] = None,
    cutmix: Annotated[float | None, typer.Option(min=0.0, help="Weight of CutMix; 0 leaves it out.")] = None,
    fgsm: Annotated[float | None, typer.Option(min=0.0, help="Weight of the FGSM regularisation; 0 leaves it out.")] = None,
    through: Annotated[str | None, typer.Option(help="Its gradient: bare, or gcm.")] = None,
    placed_epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of the second stage, with resize-and-pad; 0 leaves it out.")] = None,
    data: Data = None, folder: Folder = None, arch: Arch = None, epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of the first stage.")] = None,
    batch: Batch = None, rate: Annotated[float | None, typer.Option(help="Learning rate of the head; the backbone's, too, from scratch.")] = None,
    augment: Annotated[str | None, typer.Option(help="Augmentation: challenge, challenge224, or one of the other recipes'.")] = None,
    seed: Seed = None, examples: Examples = None, device: Device = None, stop_after: StopAfter = None,
) -> None:  # fmt: skip
    """The gradient concealment challenge's training: MixUp, CutMix, FGSM regularisation, 32 operations, then resize-and-pad."""
    from forearm.jobs.train_challenge import ChallengeSettings, train_challenge

    settings = ChallengeSettings.read(recipe, {
        "trunk": trunk, "mixup": mixup, "cutmix": cutmix, "fgsm": fgsm, "through": through, "placed_epochs": placed_epochs, "data": data,
        "folder": folder, "arch": arch, "epochs": epochs, "batch": batch, "rate": rate, "augment": augment, "seed": seed, "examples": examples,
        "device": device,
    })  # fmt: skip

    def line(stage: str, row: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        total = settings.epochs if stage == "first" else settings.placed_epochs
        typer.echo(f"{stage}  epoch {int(row['epoch'])}/{total}  {values}", err=True)

    train_challenge(settings, out, line, stop_after)
    typer.echo(f"{out / 'weights.safetensors'}")


@app.command("instant", epilog=ending("train instant"))
def instant(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file in TOML, for example recipes/cifar10_instant.toml.")] = None, *, out: Out,
    backbone: Annotated[str | None, typer.Option(help="Whose gradients teach: a name, a card or a folder.")] = None,
    data: Data = None, folder: Folder = None, arch: Arch = None, epochs: Epochs = None, batch: Batch = None, rate: Rate = None,
    smoothing: Smoothing = None, augment: Augment = None, seed: Seed = None, examples: Examples = None, device: Device = None,
    stop_after: StopAfter = None,
) -> None:  # fmt: skip
    """An instant release: a small network learns to write MSPD's change in one pass."""
    from forearm.jobs.train_instant import InstantSettings, train_instant

    settings = InstantSettings.read(recipe, {
        "backbone": backbone, "data": data, "folder": folder, "arch": arch, "epochs": epochs, "batch": batch, "rate": rate,
        "smoothing": smoothing, "augment": augment, "seed": seed, "examples": examples, "device": device,
    })  # fmt: skip

    def line(row: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        typer.echo(f"epoch {int(row['epoch'])}/{settings.epochs}  {values}", err=True)

    train_instant(settings, out, line, stop_after)
    typer.echo(f"{out / 'weights.safetensors'}")


@app.command("mid", epilog=ending("train mid"))
def mid(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file in TOML, for example recipes/mnist_mid.toml.")] = None, *, out: Out,
    preset: Annotated[str | None, typer.Option(help="What is not given: published, released, regenerate or adaptive.")] = None,
    base: Annotated[Path | None, typer.Option(help="Folder of another run whose target, teacher and pool are used.")] = None,
    threat: Annotated[str | None, typer.Option(help="Threat of the pool's attacks, for example linf:0.3.")] = None,
    order: Annotated[str | None, typer.Option(help="Meta-gradient: second, first, none or detached.")] = None,
    data: Data = None, folder: Folder = None, arch: Arch = None, epochs: Epochs = None, batch: Batch = None, rate: Rate = None, seed: Seed = None,
    examples: Examples = None, device: Device = None, stop_after: StopAfter = None,
) -> None:  # fmt: skip
    """Meta invariance defence: a target and its attacked pictures, a teacher, and a student whose features do not move."""
    import sys

    from forearm.jobs.train_mid import MidSettings, train_mid

    settings = MidSettings.read(recipe, {
        "preset": preset, "base": base, "threat": threat, "order": order, "data": data, "folder": folder, "arch": arch, "epochs": epochs,
        "batch": batch, "rate": rate, "seed": seed, "examples": examples, "device": device,
    })  # fmt: skip

    def line(stage: str, row: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        typer.echo(f"{stage}  epoch {int(row['epoch'])}  {values}", err=True)

    def progress(attack: str, done: int, total: int) -> None:
        if done == total or sys.stderr.isatty():
            typer.echo(f"\rpool  {attack}  {done}/{total}{chr(10) if done == total else ''}", err=True, nl=False)

    train_mid(settings, out, line, progress, stop_after)
    typer.echo(f"{out / 'weights.safetensors'}")
