"""Reward shaping: changes rewards before anything reads them. No shaping is an empty list."""
