"""HTTP endpoints and middleware: a wire model on the left, a renderer on the right."""
