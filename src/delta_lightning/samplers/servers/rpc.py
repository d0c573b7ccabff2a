"""Calls of the methods that our plug-in adds to the workers of a server."""

from __future__ import annotations

from typing import Any

from delta_lightning.samplers.servers.client import Call, Client, ServerError, excerpt

PATH = "/collective_rpc"
DESCRIBE, TAKE_MASS, FORGET_MASS = "delta_describe", "delta_take_mass", "delta_forget_mass"


def ask_workers(client: Client, method: str, *args: Any, seconds: float | None = None, call: Call | None = None) -> list[Any]:
    """What each worker of the server answers. Raises `ServerError`, which names the method."""
    try:
        answer = client.post(PATH, {"method": method, "args": list(args)}, seconds, call)
    except ServerError as error:
        raise ServerError(error.url, f"{error.asked} {method}", error.reason, error.status) from error
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or not results:
        raise ServerError(client.url, f"POST {PATH} {method}", f"no results in its answer: {excerpt(str(answer))}")
    return results


def ask_worker(client: Client, method: str, *args: Any, seconds: float | None = None, call: Call | None = None) -> Any:
    """What the first worker answers, where all say the same. Raises `ServerError`."""
    return ask_workers(client, method, *args, seconds=seconds, call=call)[0]
