"""Refuses Python's sub-interpreters, where loading the compiled core would wait forever."""

import importlib


def demand_main_interpreter() -> None:
    """ImportError in any other interpreter of this process."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # from Python 3.13 on, and before
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "pymimic: expected the main interpreter, got a sub-interpreter, where neither NumPy nor pymimic works; "
                "under mod_wsgi say WSGIApplicationGroup %{GLOBAL}"
            )
        return


demand_main_interpreter()
