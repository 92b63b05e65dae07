"""Measurements: one command a question, one line an answer; `results/` holds them with machine and date."""

import os

# before anything imports Prefect: its log would drown the one line
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
