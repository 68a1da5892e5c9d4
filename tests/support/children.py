"""Work in a process of its own."""

import os


def in_child(work):
    """Run `work` in a forked child, whose limits and signals are its own; it returns a line or raises."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            line = str(work())
        except BaseException as error:
            line = f"{type(error).__name__}: {error}"
        os.write(write, line.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        line = pipe.read()
    os.waitpid(child, 0)
    return line
