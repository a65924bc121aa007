"""What several unit tests ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


@contextmanager
def _nobody() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def nobody() -> Callable[[], AbstractContextManager[None]]:
    """A context in which permissions count: root, who may do everything, is somebody else meanwhile."""
    return _nobody
