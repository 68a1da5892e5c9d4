"""What a training step costs on 1 to 1,024 machines: on paper, and by simulation.

    torchrun --nproc-per-node 2 benchmarks/scale_out.py --measure FILE     # sums by gloo between processes of this machine
    python benchmarks/scale_out.py --network FILE [--write]                # docs/scaling-out.md's tables and figure

Compute is the model of `cost_model.py`, as docs/cost-model.json has it fitted, with 16 threads a machine. A sum over n machines is that of
a ring: 2 (n - 1) messages of a share of the bytes, each of which waits. Bandwidth and latency are assumed, and printed; those that gloo has
on the loopback are measured, to see that the formula of a sum holds. The simulation lets each machine's compute vary from step to step and
follows every message.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cost_model import features
from make_tables import between_marks, table

from pymimic.distributed import joined

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FIGURE, FITTED = DOCS / "scaling-out.md", DOCS / "scaling-out.png", DOCS / "cost-model.json"
THREADS, MEMORY = 16, 100e9  # of a machine; bytes a second
B, D, K, C = 512, 1845, 250, 183  # the paper's net for TIMIT
UNITS = (400_000, 10_000_000, 1_000_000_000)
MACHINES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
VARIATION, STEPS = 0.05, 200  # of a machine's compute, as the deviation of its logarithm; simulated
SIZES = (1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 23)  # bytes of the sums that are measured


class Network(NamedTuple):
    """Of each machine."""

    name: str
    bandwidth: float  # bytes a second
    latency: float  # seconds that a message takes beside its bytes


NETWORKS = (Network("10 Gbit/s, 50 us", 1.25e9, 50e-6), Network("100 Gbit/s, 10 us", 12.5e9, 10e-6))


class Step(NamedTuple):
    """Seconds of a step of one machine, by what they go to."""

    products: float  # of the wide layer, and what belongs to them
    bottleneck: float  # z = x V^T and dV, which each machine computes for itself
    network: float

    @property
    def seconds(self) -> float:
        return sum(self)


def products(rows: int, units: float) -> float:
    """Forward and backward pass with AdamW over some units, as fitted, on a machine of THREADS."""
    fits, taken = json.loads(FITTED.read_text())["fits"], 0.0
    for what in ("forward", "step"):
        p, v, _, s = fits[what]["terms"]
        made, values, _, meetings = features(what, rows, K, 1 << 14, C, THREADS)  # of 16,384 units, to which it is proportional
        taken += (made * p + values * v + meetings * s) * units / (1 << 14)
    moved = 4 * units * (K + C) * (1 + 7)  # a forward pass; a step of AdamW reads weights twice, and reads and writes weights and slots
    return max(taken, moved / MEMORY)


def bottleneck(rows: int) -> float:
    """Of V, in all its rows on every machine."""
    p = json.loads(FITTED.read_text())["fits"]["forward"]["terms"][0]
    return 2 * rows * D * K * p / THREADS


def summed(size: float, machines: int, network: Network) -> float:
    """Seconds of a sum of so many bytes over a ring: each machine sends 2 (n - 1) / n of them."""
    messages = 2 * (machines - 1)
    return messages * (network.latency + size / machines / network.bandwidth)


def step(units: float, machines: int, network: Network, rows_axis: int = 1) -> Step:
    """On paper, with the rows of a batch shared out `rows_axis` ways and the units over the rest."""
    over, rows = machines // rows_axis, -(-B // rows_axis)
    sums = sum(summed(4 * rows * n, over, network) for n in (C, K))
    if rows_axis > 1:  # gradients of a machine's units, and of V
        sums += summed(4 * (units / over * (K + 1 + C) + K * D), rows_axis, network)
    return Step(products(rows, units / over), bottleneck(rows), sums)


def best(units: float, machines: int, network: Network) -> tuple[int, Step]:
    """The fastest mesh, and how many ways it shares out rows."""
    ways = [ways for ways in MACHINES if ways <= machines and ways <= B // 16]
    return min(((way, step(units, machines, network, way)) for way in ways), key=lambda found: found[1].seconds)


def simulated(units: float, machines: int, network: Network, seed: int = 0) -> float:
    """The mean of a step's seconds where machines vary: each sum begins for a machine when it gets there, and every message is followed."""
    rng, now = np.random.default_rng(seed), np.zeros(machines)
    whole = step(units, machines, network)
    forward = whole.products / 3 + whole.bottleneck / 2
    for _ in range(STEPS):
        for compute, size in ((forward, 4 * B * C), (whole.products + whole.bottleneck - forward, 4 * B * K)):
            now = now + compute * rng.lognormal(-(VARIATION**2) / 2, VARIATION, machines)
            for _ in range(2 * (machines - 1)):  # a message needs the sender's last one to be here
                now = np.maximum(now, np.roll(now, 1)) + network.latency + size / machines / network.bandwidth
    return float(now.max() / STEPS)


def measure(path: Path) -> None:
    """Seconds of sums of SIZES between the processes that torchrun started; the medians."""
    group, found = joined(), []
    for size in SIZES:
        array, seconds = np.zeros(size // 4, np.float32), []
        for _ in range(30):
            group.told(None)
            began = time.perf_counter()
            group.sum(array)
            seconds.append(time.perf_counter() - began)
        found.append({"bytes": size, "seconds": statistics.median(seconds)})
    if group.rank == 0:
        path.write_text(json.dumps({"processes": group.size, "sums": found}, indent=1) + "\n")
        print(path.read_text())


def fitted_network(path: Path) -> tuple[Network, float]:
    """Latency and bandwidth of measured sums, and the largest relative error of the formula with them."""
    told = json.loads(path.read_text())
    n, sizes, seconds = told["processes"], *(np.array([one[key] for one in told["sums"]]) for key in ("bytes", "seconds"))
    A = np.stack([np.full(len(sizes), 2.0 * (n - 1)), 2 * (n - 1) / n * sizes], axis=1)
    latency, inverse = np.linalg.lstsq(A / seconds[:, None], np.ones(len(sizes)), rcond=None)[0]
    network = Network("loopback", 1 / inverse, latency)
    off = max(abs(summed(size, n, network) / found - 1) for size, found in zip(sizes, seconds))
    return network, off


def duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def tables(network_file: Path) -> str:
    """What the page shows."""
    parts, (loopback, off) = [], fitted_network(network_file)
    parts.append(
        f"Gloo on the loopback, 2 processes: {loopback.bandwidth / 1e9:.2g} GB/s and {1e6 * loopback.latency:.0f} us a message; with these "
        f"two numbers the formula of a ring is off by {off:.0%} at most from 1 KiB to 8 MiB."
    )
    for network in NETWORKS:
        lines = []
        for units in UNITS:
            for machines in MACHINES[::2]:
                paper, (ways, meshed) = step(units, machines, network), best(units, machines, network)
                binds = max(zip(paper, ("products", "the bottleneck", "the network")))[1]
                memory = 3 * 4 * units / machines * (K + 1 + C)
                lines.append([
                    f"{units:,}", str(machines), duration(paper.seconds), duration(simulated(units, machines, network)), binds,
                    f"{memory / 2**30:,.2f} GiB", f"{ways} x {machines // ways}" if ways > 1 else "-", duration(meshed.seconds),
                ])  # fmt: skip
        columns = ["H", "machines", "a step, on paper", "simulated", "most of it", "weights and slots", "fastest mesh", "its step"]
        parts += [f"**{network.name}**", table(columns, lines)]
    return "\n\n".join(parts)


def draw(path: Path) -> None:
    """Seconds of a step against machines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, network in zip(figure.subplots(1, 2, sharey=True), NETWORKS):
        for color, units in zip(("C0", "C1", "C2"), UNITS):
            axes.plot(MACHINES, [step(units, n, network).seconds for n in MACHINES], color=color, label=f"H = {units:,}")
            axes.plot(MACHINES, [best(units, n, network)[1].seconds for n in MACHINES], color=color, linestyle=":")
            axes.plot(MACHINES[::2], [simulated(units, n, network) for n in MACHINES[::2]], color=color, marker="o", linestyle="")
        axes.set(xscale="log", yscale="log", xlabel="machines", title=network.name)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_ylabel("seconds a step")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=Path, metavar="FILE")
    parser.add_argument("--network", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.measure:
        measure(given.measure)
    if given.network:
        text = tables(given.network)
        print(text)
        if given.write:
            PAGE.write_text(between_marks(PAGE.read_text(), "scale_out", text))
            draw(FIGURE)


if __name__ == "__main__":
    main()
