"""Values, blocks, and how nonlinear parts are written."""
