"""Cells by instruction, as InstructCell reads and writes them, and generated cells against real ones."""
