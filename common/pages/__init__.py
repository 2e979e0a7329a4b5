"""Self-contained HTML pages: their style, their charts, and how foreign text gets into them."""
