"""A shim for old habits: pyproject.toml (scikit-build-core) and CMakeLists.txt describe the build, and pip carries it out."""

import subprocess
import sys

COMMANDS = {
    "install": ["install", "."],
    "develop": ["install", "-e", "."],
    "bdist_wheel": ["wheel", "--no-deps", "--wheel-dir", "dist", "."],
}

if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command not in COMMANDS:
        sys.exit(f"setup.py: expected one of {', '.join(COMMANDS)}, got {' '.join(sys.argv[1:]) or 'nothing'}; use pip, see README.md")
    sys.exit(subprocess.call([sys.executable, "-m", "pip", *COMMANDS[command]]))
