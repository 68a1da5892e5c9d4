"""One task: `python -m gpu.worker MODULE:FUNCTION ARGUMENTS FILE` writes each row that the function yields to the file, a JSON a line."""

from __future__ import annotations

import importlib
import json
import sys
import traceback


def main(function: str, arguments: str, path: str) -> int:
    """The exit status; what is raised becomes the last line, {"error": ...}."""
    module, name = function.split(":")
    with open(path, "a", buffering=1) as file:
        try:
            for row in getattr(importlib.import_module(f"gpu.{module}"), name)(**json.loads(arguments)):
                file.write(json.dumps({"row": row}) + "\n")
        except Exception as error:  # whatever happened is for the reader of the results
            traceback.print_exc()
            file.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:4000]}) + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
