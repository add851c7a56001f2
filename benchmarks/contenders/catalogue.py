"""The contenders. Only their own processes import them."""

import dataclasses
import importlib
import typing

from benchmarks.pooler import PROGRAM


NEWEST: typing.Final = ".venv-bench"
SQLALCHEMY_20: typing.Final = ".venv-bench-sqlalchemy20"


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Entry:
    name: str
    title: str
    target: str
    """Module and class."""
    environment: str = NEWEST
    rival_of: str = "ours"
    """Our own measurement in the same environment, with which it is compared."""

    def load(self) -> type[typing.Any]:
        module, _, name = self.target.partition(":")
        found: type[typing.Any] = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), name)
        return found


OURS: typing.Final = Entry(name="ours", title="modern-di-replicas", target="ours:Ours")
OURS_20: typing.Final = Entry(
    name="ours_20", title="modern-di-replicas (SQLAlchemy 2.0)", target="ours:Ours", environment=SQLALCHEMY_20
)
RECIPE: typing.Final = Entry(name="recipe", title="modern-di docs recipe", target="recipe:Recipe")
POOL: typing.Final = Entry(name="asyncpg_pool", title="asyncpg pool, no ORM", target="asyncpg_pool:AsyncpgPool")
GET_BIND: typing.Final = Entry(name="get_bind", title="get_bind() as in SQLAlchemy docs", target="get_bind:GetBind")
ADVANCED_ALCHEMY: typing.Final = Entry(
    name="advanced_alchemy",
    title="Advanced Alchemy (SQLAlchemy 2.0)",
    target="advanced_alchemy_routing:AdvancedAlchemyRouting",
    environment=SQLALCHEMY_20,
    rival_of=OURS_20.name,
)
RIVALS: typing.Final = (
    RECIPE,
    Entry(name="recipe_no_ping", title="same recipe without pre-ping", target="recipe:RecipeWithoutPing"),
    GET_BIND,
    Entry(name="plain", title="AsyncSession, primary only", target="plain:Plain"),
    Entry(name="hasql", title="hasql", target="hasql_sessions:Hasql"),
    POOL,
    ADVANCED_ALCHEMY,
)
CONTENDERS: typing.Final = (OURS, OURS_20, *RIVALS)

# Each is measured for one comparison only.
AUTOCOMMIT: typing.Final = Entry(name="autocommit", title="AsyncSession in autocommit", target="recipe:Autocommit")
NO_TOKENS: typing.Final = Entry(
    name="ours_no_tokens", title="modern-di-replicas without tokens", target="ours:OursWithoutTokens"
)
PINNED: typing.Final = Entry(name="pinned", title="primary for 2 s after a write", target="pinned:Pinned")

PSYCOPG: typing.Final = Entry(
    name="ours_psycopg", title="modern-di-replicas on psycopg", target="other_drivers:OursOnPsycopg"
)
POOLED: typing.Final = (
    Entry(name="ours_pooled", title="the same behind pgbouncer, asyncpg", target="other_drivers:OursBehindPooler"),
    Entry(
        name="ours_psycopg_pooled",
        title="the same behind pgbouncer, psycopg",
        target="other_drivers:OursOnPsycopgBehindPooler",
    ),
)
DRIVERS: typing.Final = (PSYCOPG, *(POOLED if PROGRAM else ()))

BY_NAME: typing.Final = {entry.name: entry for entry in (*CONTENDERS, AUTOCOMMIT, NO_TOKENS, PINNED, *DRIVERS)}
