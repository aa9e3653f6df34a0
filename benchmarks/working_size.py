"""Claim: arming a large photo at the working size does to models what arming it literally at its own size does, for a fraction of the time.

Full-size photos, shorter edge brought to 512 pixels (four times the view), MSPD at 4/255 with the photo backbone; both ways in turn.
Compared: how far the margin of the label rises, on the backbone and on a second robust net that neither way has seen.

    python benchmarks/working_size.py [--photos 12]
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch
from PIL import Image

import forearm
from claim import record
from forearm.core.noise import Noise
from forearm.core.precision import fast
from forearm.core.quantize import release
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.data import sets
from forearm.defenses.preemptive.large import at_working_size
from forearm.defenses.preemptive.mcgs import mcgs
from forearm.images.codec import decode
from forearm.jobs.armory import as_tensor

THREAT = Threat.parse("linf:4/255")
EDGE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description="The working size against the literal way.")
    parser.add_argument("--photos", type=int, default=12)
    given = parser.parse_args()
    backbone, other = forearm.load_model("photo_backbone"), forearm.load_model("photo_target")
    twin = fast(backbone)
    rises: dict[str, dict[str, list[float]]] = {way: {"photo_backbone": [], "photo_target": []} for way in ("literal", "working")}
    seconds: dict[str, list[float]] = {"literal": [], "working": []}
    for path in sorted((sets.root() / "imagenet" / "photos").glob("*.JPEG"))[: given.photos]:
        pixels = decode(path).pixels
        scale = EDGE / min(pixels.shape[:2])
        photo = Image.fromarray(pixels.squeeze()).convert("RGB")
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
        x = as_tensor(np.asarray(photo), "cpu")
        view = View.of(twin, x.shape[2], x.shape[3], backbone.size)
        y = View.of(backbone, x.shape[2], x.shape[3], backbone.size)(x).argmax(1)
        method = partial(mcgs, grid=view.size)
        for way in rises:
            began = time.perf_counter()
            if way == "literal":
                protected = method(view, x, y, threat=THREAT, noise=Noise.of(1))
            else:
                protected = at_working_size(method, view, x, y, threat=THREAT, noise=Noise.of(1), side=backbone.size)
            armed = release(protected, x, THREAT)
            seconds[way].append(time.perf_counter() - began)
            for model in (backbone, other):
                seen = View.of(model, x.shape[2], x.shape[3], model.size)
                with torch.inference_mode():
                    rises[way][model.card.name].append(float(THREAT.margin(seen(x), y) - THREAT.margin(seen(armed), y)))
        print(path.name, {way: round(s[-1], 2) for way, s in seconds.items()}, flush=True)
    mean = {way: {name: sum(values) / len(values) for name, values in by.items()} for way, by in rises.items()}
    share = {name: mean["working"][name] / mean["literal"][name] for name in mean["literal"]}
    record(
        "working_size",
        "a large photo armed at the working size raises the margin of its label at least .9 times as far as one armed literally at its own size",
        min(share.values()),
        "of the literal way's mean rise, the lesser of backbone and unseen net",
        n=len(seconds["literal"]),
        at_least=0.9,
        details={"mean_rise": mean, "share": share, "median_seconds": {way: sorted(s)[len(s) // 2] for way, s in seconds.items()}},
    )


if __name__ == "__main__":
    main()
