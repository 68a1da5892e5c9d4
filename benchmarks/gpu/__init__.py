"""What gpu_session.py runs, each task in a process of its own."""
