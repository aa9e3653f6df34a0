"""How each command's `--help` and manual page end: examples, and what the exit codes say."""

from __future__ import annotations

from forearm.cli.exits import epilog

USUAL = "2 an option or an input that cannot be understood or read; 4 weights or cards are missing or changed."
TRAINED = f"What is given here wins over the recipe. Exit codes: 0 trained, or stopped by --stop-after; {USUAL} A killed run goes on where it was."

EXAMPLES: dict[str, tuple[str, ...]] = {
    "protect": (
        "forearm protect photos/ -o armed/",
        "forearm protect photos/ -o armed/ --labels labels.csv --strength strong --survive social",
        "forearm protect photos/ --in-place --backup originals/",
        "forearm protect s3://bucket/photos -o s3://bucket/armed --shard 2/8",
    ),
    "verify": ("forearm verify armed/", "forearm verify armed/cat.png --original cat.png --target photo_target --survive social --json"),
    "inspect": ("forearm inspect armed/cat.png",),
    "audit": (
        "forearm audit examples/matrix.toml --store runs/example --dry-run",
        "forearm audit examples/matrix.toml --store runs/example",
    ),
    "report": ("forearm report runs/example -o report/",),
    "serve": ("forearm serve", "forearm serve --host 0.0.0.0 --api-key-file key.txt --name photos.example.org"),
    "doctor": ("forearm doctor",),
    "models list": ("forearm models list",),
    "models show": ("forearm models show photo_backbone",),
    "models verify": ("forearm models verify",),
    "models measure": ("forearm models measure cifar10_backbone --examples 1000",),
    "data list": ("forearm data list --verify",),
    "data fetch": ("forearm data fetch cifar10 --to data/",),
    "train standard": ("forearm train standard recipes/cifar10_labeller.toml -o checkpoints/mine",),
    "train adversarial": ("forearm train adversarial recipes/cifar10_backbone.toml -o checkpoints/mine --seed 7",),
    "train trades": ("forearm train trades recipes/cifar10_wide.toml -o checkpoints/mine",),
    "train denoising": ("forearm train denoising recipes/cifar10_denoiser.toml -o checkpoints/mine",),
    "train challenge": ("forearm train challenge recipes/cifar10_challenge.toml -o checkpoints/mine",),
    "train instant": ("forearm train instant recipes/cifar10_instant.toml -o checkpoints/mine",),
    "train mid": ("forearm train mid recipes/mnist_mid.toml -o checkpoints/mine",),
}

CODES: dict[str, str] = {
    "protect": epilog(),
    "verify": f"Exit codes: 0 every file is well; 1 one is not; {USUAL}",
    "audit": (
        "Exit codes: 0 every cell is complete; 1 some cells failed, the others are stored; 2 a matrix that cannot be understood; "
        "4 weights are missing or changed; 5 the store cannot be written; 130 and 143 stopped by Ctrl-C and SIGTERM after what was in flight: "
        "run again to go on."
    ),
    "serve": f"Exit codes: 0 stopped after what was in flight; {USUAL}",
    "doctor": "Exit codes: 0 nothing is broken, if perhaps slow; 1 something is.",
    "models verify": f"Exit codes: 0 all are intact; 1 one is not; {USUAL}",
    "data list": f"Exit codes: 0 done; 1 with --verify, a set is not as it was fetched; {USUAL}",
    "data fetch": f"Exit codes: 0 all there, as published; 1 it cannot be had; {USUAL}",
}


def ending(command: str) -> str:
    """The examples and exit codes of `command`, for example "models list"; a paragraph each."""
    codes = CODES.get(command) or (TRAINED if command.startswith("train ") else f"Exit codes: 0 done; {USUAL}")
    return "\n\n".join(("Examples:", *(f"$ {line}" for line in EXAMPLES[command]), codes))
