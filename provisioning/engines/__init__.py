"""One folder per engine. `base` is the seam, `registry` the list; the core imports nothing else from here."""
