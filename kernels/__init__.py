"""CUDA kernels behind a plain C ABI, and a NumPy reference for each."""
