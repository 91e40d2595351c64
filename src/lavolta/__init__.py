"""La Volta: a Transformer with a dial."""
