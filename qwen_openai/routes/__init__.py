"""HTTP endpoints and middleware: each endpoint is a wire model on the left and a renderer on the right."""
