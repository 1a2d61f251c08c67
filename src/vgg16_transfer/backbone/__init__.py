"""The frozen VGG16: its weights, the activations heads are trained on, what its filters see."""
