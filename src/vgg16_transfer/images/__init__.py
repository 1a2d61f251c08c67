"""Pictures: where they come from, how they are read in place, and which train and which test."""
