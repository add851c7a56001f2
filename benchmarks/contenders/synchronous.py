"""The contenders in synchronous applications, each as its own documentation recommends."""

import abc
import collections.abc
import contextlib
import random
import typing

import flask
import modern_di_flask
from advanced_alchemy.config.routing import RoutingConfig
from advanced_alchemy.extensions.flask import AdvancedAlchemy, EngineConfig, SQLAlchemySyncConfig
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session as FlaskSession
from modern_di import Container, integrations
from sqlalchemy import Delete, Engine, Update, create_engine
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.servers import WRITING_CONNECTIONS, Servers
from modern_di_replicas import Intent, ReplicationSettings
from modern_di_replicas.flask import Dependencies, setup_replicas
from modern_di_replicas.sync import unit_of_work


OURS: typing.Final = "modern-di-replicas"
GET_BIND: typing.Final = "get_bind() as in SQLAlchemy docs"
READ: typing.Final = Intent.read()

Read = collections.abc.Callable[[Session, int], dict[str, object]]
View = collections.abc.Callable[..., dict[str, object]]


class Contender(abc.ABC):
    """One way to use a replicated database. Enter it to start it."""

    has_app: typing.ClassVar[bool] = True
    """Whether it has an integration with Flask."""

    def __init__(self, servers: Servers) -> None:
        self.app = flask.Flask(__name__)
        self._servers = servers

    def __enter__(self) -> typing.Self:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self.engines():
            engine.dispose()

    def engines(self) -> collections.abc.Iterable[Engine]:
        """Return the engines to dispose."""
        return ()

    @abc.abstractmethod
    def unit_of_work(self) -> contextlib.AbstractContextManager[Session]:
        """Return a session that reads."""

    @abc.abstractmethod
    def view(self, read: Read) -> View:
        """Return a view that reads in the session of the request."""


class Ours(Contender):
    def __init__(self, servers: Servers) -> None:
        super().__init__(servers)
        settings = ReplicationSettings(
            primary=servers.primary,
            replicas=servers.replicas,
            primary_pool_size=WRITING_CONNECTIONS,
            primary_max_overflow=0,
            replica_pool_size=servers.reading_connections,
            replica_max_overflow=0,
        )
        self._container = Container(groups=[Dependencies], context={ReplicationSettings: settings})
        setup_replicas(self.app, self._container)

    def __exit__(self, *_: object) -> None:
        self._container.close_sync()

    @contextlib.contextmanager
    def unit_of_work(self) -> collections.abc.Iterator[Session]:
        with unit_of_work(self._container, intent=READ) as unit:
            yield unit.resolve(Session)

    def view(self, read: Read) -> View:
        @modern_di_flask.inject
        def view(key: int, session: typing.Annotated[Session, integrations.from_di(Session)]) -> dict[str, object]:
            return read(session, key)

        return view


class GetBind(Contender):
    """https://docs.sqlalchemy.org/en/20/orm/persistence_techniques.html#custom-vertical-partitioning."""

    has_app = False

    def __init__(self, servers: Servers) -> None:
        super().__init__(servers)
        leader = create_engine(servers.primary, pool_size=WRITING_CONNECTIONS, max_overflow=0)
        followers = [
            create_engine(url, pool_size=servers.reading_connections, max_overflow=0) for url in servers.replicas
        ]
        self._engines = [leader, *followers]

        class RoutingSession(Session):
            def get_bind(self, mapper: typing.Any = None, *, clause: typing.Any = None, **_: typing.Any) -> Engine:  # noqa: ARG002  # as the documentation has it
                if self._flushing or isinstance(clause, Update | Delete):
                    return leader
                return random.choice(followers)  # noqa: S311  # for spreading

        self._create_session = sessionmaker(class_=RoutingSession)

    def engines(self) -> collections.abc.Iterable[Engine]:
        return self._engines

    def unit_of_work(self) -> contextlib.AbstractContextManager[Session]:
        return self._create_session()

    def view(self, read: Read) -> View:
        raise NotImplementedError


class OfApplicationContext(Contender):
    """The session of Flask's application context."""

    @abc.abstractmethod
    def session(self) -> Session:
        """Return the session of this context."""

    @contextlib.contextmanager
    def unit_of_work(self) -> collections.abc.Iterator[Session]:
        with self.app.app_context():
            yield self.session()

    def view(self, read: Read) -> View:
        def view(key: int) -> dict[str, object]:
            return read(self.session(), key)

        return view


class FlaskSQLAlchemy(OfApplicationContext):
    """`SQLALCHEMY_BINDS` and a `get_bind()`; https://flask-sqlalchemy.readthedocs.io/en/stable/binds/."""

    def __init__(self, servers: Servers) -> None:
        super().__init__(servers)
        names = [f"replica-{number}" for number in range(len(servers.replicas))]
        pool = {"pool_size": servers.reading_connections, "max_overflow": 0}
        self.app.config["SQLALCHEMY_DATABASE_URI"] = servers.primary
        self.app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": WRITING_CONNECTIONS, "max_overflow": 0}
        self.app.config["SQLALCHEMY_BINDS"] = {
            name: {"url": url, **pool} for name, url in zip(names, servers.replicas, strict=True)
        }

        class RoutingSession(FlaskSession):  # type: ignore[misc]  # it is not in the environment of the tests
            def get_bind(self, mapper: typing.Any = None, clause: typing.Any = None, **_: typing.Any) -> Engine:  # noqa: ARG002  # as above
                engines: dict[str | None, Engine] = self._db.engines
                if self._flushing or isinstance(clause, Update | Delete):
                    return engines[None]
                return engines[random.choice(names)]  # noqa: S311  # for spreading

        self._db = SQLAlchemy(self.app, session_options={"class_": RoutingSession})

    def engines(self) -> collections.abc.Iterable[Engine]:
        with self.app.app_context():
            return list(self._db.engines.values())

    def session(self) -> Session:
        session: Session = self._db.session()
        return session


class AdvancedAlchemyFlask(OfApplicationContext):
    """https://advanced-alchemy.litestar.dev/latest/usage/routing.html, with its extension for Flask."""

    def __init__(self, servers: Servers) -> None:
        super().__init__(servers)
        config = SQLAlchemySyncConfig(
            routing_config=RoutingConfig(
                primary_connection_string=servers.primary, read_replicas=list(servers.replicas)
            ),
            engine_config=EngineConfig(pool_size=servers.reading_connections, max_overflow=0),
        )
        self._alchemy = AdvancedAlchemy(config, self.app)

    def session(self) -> Session:
        return self._alchemy.get_sync_session()


CONTENDERS: typing.Final[dict[str, type[Contender]]] = {
    OURS: Ours,
    GET_BIND: GetBind,
    "Flask-SQLAlchemy, binds, get_bind()": FlaskSQLAlchemy,
    "Advanced Alchemy, Flask": AdvancedAlchemyFlask,
}
