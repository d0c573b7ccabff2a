"""How a run is spread over devices beyond what Lightning brings. Importing it registers `--trainer.strategy=fsdp2`."""

from lightning.pytorch.strategies import StrategyRegistry

from delta_lightning.strategies.fsdp2 import FSDP2Strategy

__all__ = ["FSDP2Strategy"]

if FSDP2Strategy.strategy_name not in StrategyRegistry.available_strategies():
    StrategyRegistry.register(
        FSDP2Strategy.strategy_name, FSDP2Strategy, description="Parameters, gradients and optimiser sharded over all ranks"
    )
