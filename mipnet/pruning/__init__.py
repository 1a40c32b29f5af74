"""From scores to masks and smaller networks."""
