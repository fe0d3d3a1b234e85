"""Checkpoint readers: strict, so that every tensor of a file is used or named as not needed."""
