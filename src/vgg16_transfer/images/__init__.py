"""Pictures: fetching a source, reading it in place, and splitting it into train and test."""
