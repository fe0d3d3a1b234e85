"""Bundles for Triton Inference Server: what is written for it, and what runs inside it."""

from cellscribe.engine.triton.repository import RepositoryOptions, Written, write_repository

__all__ = ["RepositoryOptions", "Written", "write_repository"]
