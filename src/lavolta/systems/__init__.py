"""One room per paper: a recipe over the parts, and no machinery of its own."""
