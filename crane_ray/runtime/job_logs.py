"""The log of a job's workers as JSON, in Ray's session logs of each node."""

import logging
import sys
from dataclasses import dataclass, field
from typing import Any

import ray

from crane_ray.logs import run_fields, write_json
from crane_ray.runtime.jobs import ClusterConfig


@dataclass
class JobLogging(ray.LoggingConfig):  # type: ignore[misc]
    """What Ray sets up logging with in each process of a job: as `crane_ray.logs` has it.

    Ray's own encoding knows neither the run nor the slide that a record is about; both kinds of
    lines have the same names for what Ray knows (``job_id``, ``node_id``, ``worker_id``, ...).
    """

    fields: dict[str, Any] = field(default_factory=dict)
    """Of every record: the run, and its verb."""

    def _apply(self) -> None:
        if not ray.is_initialized():  # the driver: its log is its own
            return
        level: Any = self.log_level.lower()
        write_json(sys.stderr, level, fields=self.fields, more=ray_fields)
        of_ray = logging.getLogger("ray")
        of_ray.handlers.clear()
        of_ray.propagate = True


def job_logging(config: ClusterConfig) -> JobLogging | None:
    """The logging of a job's workers; None where Ray's own stays as it is."""
    if config.log_format != "json":
        return None
    return JobLogging(encoding="JSON", log_level=config.log_level.upper(), fields=run_fields())


def ray_fields() -> dict[str, Any]:
    """What Ray knows of this process and of what it does now."""
    if not ray.is_initialized():
        return {}
    context = ray.get_runtime_context()
    found = {
        "job_id": context.get_job_id(),
        "node_id": context.get_node_id(),
        "worker_id": context.get_worker_id(),
    }
    if context.worker.mode == ray.WORKER_MODE:
        found |= {
            "actor_id": context.get_actor_id(),
            "task_id": context.get_task_id(),
            "task_name": context.get_task_name(),
        }
    return {name: value for name, value in found.items() if value}
