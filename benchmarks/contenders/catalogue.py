"""Who takes part, and where; the contenders themselves are imported by their workers only."""

import dataclasses
import importlib
import typing


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
    """The measurement of our own that it is compared with: the one of the same environment."""

    def load(self) -> type[typing.Any]:
        module, _, name = self.target.partition(":")
        found: type[typing.Any] = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), name)
        return found


OURS: typing.Final = Entry(name="ours", title="modern-di-replicas", target="ours:Ours")
RECIPE: typing.Final = Entry(name="recipe", title="modern-di recipe", target="recipe:Recipe")
POOL: typing.Final = Entry(name="asyncpg_pool", title="raw asyncpg pool", target="asyncpg_pool:AsyncpgPool")
AUTOCOMMIT: typing.Final = Entry(
    name="autocommit", title="plain AsyncSession in autocommit", target="autocommit:Autocommit"
)
NO_TOKENS: typing.Final = Entry(
    name="ours_no_tokens", title="modern-di-replicas without tokens", target="ours:OursWithoutTokens"
)
CONNECTION: typing.Final = Entry(
    name="asyncpg_connection", title="one raw asyncpg connection", target="asyncpg_connection:AsyncpgConnection"
)
ORM: typing.Final = Entry(name="orm_alone", title="SQLAlchemy's Session alone", target="orm_alone:OrmAlone")
FLOORS: typing.Final = (CONNECTION, ORM)
"""Nobody builds an application on them: they show what the driver takes, and what SQLAlchemy adds to it."""
OURS_20: typing.Final = Entry(
    name="ours_20", title="modern-di-replicas, SQLAlchemy 2.0", target="ours:Ours", environment=SQLALCHEMY_20
)

CONTENDERS: typing.Final = (
    OURS,
    RECIPE,
    Entry(name="recipe_no_ping", title="modern-di recipe, no ping", target="recipe:RecipeWithoutPing"),
    Entry(name="get_bind", title="get_bind() override", target="get_bind:GetBind"),
    Entry(name="plain", title="plain AsyncSession", target="plain:Plain"),
    Entry(name="hasql", title="hasql", target="hasql_sessions:Hasql"),
    POOL,
    OURS_20,
    Entry(
        name="advanced_alchemy",
        title="Advanced Alchemy, SQLAlchemy 2.0",
        target="advanced_alchemy_routing:AdvancedAlchemyRouting",
        environment=SQLALCHEMY_20,
        rival_of="ours_20",
    ),
)
"""Those of the side-by-side tables and of the faults."""

FRESHNESS: typing.Final = (
    OURS,
    Entry(name="pin_2", title="pin of 2 s", target="pinned:Pinned"),
    Entry(name="pin_5", title="pin of 5 s", target="pinned:Pinned5"),
    Entry(name="pin_15", title="pin of 15 s", target="pinned:Pinned15"),
    Entry(name="recipe", title="naive routing (the recipe)", target="recipe:Recipe"),
)
"""Those of the section on consistency."""

BY_NAME: typing.Final = {entry.name: entry for entry in (*FRESHNESS, *CONTENDERS, AUTOCOMMIT, NO_TOKENS, *FLOORS)}
