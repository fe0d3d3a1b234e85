"""Benchmarks that a sceptic would trust: interleaved rounds, necessary bytes and operations, measured ceilings."""
