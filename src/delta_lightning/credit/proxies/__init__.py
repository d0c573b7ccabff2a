"""What stands for the gradient of a token in DelTA's comparison."""

from delta_lightning.credit.proxies.head_gradient import HeadGradient
from delta_lightning.credit.proxies.hidden_gradient import HiddenGradient
from delta_lightning.credit.proxies.output_row import OutputRow
from delta_lightning.credit.proxies.proxy import GradientProxy
from delta_lightning.credit.proxies.top_k_hidden_gradient import TopKHiddenGradient

__all__ = ["GradientProxy", "HeadGradient", "HiddenGradient", "OutputRow", "TopKHiddenGradient"]
