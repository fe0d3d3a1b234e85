"""Offline: a checkpoint becomes a bundle."""
