"""Per-token pieces of policy losses without a hard ratio clip: SAPO's gate, DPPO's divergences and its trust region."""

from __future__ import annotations

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_same_shape
from delta_lightning.functional.policy import kl_k3

# Both of (1 - p) are floored here, as in the released code of DPPO: a probability that rounds to 1 would give log 0.
SMALLEST_REST = 1e-8


def soft_gate(ratio_BT: Tensor, temperature_BT: Tensor) -> Tensor:
    """SAPO's f(r) = (4 / tau) sigmoid(tau (r - 1)); its derivative by log r is r sech^2(tau (r - 1) / 2), 1 at r = 1.

    Gao et al., arXiv 2511.20347. The value at r = 1 is 2 / tau, so the loss is no estimate of the return.
    """
    check_same_shape(ratio_BT=ratio_BT, temperature_BT=temperature_BT)
    return torch.sigmoid(temperature_BT * (ratio_BT - 1)) * (4 / temperature_BT)


def soft_gate_slope(ratio_BT: Tensor, temperature_BT: Tensor) -> Tensor:
    """What SAPO multiplies grad log p with, A aside: r sech^2(tau (r - 1) / 2)."""
    gate_BT = torch.sigmoid(temperature_BT * (ratio_BT - 1))
    return 4 * gate_BT * (1 - gate_BT) * ratio_BT


def binary_tv(old_logprobs: Tensor, logprobs: Tensor) -> Tensor:
    """Total variation between "this token" and "any other" under the old and the new policy: |p - p_old|."""
    return (logprobs.exp() - old_logprobs.exp()).abs()


def binary_kl(old_logprobs: Tensor, logprobs: Tensor) -> Tensor:
    """KL(old || new), nats, between "this token" and "any other"; a lower bound of the KL over the vocabulary."""
    old_rest, rest = ((-torch.expm1(value)).clamp(min=SMALLEST_REST) for value in (old_logprobs, logprobs))
    kl = old_logprobs.exp() * (old_logprobs - logprobs) + old_rest * (old_rest.log() - rest.log())
    return kl.clamp(min=0)  # the floor can leave a sum a little below 0


def inside_trust_region(
    divergence_BT: Tensor, log_ratio_BT: Tensor, advantages_BT: Tensor, *, low: float, high: float
) -> Tensor:
    """False where the advantage pushes a token further away from the old policy than allowed; bool, [B, T].

    DPPO (Qi et al., arXiv 2602.04879): with A > 0 a token drops out if r > 1 and the divergence is above `high`, else if r < 1
    and it is above `low`. A token that moves back stays, whatever its divergence.
    """
    check_same_shape(divergence_BT=divergence_BT, log_ratio_BT=log_ratio_BT, advantages_BT=advantages_BT)
    too_high_BT = (log_ratio_BT > 0) & (divergence_BT > high)
    too_low_BT = (log_ratio_BT < 0) & (divergence_BT > low)
    return ~torch.where(advantages_BT > 0, too_high_BT, too_low_BT)


def drift_metrics(log_ratio_BT: Tensor, mask_BT: Tensor) -> dict[str, Tensor]:
    """`ratio` and `kl_nats` (k3) of each token, 0 outside the mask: what every policy loss reports."""
    return {"ratio": log_ratio_BT.exp() * mask_BT, "kl_nats": kl_k3(log_ratio_BT) * mask_BT}
