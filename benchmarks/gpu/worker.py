"""One task: `python -m gpu.worker MODULE:FUNCTION ARGUMENTS` tells the session each row that the function yields."""

from __future__ import annotations

import importlib
import json
import sys
import traceback

from gpu.watch import tell


def main(function: str, arguments: str) -> int:
    """The exit status; what is raised becomes the last line, {"error": ...}."""
    module, name = function.split(":")
    try:
        for row in getattr(importlib.import_module(f"gpu.{module}"), name)(**json.loads(arguments)):
            tell({"row": row})
    except Exception as error:  # whatever happened is for the reader of the results
        traceback.print_exc()
        tell({"error": f"{type(error).__name__}: {error}"[:4000]})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
