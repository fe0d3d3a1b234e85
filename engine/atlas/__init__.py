"""An atlas: cells of many files, larger than memory, on many workers, whatever dies in between."""
