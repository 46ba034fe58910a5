"""Engines: each turns a Job into Events. `base` is the seam; each other module is one engine."""
