"""The commands that are of no other part: a file each. `pymimic/cli.py` puts them together with `demo` and `bench`."""
