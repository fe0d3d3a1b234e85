"""Labels and texts for cells that a model was never trained on."""
