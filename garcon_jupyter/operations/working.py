"""What takes long and needs nobody: stores, trainings, shuffles, features; told, and steered."""

from __future__ import annotations

from typing import Literal

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.plain_data import Plain, PlainAnswer


class JobsRequest(Plain):
    """Nothing needs to be said."""


class JobSaid(PlainAnswer):
    """Something that takes long."""

    name: str
    kind: str
    state: str
    told: str


class JobsAnswer(PlainAnswer):
    """All that is under way."""

    jobs: list[JobSaid]


@operation("nothing", quick=True)
def jobs(at: Door, asked: JobsRequest) -> JobsAnswer:
    """What takes long and is under way: stores, trainings, shuffles, features, and how far each is."""
    from garcon_jupyter.client.jobs import jobs as all_jobs

    return JobsAnswer(
        jobs=[
            JobSaid(name=job.name, kind=job.kind, state=job.state, told=job.told)
            for job in all_jobs().values()
        ]
    )


class SteerRequest(Plain):
    """A job, and what to do with it."""

    job: str
    what: Literal["pause", "resume", "cancel"]


class SteerAnswer(PlainAnswer):
    """What was done, in words."""

    told: str


@operation("nothing", (UnknownName, BadRequest), permission="steer", quick=True)
def steer(at: Door, asked: SteerRequest) -> SteerAnswer:
    """Pause, resume or cancel a job."""
    from garcon_jupyter.client.jobs import steered

    return SteerAnswer(told=steered(asked.what, asked.job))
