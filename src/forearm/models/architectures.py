"""The table of architectures: name -> builder. A model's card names one by call syntax, e.g. "preact_resnet(width=32)"."""

from __future__ import annotations

ARCHITECTURES: dict[str, str] = {
    "preact_resnet": "forearm.models.preact_resnet:preact_resnet",
    "resnet9": "forearm.models.resnet9:resnet9",
}
