"""The CUDA backend: kernels of pymimic._cuda and products of cuBLAS on CuPy arrays."""
