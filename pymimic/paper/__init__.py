"""The paper's questions as experiments: each trains many nets, keeps a line of a CSV for each, and opens the test rows once, at the end."""

from .run import NAMES, run_paper

__all__ = ["NAMES", "run_paper"]
