"""Programs that run inside sandbox cells: standard library only, and importing nothing of this package but each other."""
