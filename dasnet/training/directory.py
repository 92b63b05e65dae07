"""File names of a training: inside the folder that it goes on from, and inside the directory that it leaves."""

from __future__ import annotations

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
HISTORY = "history.jsonl"
"""A line each step and each epoch."""

BUNDLE = "bundle.safetensors"
WHOLE_HISTORY = "history.json"
"""The history of a training that has ended."""
