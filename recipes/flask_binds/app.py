"""Flask with models in two databases: the models of the archive always use the archive.

Run it:

    export DB_PRIMARY=postgresql+psycopg://app:secret@db-1/shop
    export DB_REPLICAS=postgresql+psycopg://app:secret@db-2/shop
    export ARCHIVE_URL=postgresql+psycopg://app:secret@archive/archive
    gunicorn --threads 8 'app:main()'

`binds` of a session take precedence over the routing. The archive has no replicas here; otherwise it needs a separate
container.
"""

import os
from typing import Annotated

import flask
from modern_di import Container, Scope, providers
from modern_di_flask import FromDI, inject
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from modern_di_replicas import ReplicationSettings
from modern_di_replicas.flask import Dependencies, setup_replicas
from modern_di_replicas.sync import close_session, create_session


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)


class ArchiveBase(DeclarativeBase):
    """The base of all models in the archive."""


class OldOrder(ArchiveBase):
    __tablename__ = "old_orders"

    id: Mapped[int] = mapped_column(primary_key=True)


Injected = Annotated[Session, FromDI(Session)]
shop = flask.Blueprint("shop", __name__)


@shop.get("/orders")
@inject
def count(session: Injected) -> dict[str, object]:
    return {
        "orders": session.scalar(select(func.count()).select_from(Order)),
        "standby": session.scalar(text("SELECT pg_is_in_recovery()")),
        "old": session.scalar(select(func.count()).select_from(OldOrder)),
        "archive": session.scalar(text("SELECT current_database()"), bind_arguments={"mapper": OldOrder}),
    }


@shop.post("/orders/archive")
@inject
def archive(session: Injected) -> dict[str, int]:
    """Write to both databases; each commits separately."""
    orders = list(session.scalars(select(Order).order_by(Order.id)))
    for order in orders:
        session.add(OldOrder(id=order.id))
        session.delete(order)
    session.commit()
    return {"archived": len(orders)}


def create_app(settings: ReplicationSettings, archive: Engine) -> flask.Flask:
    class AppDependencies(Dependencies):
        session = providers.Factory(
            create_session,
            scope=Scope.REQUEST,
            cache=providers.CacheSettings(finalizer=close_session),
            kwargs={"binds": {ArchiveBase: archive}},
        )

    app = flask.Flask(__name__)
    app.register_blueprint(shop)
    setup_replicas(app, Container(groups=[AppDependencies], context={ReplicationSettings: settings}))
    return app


def main() -> flask.Flask:
    return create_app(ReplicationSettings.from_env("DB_"), create_engine(os.environ["ARCHIVE_URL"]))
