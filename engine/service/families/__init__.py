"""What the families do for a service, each in its own way."""
