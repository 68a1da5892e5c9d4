"""For each process that a test starts: the package in the copy is taken, not the installed one; the lines that it runs are noted."""

import atexit
import os
import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]  # of editable installs

if "MUTANTS_TEST" in os.environ:
    import coverage

    _lines = coverage.Coverage(
        data_file=os.environ["MUTANTS_DATA"], data_suffix=True, context=os.environ["MUTANTS_TEST"], source=[os.environ["MUTANTS_SOURCE"]]
    )
    _lines.start()
    atexit.register(_lines.save)
    atexit.register(_lines.stop)
