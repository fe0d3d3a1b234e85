"""The CUDA backend: our kernels; torch allocates, multiplies matrices and captures graphs."""

from cellscribe.engine.backends.cuda.backend import CudaBackend, cuda_problems

__all__ = ["CudaBackend", "cuda_problems"]
