"""Most of these tests need torch. Where it is installed, none of them is skipped."""

import importlib.util

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_ranks*.py"]
