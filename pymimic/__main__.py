"""`pymimic` and `python -m pymimic`."""

import sys


def main() -> None:
    """Run the command line, or say what to install for it."""
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.exit("pymimic: the command line needs typer and rich: pip install typer rich")
    try:
        from .cli import run

        run(sys.argv[1:])
    except KeyboardInterrupt:  # before there was a command to hear it
        sys.exit(130)


if __name__ == "__main__":
    main()
