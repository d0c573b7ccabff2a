"""What a run will need before it begins: sizes of a step, bytes by phase, FLOPs. Nothing here loads weights."""
