"""Judges of completions, and the pool of processes they run in. Importing this package imports nothing heavy."""
