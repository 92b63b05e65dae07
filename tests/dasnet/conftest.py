"""One thread for torch in this room's tests, as in the workers: two that wait for each other on a busy core crawl."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """The number is the process's, so it is put back for whoever tests after this room."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
