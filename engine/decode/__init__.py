"""Decoding, for all families: requests into slots, tokens into texts, attention into evidence."""
