"""vLLM servers, seen from the trainer: asking them, watching them, sharing work among them. Importing this imports nothing."""
