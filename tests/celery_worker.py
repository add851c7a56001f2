"""A Celery worker that runs in another process: `celery --app tests.celery_worker:app worker`.

Its main process uses the engines before it forks.
"""

import os
import pathlib
import signal
import typing

import celery
from modern_di import Container
from modern_di_celery import DITask, FromDI
from sqlalchemy.orm import Session

import modern_di_replicas.celery
from modern_di_replicas import Intent, ReplicationSettings, read_intent
from modern_di_replicas.sync import ReplicaEngine, unit_of_work
from tests.carrying import READ, WRITE
from tests.waiting import wait_for


InSession = typing.Annotated[Session, FromDI(Session)]

app = celery.Celery("forked", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.task_default_queue = os.environ["QUEUE"]
app.conf.worker_hijack_root_logger = False


@app.task(base=DITask, name="dies_once", acks_late=True, reject_on_worker_lost=True)  # type: ignore[untyped-decorator]
@read_intent
def dies_once(mark: str, session: InSession) -> tuple[int, bool]:
    """Read, and kill the process during the first attempt."""
    amount, is_replica = session.execute(READ).one()
    if not pathlib.Path(mark).exists():
        pathlib.Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return amount, is_replica


@app.task(base=DITask, name="writes")  # type: ignore[untyped-decorator]
def writes(session: InSession) -> None:
    session.execute(WRITE)
    session.commit()


@app.task(base=DITask, name="meets")  # type: ignore[untyped-decorator]
@read_intent
def meets(
    folder: str, session: InSession, replicas: typing.Annotated[ReplicaEngine, FromDI(ReplicaEngine)]
) -> dict[str, typing.Any]:
    """Read once two processes run this task at the same time."""
    marks = pathlib.Path(folder)
    (marks / str(os.getpid())).touch()
    wait_for(lambda: len(list(marks.iterdir())) > 1, seconds=60)
    amount, is_replica = session.execute(READ).one()
    return {
        "process": os.getpid(),
        "parent": os.getppid(),
        "connection": session.connection().connection.dbapi_connection.info.backend_pid,  # type: ignore[union-attr]
        "saw": (amount, is_replica),
        "is_watched": replicas.topology.watcher is not None,
    }


container = Container(
    groups=[modern_di_replicas.celery.Dependencies],
    context={
        ReplicationSettings: ReplicationSettings(
            primary=os.environ["PRIMARY_URL"], replicas=os.environ["REPLICA_URLS"].split(), application_name="forked"
        )
    },
)
modern_di_replicas.celery.setup_replicas(app, container)


@celery.signals.worker_init.connect  # type: ignore[untyped-decorator]
def use(**_: object) -> None:
    """Use the engines in the main process."""
    for intent in (Intent.read(), Intent.write()):
        with unit_of_work(container, intent=intent) as unit:
            unit.resolve(Session).execute(READ)
