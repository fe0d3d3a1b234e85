"""Backends: one class per runtime, with the same few verbs."""

from cellscribe.engine.backends.base import Admission, Backend, Chosen, Encoded, SlotPlan, Slots

__all__ = ["Admission", "Backend", "Chosen", "Encoded", "SlotPlan", "Slots"]
