"""What the tests of the docs share."""

import os

import pytest


@pytest.fixture(autouse=True)
def _one_processor(monkeypatch):
    """A second process would start for longer than the few photographs of these tests take."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
