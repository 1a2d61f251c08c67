"""The frozen network: its weights, its layers, and the activations that heads are trained on."""
