"""The native CPU backend: our own products and attention, in C++ for the vector instructions of this machine."""

from cellscribe.engine.backends.cpu.backend import CpuBackend, cpu_problem

__all__ = ["CpuBackend", "cpu_problem"]
