"""Keys, tags and journal lines of armed files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np

from forearm.images.journal import Line
from forearm.images.picture import Pixels
from forearm.images.provenance import Tag, armed_tag
from forearm.jobs.arm import Armed, Armourer
from forearm.jobs.workers import Saved


def key_of(sha256: str, settings: Tag, label: int | None, tagged: bool) -> str:
    """The hash of an input and of all that its result depends on."""
    text = json.dumps([sha256, settings, label, tagged], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def tag_for(settings: Tag) -> Tag:
    """What the file says of itself: version, defense, threat and backbone, and what it was armed to survive; never the seed."""
    tag = armed_tag(*(str(settings[name]) for name in ("defense", "threat", "backbone")))
    return tag | {"survive": settings["survive"]} if "survive" in settings else tag


def armed_line(started: Line, armed: Armed, original: Pixels, saved: Saved, armourer: Armourer, seconds: float) -> Line:
    """`started` (file, source, hashes, key, format, size) with what arming gave.

    A lossy file is measured anew, on its own pixels.

    Cost: for a lossy file one pass of the backbone, PSNR and SSIM.
    """
    report = armed.report
    before, after = report.margin_before, report.margin_after
    noise, alike, linf_file = report.psnr, report.ssim, report.linf
    if saved.pixels is not None:
        linf_file = int(np.abs(saved.pixels.astype(np.int16) - original).max())
        noise, alike = likeness(saved.pixels, original)
        after = armourer.margins([saved.pixels], [report.label])[0]
    return replace(
        started,
        status="armed",
        out_sha256=saved.sha256,
        label=report.label,
        name=report.name,
        confidence=report.confidence,
        labelled_by=report.labelled_by,
        uncertain=report.uncertain,
        linf=report.linf,
        psnr=noise,
        ssim=alike,
        view_share=report.view_share,
        margin_before=before,
        margin_after=after,
        linf_file=linf_file,
        eps=report.eps,
        survive=report.survive,
        seconds=round(seconds, 3),
    )


def likeness(pixels: Pixels, original: Pixels) -> tuple[float, float]:
    """PSNR in dB and SSIM of two pictures of one shape. torch is imported here, so that a job without lossy files needs none."""
    import torch

    from forearm.core.quality import psnr, ssim

    a, b = (torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[None].float() / 255.0 for p in (pixels, original))
    return float(psnr(a, b)), float(ssim(a, b))
