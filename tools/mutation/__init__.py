"""What `tools/mutants.py` is made of: faults in Python and C++, the copy of the tree they are put into, which tests run which line."""
