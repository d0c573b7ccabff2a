"""Judges behind HTTP. Importing this package imports nothing."""
