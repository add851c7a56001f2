"""A worker of Celery for another process: `celery --app tests.celery_worker:app worker`."""

import os
import pathlib
import signal
import typing

import celery
from modern_di import Container
from modern_di_celery import DITask, FromDI
from sqlalchemy.orm import Session

import modern_di_replicas.celery
from modern_di_replicas import ReplicationSettings, read_intent
from tests.carrying import READ


app = celery.Celery("killed", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.task_default_queue = "killed"


@app.task(base=DITask, name="dies_once", acks_late=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator]
@read_intent
def dies_once(mark: str, session: typing.Annotated[Session, FromDI(Session)]) -> tuple[int, bool]:
    """Read, and be killed in the middle when it is the first to do so."""
    amount, is_replica = session.execute(READ).one()
    if not pathlib.Path(mark).exists():
        pathlib.Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return amount, is_replica


container = Container(
    groups=[modern_di_replicas.celery.Dependencies],
    context={
        ReplicationSettings: ReplicationSettings(
            primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split()
        )
    },
)
modern_di_replicas.celery.setup_replicas(app, container)
