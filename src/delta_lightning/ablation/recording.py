"""One set of rollouts as a file: what every assigner of an ablation is given, and what a later one may reuse."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from delta_lightning.errors import ConfigError
from delta_lightning.trainer.callbacks.atomic import whole
from delta_lightning.types import RolloutBatch

FORMAT = 1
SETTLED = (  # settings of the model that had their effect when the recording was made
    "verifier", "shaping", "filters", "sampling", "prompts_per_step", "completions_per_prompt", "updates_per_step",
    "micro_batches", "tokens_per_micro_batch", "refill_rounds",
)  # fmt: skip
HASHED_AT_ONCE = 1 << 24  # bytes of a tensor that are copied to main memory at a time


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Which weights: SHA-256 over names, shapes, dtypes and bytes of all parameters, their number, and their global norm."""

    sha256: str
    parameters: int
    norm: float

    def __str__(self) -> str:
        return f"{self.sha256[:12]} ({self.parameters:,} parameters, norm {self.norm:.9g})"


@torch.no_grad()
def fingerprint(model: nn.Module) -> Fingerprint:
    """The fingerprint of `model`; reads every parameter once, a piece at a time."""
    digest, square, count = hashlib.sha256(), 0.0, 0
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}|{list(parameter.shape)}|{parameter.dtype}\n".encode())
        flat = parameter.detach().reshape(-1)
        for piece in torch.split(flat, max(1, HASHED_AT_ONCE // flat.element_size())):
            digest.update(piece.cpu().contiguous().view(torch.uint8).numpy().tobytes())
            square += float(piece.double().square().sum())
        count += parameter.numel()
    return Fingerprint(sha256=digest.hexdigest(), parameters=count, norm=square**0.5)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Rollouts of one step, sampled, judged and filtered, in main memory.

    Attributes:
        batch: the rows, in the order of `micro`. micro: rows of each micro-batch, as they were scored.
        step: number of the rollout step. seed: of the run; with `step` it keys the assigners' draws.
        temperature: at which tokens were sampled and are scored.
        weights: fingerprint of the policy that sampled them.
        versions: of the packages that made the recording. config: the resolved config as YAML.
    """

    batch: RolloutBatch
    micro: list[slice]
    step: int
    seed: int
    temperature: float
    weights: Fingerprint
    versions: dict[str, Any]
    config: str

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises `RunError` if it cannot be written."""
        batch = {item.name: getattr(self.batch, item.name) for item in dataclasses.fields(self.batch)}
        state = {
            "format": FORMAT,
            "batch": {name: value.cpu() if isinstance(value, Tensor) else value for name, value in batch.items()},
            "micro": [[part.start, part.stop] for part in self.micro],
            "step": self.step,
            "seed": self.seed,
            "temperature": self.temperature,
            "weights": dataclasses.asdict(self.weights),
            "versions": self.versions,
            "config": self.config,
        }
        with whole(path, "the recording") as partial:
            torch.save(state, partial)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a file that `save` wrote. Raises `ConfigError` if it is none."""
        what, wanted = f"--rollouts={path}", "a recording that delta-lightning ablate wrote (rollouts.pt)"
        if not Path(path).is_file():
            raise ConfigError(what, wanted=wanted, got="nothing there", remedy="Leave it out to sample new rollouts.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = state["format"]
            if found == FORMAT:
                fields = {name: value for name, value in state.items() if name != "format"}
                return cls(**fields | {
                    "batch": RolloutBatch(**state["batch"]),
                    "micro": [slice(start, stop) for start, stop in state["micro"]],
                    "weights": Fingerprint(**state["weights"]),
                })  # fmt: skip
        except Exception as error:  # unreadable files raise a dozen kinds of error; all mean this
            raise ConfigError(
                what, wanted=wanted, got=f"a file that is none ({type(error).__name__})",
                remedy="It may have been cut off, or be a checkpoint: those go to --ckpt_path.",
            ) from error  # fmt: skip
        raise ConfigError(
            what, wanted=f"format {FORMAT} of the recording", got=f"format {found}",
            remedy="Another version of delta-lightning wrote it: record again.",
        )  # fmt: skip

    def check_temperature(self, temperature: float) -> None:
        """Refuses a config that scores at another temperature. Raises `ConfigError`."""
        if temperature != self.temperature:
            raise ConfigError(
                "model.sampling.temperature", wanted=f"{self.temperature:g}, at which the recording was sampled",
                got=f"{temperature:g}", remedy="Set it back, or leave --rollouts out to sample anew.",
            )  # fmt: skip

    def check_settings(self, recorded: Mapping[str, Any], present: Mapping[str, Any]) -> None:
        """Refuses settings of the model that a replay cannot follow: they shaped the recorded rows. Raises `ConfigError`.

        Args:
            recorded, present: the section `model` of the recording's config, and of the present one.
        """
        for name in SETTLED:
            if name in recorded and recorded[name] != present[name]:
                raise ConfigError(
                    f"model.{name}", wanted=f"{_plain(recorded[name])}, with which the recording was made",
                    got=_plain(present[name]), remedy="Set it back, or leave --rollouts out to sample anew.",
                )  # fmt: skip

    def check_weights(self, present: Fingerprint) -> None:
        """Refuses other weights than those that sampled. Raises `ConfigError`."""
        if present.sha256 != self.weights.sha256:
            raise ConfigError(
                "--rollouts", wanted=f"the weights that sampled the recording, {self.weights}", got=f"{present}",
                remedy="Give the same config and --ckpt_path as then, or leave --rollouts out to sample anew.",
            )  # fmt: skip


def _plain(value: Any) -> str:
    """A setting in one line: classes by their names, arguments behind them."""
    if isinstance(value, Mapping) and "class_path" in value:
        name, fields = str(value["class_path"]).rpartition(".")[2], value.get("init_args") or {}
        return f"{name}({', '.join(f'{key}={_plain(one)}' for key, one in fields.items())})"
    return "[" + ", ".join(map(_plain, value)) + "]" if isinstance(value, list) else str(value)
