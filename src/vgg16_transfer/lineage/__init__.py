"""Which split, code and lock entry a result comes from. Asks DVC and git."""
