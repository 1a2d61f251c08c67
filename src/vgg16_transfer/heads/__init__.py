"""Softmax heads: trained on features, one per trial of a study."""
