"""`pymimic bench`: the library beside what its users would use instead, on the machine at hand.

Arrows run one way: command -> suite -> race -> (a process for each contestant: worker) -> verify -> shapes. The contestants
themselves are `peers/*.py` beside the benchmarks; `Peer` in worker.py says what such a file holds.
"""
