"""The part of docs/inside/gpu.md that is made of the model."""

from __future__ import annotations

from gpu_model.one_pass import ROWS, UNITS
from gpu_model.steps import TORCH_RATES
from gpu_model.tables import Model, counts_table, cycles_table, factors_table, goals_table, percent, rates_table, steps_table, ways_table
from gpu_model.units import CLOCK, HBM_BYTES, L2_BYTES, LANES_A_CYCLE, MULTIPROCESSORS, RATE, SHARED_BYTES, TENSOR_MULTIPLY_ADDS


def page(found: Model) -> str:
    """All between the marks."""
    lanes = ", ".join(f"{count} {unit}" for unit, count in LANES_A_CYCLE.items())
    processors, multiply_adds = MULTIPROCESSORS, f"{TENSOR_MULTIPLY_ADDS:,}"
    l2, clock, rate = f"{L2_BYTES * MULTIPROCESSORS:,.0f}", f"{CLOCK / 1e9:.2f} GHz", f"{RATE / 1e12:.0f}"
    empty = max(blocks.slab.get("empty products", 0) for blocks in found.work.values())
    torch = f"{percent(TORCH_RATES[1])} to {percent(TORCH_RATES[0])}"
    return f"""## Predicted speed on an H200

Made by `python tools/gpu_model --write` from the machine code of the sm_90a kernels and from the launchers' plans. All figures below are
**predicted**, in bf16 with relu. The column "measured" stays empty until a session of `benchmarks/gpu_session.py` is kept in the folder
`gpu` of `benchmarks/results/`. "units" stores gradients; "units, AdamW" takes the step instead.

**How the work is counted.** The script asks the launchers for their grids and for the kernels' parameters. Then it walks each warp of a
block through the machine code: integers, predicates and branches are computed; data are unknown. The difference between blocks of
different lengths is a slab. What is left is a block's begin and end. An instruction whose predicate is false counts: it takes its turn.

**What the units can do** in a cycle of a multiprocessor:

- tensor cores {multiply_adds} multiply-adds; shared memory {SHARED_BYTES} bytes; the second-level cache (L2) {l2} bytes for all
  {processors} multiprocessors together;
- lanes: {lanes}. FMA is FP32 and IMAD together, IMAD has half of it.
  ALU is the other integer instructions, comparisons, selections and conversions to bf16; special is reciprocals and roots.

All run at {clock}: at that clock busy tensor cores give the {rate} TFLOP/s that an H200 reaches in bf16 under its power limit.
HBM has {HBM_BYTES / 1e12:.1f} TB/s. The sources:
[throughput of instructions](https://docs.nvidia.com/cuda/cuda-c-programming-guide/#arithmetic-instructions) (column 9.0),
[pipes of FP32 and IMAD](https://forums.developer.nvidia.com/t/separate-cuda-core-pipeline-for-fp16-and-fp32/302018/7),
[products and shared memory](https://forums.developer.nvidia.com/t/question-about-wgmma-instruction-in-hopper/311023),
[bandwidth of L2](https://pmc.ncbi.nlm.nih.gov/articles/PMC10448217/table/t0015),
[Hopper by microbenchmarks](https://arxiv.org/abs/2501.12084).

**Two figures.** The higher one is what the tightest unit allows if it never waits. For the lower one nothing overlaps: products wait for
what warps do between them, and all blocks write their results to HBM at the same moment.

**What the model leaves out:** latency (of memory, barriers and products), the filling of the ring, bank conflicts, launches and the host,
and other clocks. It takes every memory at its peak. The compiler ends groups of products by empty ones, at most {empty:.0f} a slab; they
count as issued and cost nothing else.

### A slab

Forward: 128 hidden units for 128 rows. Rows: 64 units for 128 rows. Units: 64 rows for 64 units. Instructions are those of all warps in
the busiest quarter of a multiprocessor; products and bytes are those of the block.

{counts_table(found)}

Cycles of each unit. The tightest is bold.

{cycles_table(found)}

### Calls

{rates_table(found)}

The higher figure without dropout is the product of these:

{factors_table(found)}

### Goals

We set these before any run on a GPU, as shares of the tensor cores' rate.

{goals_table(found)}

A step of AdamW beside `torch.compile`. Torch is taken to do 3k + 3C multiply-adds a row and unit at {torch} of {rate} TFLOP/s, or at the
speed of HBM where that is slower. It keeps h and da in memory in 16 bits, has bias and relu in the first product or on their own, and one
fused AdamW over float32 weights. Ours is the three kernels, the bottleneck's products in tf32 and the loss. Launches and the host are left
out on both sides; at mnist-8k they matter.

{steps_table(found)}

### A backward pass in one kernel

timit-400k at B = 8192, {ROWS} rows by {UNITS} units, columns rounded up to 16. "One pass" is a count, not a kernel: blocks own
{UNITS} units and make dz as well, 3k + 2C multiply-adds in place of 4k + 3C. Each adds its part of dz to that of the others.

{ways_table(found, "timit-400k", 8192)}
"""
