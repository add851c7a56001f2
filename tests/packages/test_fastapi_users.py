"""fastapi-users with the injected session in its database adapter."""

import collections.abc
import typing
import uuid

import fastapi
import pytest
from modern_di_fastapi import FromDI
from sqlalchemy.ext.asyncio import AsyncSession

from tests.packages.conftest import Base, Words


pytest.importorskip("fastapi_users_db_sqlalchemy", reason="needs SQLAlchemy 2.0: installed by `make test-lowest` only")

import fastapi_users
from fastapi_users import authentication, schemas
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase


SECRET = "a secret of thirty-two characters"  # noqa: S105  # of nothing


class User(SQLAlchemyBaseUserTableUUID, Base): ...


class UserManager(fastapi_users.UUIDIDMixin, fastapi_users.BaseUserManager[User, uuid.UUID]):
    reset_password_token_secret = verification_token_secret = SECRET


Session = typing.Annotated[AsyncSession, FromDI(AsyncSession)]


async def manager(session: Session) -> collections.abc.AsyncIterator[UserManager]:
    yield UserManager(SQLAlchemyUserDatabase(session, User))


def create_app() -> fastapi.FastAPI:
    bearer = authentication.BearerTransport(tokenUrl="login")

    def strategy() -> authentication.JWTStrategy[User, uuid.UUID]:
        return authentication.JWTStrategy(secret=SECRET, lifetime_seconds=60)

    backend = authentication.AuthenticationBackend("jwt", bearer, strategy)
    users = fastapi_users.FastAPIUsers[User, uuid.UUID](manager, [backend])
    app = fastapi.FastAPI()
    create, read = schemas.BaseUserCreate, schemas.BaseUser[uuid.UUID]
    app.include_router(users.get_register_router(read, create))
    app.include_router(users.get_users_router(read, schemas.BaseUserUpdate))
    app.include_router(users.get_auth_router(backend))
    return app


async def test_users_register_and_log_in_on_the_primary_and_are_read_from_replicas(words: Words) -> None:
    """By the methods of the package's routers; users are changed on the primary."""
    user = {"email": "ada@example.org", "password": "analytical"}
    async with words.serving(create_app()) as client:
        assert (await client.post("/register", json=user)).status_code == 201
        assert words.servers() == {"the primary"}
        login = await client.post("/login", data={"username": user["email"], "password": user["password"]})
        client.headers["authorization"] = f"Bearer {login.json()['access_token']}"
        assert words.servers() == {"the primary"}
        assert (await client.get("/me")).json()["email"] == user["email"]
        assert words.servers() == {"a replica"}
        assert (await client.patch("/me", json={"email": "lovelace@example.org"})).status_code == 200
        assert words.servers() == {"the primary"}
        assert (await client.get("/me")).json()["email"] == "lovelace@example.org"
        assert words.servers() == {"a replica"}
