"""What runs inside the sandbox: standard library only, sent there as text by `delta_lightning.sandbox.sandbox`."""
