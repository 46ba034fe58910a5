"""The facts of `check`, and that they find what is planted."""
