"""Room for evaluation parts (pass@k, majority votes); held-out accuracy itself is `validation_step` in `trainer/module.py`."""
