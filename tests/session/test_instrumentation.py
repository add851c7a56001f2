"""Tracing, error reporting and codecs of common packages, on replicas as on the primary."""

import collections.abc
import typing

import pgvector.asyncpg
import pytest
import sentry_sdk
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.sqlalchemy import SqlalchemyIntegration
from sqlalchemy import event, text

from modern_di_replicas import Intent
from modern_di_replicas.testing import LocalCluster
from tests.session.conftest import Servers, serving


READ = text("SELECT 1 AS traced")
WRITE = text("UPDATE item SET amount = amount WHERE id = 1")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def instrumentor(exporter: InMemorySpanExporter) -> collections.abc.Iterator[typing.Any]:
    """Yield OpenTelemetry's instrumentor and the arguments of `instrument()`."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = SQLAlchemyInstrumentor()
    # It declares SQLAlchemy below 2.1, but works with 2.1.
    yield lambda **options: instrumentor.instrument(tracer_provider=provider, skip_dep_check=True, **options)
    instrumentor.uninstrument()


def statements(exporter: InMemorySpanExporter) -> list[tuple[str, bool]]:
    """Return the statements of the spans, and whether each has an error."""
    spans = [span for span in exporter.get_finished_spans() if span.attributes and "db.statement" in span.attributes]
    return [(str((span.attributes or {})["db.statement"]), not span.status.is_ok) for span in spans]


async def read_and_write(servers: Servers) -> None:
    async with servers.session() as session:
        await session.execute(READ)
    async with servers.session() as session:  # moves to the primary
        await session.execute(WRITE)
        await session.rollback()
    async with servers.replica.connect() as connection:
        await connection.execute(READ)


async def test_opentelemetry_that_is_set_up_before_the_engines_sees_each_statement_once(
    shop_cluster: LocalCluster, exporter: InMemorySpanExporter, instrumentor: typing.Any
) -> None:
    """`instrument()` at the start of a program, after the import; statements that were not sent have no span."""
    instrumentor()
    async with serving(shop_cluster) as servers:
        await read_and_write(servers)
    assert statements(exporter) == [(READ.text, False), (WRITE.text, False), (READ.text, False)]


async def test_opentelemetry_that_is_given_the_engines_sees_each_statement_once(
    shop_cluster: LocalCluster, exporter: InMemorySpanExporter, instrumentor: typing.Any
) -> None:
    """`instrument(engines=[...])` accepts the engine of all replicas like any other."""
    async with serving(shop_cluster) as servers:
        instrumentor(engines=[servers.primary.sync_engine, servers.replica.sync_engine])
        await read_and_write(servers)
        SQLAlchemyInstrumentor().uninstrument()
        await read_and_write(servers)
    assert statements(exporter) == [(READ.text, False), (WRITE.text, False), (READ.text, False)]


async def test_sentry_sees_each_statement_once(shop_cluster: LocalCluster) -> None:
    """Its integration listens on the class `Engine`."""
    seen: list[typing.Any] = []
    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        integrations=[SqlalchemyIntegration()],
        default_integrations=False,
        traces_sample_rate=1.0,
        before_send_transaction=lambda transaction, _: seen.extend(typing.cast(list[typing.Any], transaction["spans"])),
    )
    try:
        async with serving(shop_cluster) as servers:
            with sentry_sdk.start_transaction(name="request"):
                await read_and_write(servers)
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.init()
    described = [span["description"] for span in seen if span["op"] == "db"]
    assert described == [READ.text, WRITE.text, READ.text]


async def test_pgvector_registers_its_types_with_each_connection(shop_cluster: LocalCluster) -> None:
    """Its function for asyncpg in a `connect` listener, as in its documentation; the types are stand-ins."""
    if "asyncpg" not in shop_cluster.primary.url:
        pytest.skip("its function for asyncpg")
    names = ("vector", "halfvec", "sparsevec")
    shop_cluster.primary.execute("; ".join(f"CREATE TYPE {name} AS ENUM ('[1,2]')" for name in names))
    shop_cluster.catch_up()
    registered = []
    try:
        async with serving(shop_cluster) as servers:

            @event.listens_for(servers.replica.sync_engine, "connect")
            def register(connection: typing.Any, _: object) -> None:
                connection.run_async(pgvector.asyncpg.register_vector)
                registered.append(connection.driver_connection)

            for _ in shop_cluster.replicas:
                async with servers.session(intent=Intent.read()) as session:
                    raised = None
                    try:
                        await session.scalar(text("SELECT '[1,2]'::vector"))
                    except Exception as error:  # noqa: BLE001  # whatever its codec says of a value that is no vector
                        raised = error
                    assert raised is not None
    finally:
        shop_cluster.primary.execute("; ".join(f"DROP TYPE {name}" for name in names))
        shop_cluster.catch_up()
    assert len(registered) == len(shop_cluster.replicas)
