"""Predict the speed of the sm_90a kernels from their machine code and the launchers' plans, for docs/inside/gpu.md.

    python tools/gpu_model [--write | --check] [--if-possible]

Prints the part of the page; with --write it goes into the page, with --check it fails (1) where the page differs. Needs nvcc, a C++
compiler with cmake for the emulator of the kernels, and PyPI's nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm; no GPU. Where one of them
is missing, says so and exits with 2, or with --if-possible with 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sass_report import MissingToolError, find_tools

from gpu_model import ROOT
from gpu_model.page import page
from gpu_model.tables import model

PAGE = ROOT / "docs" / "inside" / "gpu.md"
BEGIN, END = "<!-- made by tools/gpu_model: begin -->", "<!-- made by tools/gpu_model: end -->"


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python tools/gpu_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--write", action="store_true", help="into docs/inside/gpu.md")
    which.add_argument("--check", action="store_true", help="fail where docs/inside/gpu.md differs")
    parser.add_argument("--if-possible", action="store_true", help="succeed where a tool is missing")
    given = parser.parse_args()
    try:
        find_tools()
        made = page(model())
    except (MissingToolError, FileNotFoundError) as error:
        print(f"NOTICE: {error}; docs/inside/gpu.md is NOT checked", file=sys.stderr)
        return 0 if given.if_possible else 2
    before, _, rest = PAGE.read_text().partition(BEGIN)
    kept, _, after = rest.partition(END)
    if given.write:
        PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n{END}{after}")
    elif given.check:
        if kept != f"\n\n{made}\n":
            print(f"{PAGE} differs from what the kernels say: python tools/gpu_model --write", file=sys.stderr)
            return 1
    else:
        print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
