"""What verifiers behind HTTP have in common: a service, and the fields of the reference that it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delta_lightning.interfaces import Verifier
from delta_lightning.verifiers.remote.reply import refused_reference
from delta_lightning.verifiers.remote.service import Service


@dataclass(frozen=True, kw_only=True)
class ServiceVerifier(Verifier):
    """A verifier that asks a service.

    Args:
        service: where it is, and how long it may take.
        fields: fields of the reference that are sent, and that the data must have.
    """

    service: Service
    fields: Sequence[str] = ("answer",)

    def reference_fields(self) -> frozenset[str]:
        """Those that are sent."""
        return frozenset(self.fields)

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """See the seam: it must be JSON."""
        return refused_reference(reference, self.fields)

    def limit_seconds(self) -> float:
        """The service's total time."""
        return self.service.limit_seconds()

    def warm_up(self) -> None:
        """Read the key and the certificates."""
        self.service.open()
