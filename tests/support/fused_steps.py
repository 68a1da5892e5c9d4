"""A fused step beside the gradients and the update that it stands for."""

import numpy as np

from pymimic import ShallowWeights


def check_steps(make_optimizer, args, mask, dtype, backend):
    """Two steps of float32 weights give the same bits either way."""
    fused, plain = (ShallowWeights(*args.forward[1:], dtype, backend=backend) for _ in range(2))
    optimizer, other = make_optimizer(), make_optimizer()
    for _ in range(2):
        dz = fused.step(args.dy, args.z, optimizer, **mask)
        grads = plain.backward(args.dy, args.z, **mask)._asdict()
        np.testing.assert_array_equal(dz, grads.pop("z"))
        other.advance()
        for name, array in plain.arrays(copy=False).items():
            other.update(name, array, grads[name], backend)
    for name, array in plain.arrays().items():
        np.testing.assert_array_equal(fused.arrays()[name], array, err_msg=name)
        assert array.dtype == np.float32
