"""Untrusted programs in cells of their own."""
