"""What can be asked, by address."""
