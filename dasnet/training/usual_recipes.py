"""The usual recipes by their names, as the settings in which they differ from the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from dasnet.training.augmentation import PSEUDO_CHANGES, Augmentation

_OfDasnet = Literal["paper_cdd", "paper_bcdd", "cpu_small", "cpu_pretrained", "gpu_pretrained"]
_OfPeers = Literal[
    "fc_ef", "fc_siam_conc", "fc_siam_diff", "cdnet", "bidatenet", "dscn", "sccn", "bit", "tinycd", "changemamba"
]
RecipeName = Literal[_OfDasnet, _OfPeers]

PRETRAINED: frozenset[RecipeName] = frozenset(("cpu_pretrained", "gpu_pretrained"))
"""Recipes whose encoder starts from ImageNet's weights, where no others are given."""

# for an encoder that has seen ImageNet: it keeps its own normalisation and has a lower rate; sharpening and blur, since
# scenes of one dataset may be twice as sharp as others
_PRETRAINED: dict[str, Any] = {
    "backbone": "timm:tf_efficientnet_lite0",
    "head_channels": 96,
    "decoder": "half",
    "margin_changed": 2.0,
    "class_weights": "none",
    "rate": 1.5e-3,
    "encoder_rate": 0.3,
    "schedule": "cosine",
    "warmup": 0.1,
    "clip": 5.0,
    "ema": 0.99,
    "balance": 0.7,
    "normalisation": "encoder",
}
_SHARPNESS = replace(PSEUDO_CHANGES, blur=0.25, blur_limit=1.5, sharpen=0.25)

# as Daudt et al. train: Adam 1e-3 with weight decay, the rate falling by 5 % an epoch, batch 32 of 96 px, classes
# weighed by 1/P but unchanged pixels ten times as much as that (their FP_MODIFIER)
_DAUDT: dict[str, Any] = {
    "loss": "cross-entropy",
    "unchanged_weight": 10.0,
    "dropout": 0.2,
    "rate": 1e-3,
    "weight_decay": 1e-4,
    "schedule": "exponential",
    "batch": 32,
    "epochs": 50,
    "augmentation": Augmentation(crop=96),
}

USUAL: Mapping[RecipeName, Mapping[str, Any]] = {
    # the paper's training on CDD: ResNet50, WDMC, Adam 1e-4, batch 8; flips and rotations alone
    "paper_cdd": {},
    # the same on BCDD (WHU), with the weight decay and falling rate of the authors' code
    "paper_bcdd": {"weight_decay": 5e-5, "schedule": "poly"},
    # for machines without a GPU: a light backbone, small crops, a higher rate that falls, pseudo-changes drawn
    "cpu_small": {
        "backbone": "mobilenet_v3",
        "head_channels": 96,
        "rate": 2e-3,
        "schedule": "cosine",
        "warmup": 0.1,
        "clip": 5.0,
        "epochs": 20,
        "balance": 0.7,
        "augmentation": replace(PSEUDO_CHANGES, crop=128),
    },
    "cpu_pretrained": {**_PRETRAINED, "epochs": 20, "augmentation": replace(_SHARPNESS, crop=96)},
    # long enough to tell losses apart (benchmarks/results/2026-11-27-long-trainings.md)
    "gpu_pretrained": {
        **_PRETRAINED,
        "batch": 32,
        "epochs": 60,
        "ema": 0.998,
        "precision": "bfloat16",
        "augmentation": replace(_SHARPNESS, crop=192, sharpen=0.4, sharpen_limit=3.0, scale=0.25),
    },
    "fc_ef": {"method": "fc-ef", **_DAUDT},
    "fc_siam_conc": {"method": "fc-siam-conc", **_DAUDT},
    "fc_siam_diff": {"method": "fc-siam-diff", **_DAUDT},
    # CDnet by its weighted cross-entropy; the rest as the DASNet paper trains: Adam 1e-4, batch 8, 60 epochs
    "cdnet": {"method": "cdnet", "loss": "cross-entropy", "dropout": 0.0},
    # BiDateNet as its authors train: Adam 1e-4, batch 32 of 32 px, 60 epochs, dropout of 0.7 behind every LSTM, changed
    # pixels weighed four times as much as unchanged ones
    "bidatenet": {
        "method": "bidatenet",
        "loss": "cross-entropy",
        "dropout": 0.7,
        "batch": 32,
        "augmentation": Augmentation(crop=32),
        "class_weights": "none",
        "unchanged_weight": 0.25,
    },
    # DSCN by a contrastive loss weighted by class, which is WDMC with m1 = 0; the rest as the DASNet paper trains
    "dscn": {"method": "dscn", "margin_unchanged": 0.0, "margin_changed": 2.0, "dropout": 0.0},
    # SCCN, without labels: autoencoders for a third of training, then coupling; Adam 1e-3
    "sccn": {"method": "sccn", "loss": "coupling", "rate": 1e-3, "clip": 1.0, "class_weights": "none"},
    # BIT as its authors train: SGD 0.01 that falls linearly, batch 8 of 256 px, 200 epochs, plain cross-entropy;
    # enlarged by up to a fifth and blurred by up to 1 px
    "bit": {
        "method": "bit",
        "loss": "cross-entropy",
        "class_weights": "none",
        "dropout": 0.0,
        "update_rule": "sgd",
        "rate": 0.01,
        "weight_decay": 5e-4,
        "schedule": "linear",
        "epochs": 200,
        "augmentation": Augmentation(blur=1.0, blur_limit=1.0, scale=0.2),
    },
    # TinyCD as its authors train on LEVIR-CD: AdamW that falls by a cosine, batch 8, 100 epochs, plain cross-entropy,
    # brightness and contrast by up to a fifth, blur in half of the samples; they also turn by up to 5°
    "tinycd": {
        "method": "tinycd",
        "loss": "cross-entropy",
        "class_weights": "none",
        "dropout": 0.0,
        "update_rule": "adamw",
        "rate": 3.568e-3,
        "weight_decay": 9.45e-3,
        "schedule": "cosine",
        "epochs": 100,
        "augmentation": Augmentation(brightness=0.2, contrast=0.2, blur=0.5),
    },
    # ChangeMamba as its authors train: AdamW 1e-4, 20,000 steps of 16 pairs of 256 px, which is 45 epochs of LEVIR-CD,
    # flips and rotations; they add 0.75 of a Lovász loss to the cross-entropy, which is not here
    "changemamba": {
        "method": "changemamba",
        "loss": "cross-entropy",
        "class_weights": "none",
        "dropout": 0.1,
        "update_rule": "adamw",
        "weight_decay": 5e-3,
        "batch": 16,
        "epochs": 45,
    },
}
