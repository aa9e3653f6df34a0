"""The table of architectures: name -> builder. A model's card names one by call syntax: "preact_resnet(width=32)"."""

from __future__ import annotations

ARCHITECTURES: dict[str, str] = {
    "cnn_a": "forearm.models.convnet:cnn_a",
    "convnext": "forearm.models.convnext:convnext",
    "convnext_cifar": "forearm.models.convnext:convnext_cifar",
    "denoiser": "forearm.models.denoiser:denoiser",
    "instant": "forearm.models.instant:instant",
    "lenet": "forearm.models.lenet:lenet",
    "lenet_autoencoder": "forearm.models.lenet:lenet_autoencoder",
    "mobilenet_v2": "forearm.models.mobilenet:mobilenet_v2",
    "preact_resnet": "forearm.models.preact_resnet:preact_resnet",
    "resnet": "forearm.models.resnet:resnet",
    "resnet2b": "forearm.models.convnet:resnet2b",
    "resnet9": "forearm.models.resnet9:resnet9",
    "resnet_autoencoder": "forearm.models.autoencoder:resnet_autoencoder",
    "resnext": "forearm.models.resnext:resnext",
    "vit": "forearm.models.vit:vit",
    "vit_autoencoder": "forearm.models.vit_autoencoder:vit_autoencoder",
    "wide_resnet": "forearm.models.wide_resnet:wide_resnet",
}
