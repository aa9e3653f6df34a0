"""Models by name, path or address: `load_model("backbone")`. Every file is checked by its sha256 and none is run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from forearm.errors import ArtifactError, SpecError
from forearm.models.architectures import ARCHITECTURES
from forearm.models.card import Card, read_card
from forearm.models.classes import numbered
from forearm.models.foreign import FOREIGN, Source
from forearm.models.keys import KEYS
from forearm.models.robustbench import ROBUSTBENCH
from forearm.models.timm import timm_model
from forearm.models.weights import fetch, file_sum, fill, is_url, read_weights
from forearm.models.zoo import data_folder, zoo, zoo_card
from forearm.registry import bind, parse

ALIASES = {"backbone": "cifar10_backbone", "labeller": "cifar10_labeller"}
SMALL = 64  # pictures whose longer edge is at most this are CIFAR-like
PAIRS = {
    True: ("cifar10_backbone", "cifar10_labeller"),
    False: ("photo_backbone", "photo_labeller"),
}  # backbone and labeller, by whether small
TOGETHER = {
    True: "cifar10_backbone+cifar10_preact+cifar10_wide",
    False: "photo_backbone+photo_resnext+photo_wide",
}  # the backbones of a defence that takes several (`evaluate.defense.usual`), the pair's own first
FORMS = (
    "an embedded name, one of the zoo, 'resnet20_a', a card.toml or its folder, 'resnet20_a=PATH', 'robustbench:NAME=PATH' or 'timm:NAME'"
)

_SPEC = re.compile(r"^(?P<spec>(?:robustbench:[\w.-]+)|(?:[A-Za-z_]\w*\s*(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?))=(?P<where>.+)$")


class Model(nn.Module):
    """A loaded classifier: RGB in [0, 1] `n 3 h w` -> logits `n classes`; in eval mode, frozen."""

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.card.classes

    @property
    def size(self) -> int:
        """The side in pixels of the pictures it was trained on."""
        return self.card.size


@dataclass(frozen=True, slots=True)
class Located:
    """Where a model's parts are. card_file: None for a public checkpoint, whose card is made from the tables."""

    card: Card
    weights: Path
    card_file: Path | None = None
    keys: str = "plain"
    unused: tuple[str, ...] = ()


def embedded() -> tuple[str, ...]:
    """The names of the embedded models."""
    folder = resources.files("forearm.models") / "cards"
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def locate(name: str | Path) -> Located:
    """A model's card and weight file, without reading the weights of a carded model; `name` as for `load_model`.

    An embedded name, one of the zoo and a public checkpoint's win over a path of the same name ("./backbone" is the path). SpecError for no known form;
    ArtifactError where a file is missing or a card is wrong.
    """
    text = str(name)
    path = Path(text)
    wanted = ALIASES.get(text, text)
    if wanted in embedded():
        return _embedded(wanted)
    if (card_file := zoo_card(text)) is not None:
        return _beside(card_file)
    if text in FOREIGN and FOREIGN[text].file:
        return _at_hand(text)
    if path.exists():
        return _beside(path)
    if is_url(text):
        return _remote(text)
    if found := _SPEC.match(text):
        return _public(found["spec"].strip(), found["where"])
    if path.suffix or "/" in text:
        raise ArtifactError(f"{text}: no such file; {FORMS}")
    raise SpecError(
        f"model: got {text!r}; {FORMS}; embedded are: {', '.join(embedded()) or 'none'}; in the zoo: {', '.join(zoo()) or 'none'}"
    )


def _embedded(name: str) -> Located:
    """The card and weights that the package holds."""
    with resources.as_file(resources.files("forearm.models") / "cards" / f"{name}.toml") as card_file:
        card = read_card(card_file)
    with resources.as_file(resources.files("forearm") / "weights" / card.weights) as weights:
        return Located(card, weights, card_file)


def _beside(path: Path) -> Located:
    """A folder, a card.toml, or weights with a card beside them (`card.toml`, or the weights' name with .toml)."""
    if path.is_dir():
        card_file = path / "card.toml"
    elif path.suffix == ".toml":
        card_file = path
    else:
        own = path.with_suffix(".toml")
        card_file = own if own.is_file() else path.with_name("card.toml")
        if not card_file.is_file():
            raise ArtifactError(f"{path}: no card.toml beside it; a card, or the architecture: 'preact_resnet(width=64)={path}'")
    card = read_card(card_file)
    weights = path if path.is_file() and path.suffix != ".toml" else card_file.parent / card.weights
    return Located(card, weights, card_file)


def _remote(url: str) -> Located:
    """A card at an address (its own sha256 given there) and the weights beside it (their sha256 given in the card)."""
    address = url.partition("#")[0]
    if not address.endswith(".toml"):
        raise SpecError(f"model: got {url!r}; an address of a card.toml, or with the architecture: 'preact_resnet(width=64)={url}'")
    card = read_card(fetch(url)[0])
    weights, _ = fetch(f"{address.rpartition('/')[0]}/{card.weights}", card.sha256)
    return Located(card, weights)


def _public(spec: str, where: str) -> Located:
    """A file whose architecture the tables or the caller name, at a path or an address."""
    source = _source(spec)
    if is_url(where):
        path, total = fetch(where)
    else:
        path = Path(where)
        total = file_sum(path)
    card = Card(
        name=f"{spec}={path.name}",
        arch=source.arch,
        weights=path.name,
        sha256=total,
        classes=source.classes,
        size=source.size,
        data=source.data,
        recipe=source.paper,
        threat=source.threat,
    )
    return Located(card, path, keys=source.keys, unused=source.unused)


def _at_hand(name: str) -> Located:
    """A public checkpoint at its place in the data folder, which must be the file that the table knows."""
    source = FOREIGN[name]
    path = data_folder() / source.file
    if not path.is_file():
        raise ArtifactError(f"{name}: no file {path}; FOREARM_DATA=/path/to/data that holds {source.file}, or '{name}=PATH'")
    if (found := file_sum(path)) != source.sha256:
        raise ArtifactError(f"{path}: sha256 {found}; expected {source.sha256}")
    return _public(name, str(path))


def _source(spec: str) -> Source:
    """The kind of checkpoint: a name of RobustBench, a foreign one, or an architecture in call syntax."""
    if spec.startswith("robustbench:"):
        name = spec.removeprefix("robustbench:")
        if name not in ROBUSTBENCH:
            raise SpecError(f"robustbench: got {name!r}; one of {', '.join(ROBUSTBENCH)}")
        return ROBUSTBENCH[name]
    if spec in FOREIGN:
        return FOREIGN[spec]
    name, keywords = parse(spec)
    if name not in ARCHITECTURES:
        raise SpecError(f"model: got {spec!r}; one of {', '.join(sorted({*FOREIGN, *ARCHITECTURES}))}, or robustbench:NAME")
    return Source(spec, "given by its architecture", classes=numbered(int(keywords.get("classes", 10))), data="")


def load_model(name: str | Path, *, sha256: str | None = None, device: str | torch.device = "cpu") -> Model:
    """A classifier by name, path or address: RGB in [0, 1] -> logits, in eval mode, frozen, with its card.

    `name` is one of

    - an embedded name ("cifar10_backbone"); "backbone" and "labeller" are the embedded CIFAR-10 pair;
    - a name of the zoo ("cifar10_vit"), which lies in the repository or where `FOREARM_ZOO` says (`models.zoo`);
    - a public checkpoint's name ("resnet20_a", `models.foreign`), whose file lies below `FOREARM_DATA`;
    - a card.toml, the weights beside it, or the folder that holds both; or a card's address,
      "https://host/card.toml#sha256=...", whose weights lie beside it;
    - "robustbench:Wong2020Fast=WHERE", "resnet20_a=WHERE", or an architecture,
      "preact_resnet(width=64)=WHERE", where WHERE is a path or an address "https://host/file.pt#sha256=...";
    - "timm:resnet18", with the `zoo` extra.

    `sha256`: what the weight file's sum must be, besides what its card or address says. Weights are float32 whatever
    the file holds, and no global generator is touched. SpecError for a name of no known form, ArtifactError for a file
    that is missing, changed or of another shape.
    """
    text = str(name)
    if text.startswith("timm:"):
        with torch.random.fork_rng(devices=[]):
            network, card = timm_model(text.removeprefix("timm:"))
        if sha256 is not None and sha256 != card.sha256:
            raise ArtifactError(f"{text}: sha256 {card.sha256}; expected {sha256}")
        return Model(network, card).to(device)
    located = locate(name)
    card = located.card
    if sha256 is not None and sha256 != card.sha256:
        raise ArtifactError(f"{text}: sha256 {card.sha256}; expected {sha256}")
    state, _ = read_weights(located.weights, card.sha256)
    state = {n: t for n, t in KEYS[located.keys](state).items() if not n.startswith(located.unused)}
    with torch.random.fork_rng(devices=[]):
        try:
            network = bind(ARCHITECTURES, card.arch)(classes=len(card.classes))
        except SpecError as error:
            raise ArtifactError(f"{located.card_file or text}: arch {card.arch!r}: {error}") from None
    fill(network, state, str(located.weights))
    return Model(network, card).to(device)
