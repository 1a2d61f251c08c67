"""What is looked at, not trained: filters, gradient checks, explained pictures."""
