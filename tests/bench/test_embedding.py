"""benchmarks/embedding.py: its contestants train, and agree on where they go."""

import importlib.util
from pathlib import Path

import pytest

from pymimic.bench.shapes import Shape

PATH = Path(__file__).parents[2] / "benchmarks" / "embedding.py"


@pytest.fixture
def embedding():
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("embedding", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rank", [None, 3])
def test_every_contestant_takes_steps(embedding, rank, monkeypatch):
    monkeypatch.setattr(embedding, "SECONDS", 0.2)
    for name in embedding.CONTESTANTS:
        seconds = embedding.timed(name, Shape("tiny", 8, 5, rank, 16, 3))
        assert 1 <= len(seconds) <= embedding.STEPS
        assert all(second > 0 for second in seconds)
