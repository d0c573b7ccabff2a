"""Credit assignment for reinforcement learning from verifiable rewards: exact, cheap, composable, visible.

Importing this package imports nothing heavy. The mathematics is in `delta_lightning.functional`, the seams in
`delta_lightning.interfaces`, the containers in `delta_lightning.types`.
"""

__version__ = "0.1.0"
