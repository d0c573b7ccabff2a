"""SLURM begins this job anew, with the same command, in the place where it was submitted."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from delta_lightning.errors import RunError

JOB, ARRAY, TASK = "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"
PATIENCE = 60.0  # seconds for the controller to answer


def requeue(environment: Mapping[str, str]) -> str:
    """Ask SLURM to put the job that this process runs in back into the queue.

    Args:
        environment: of the process, with the variables that SLURM sets.

    Returns:
        The name of the job; of one of an array, the array's number with the task's.

    Raises:
        RunError: SLURM refuses, for example a job that was not submitted with `--requeue`, or does not answer.
    """
    job = f"{environment[ARRAY]}_{environment[TASK]}" if ARRAY in environment else environment[JOB]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=PATIENCE, check=False)
        reason = "" if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        raise RunError(
            f"SLURM job {job} could not be requeued: {reason}. The last checkpoint is whole: submit the job again, with "
            "--ckpt_path=last-if-any in its command."
        )
    return job
