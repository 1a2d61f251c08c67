"""Pictures and checks of trained networks: filters, gradients, explained predictions."""
