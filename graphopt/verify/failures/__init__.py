"""What went wrong: whose fault it is, the smallest case that shows it, and where that is kept."""
