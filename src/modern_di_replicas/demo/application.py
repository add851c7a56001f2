"""The application of the demo: a complete one, to read and to copy.

Only `report` is specific to the demo: it adds the headers that name the server.
"""

import collections.abc
import contextlib
import datetime as dt
from typing import Annotated

import fastapi
import pydantic
from fastapi.responses import JSONResponse
from modern_di import Container, Scope, providers
from modern_di_fastapi import FromDI
from sqlalchemy import DateTime, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from modern_di_replicas import (
    EVENTUAL,
    STRONG,
    PrimaryEngine,
    ReplicasError,
    ReplicationSettings,
    read_intent,
    write_intent,
)
from modern_di_replicas.demo.report import ReportingRoute, remember_unit_of_work, report_of
from modern_di_replicas.fastapi import Dependencies, setup_replicas


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    last_seen: Mapped[dt.datetime | None] = mapped_column(DateTime(timezone=True))


class UserNotFoundError(Exception):
    """There is no such user on the server that was used."""


class EmailTakenError(Exception):
    """Another user has this email address."""


class UserRepository:
    """Uses an injected session; the request decides which server it uses."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, user_id: int) -> User:
        user = await self._session.get(User, user_id)
        if user is None:
            raise UserNotFoundError
        return user

    async def search(self, words: str) -> collections.abc.Sequence[User]:
        found = select(User).where(User.name.icontains(words, autoescape=True)).order_by(User.name)
        return (await self._session.scalars(found)).all()

    async def newest(self) -> collections.abc.Sequence[User]:
        return (await self._session.scalars(select(User).order_by(User.id.desc()).limit(10))).all()

    async def has_email(self, email: str) -> bool:
        return await self._session.scalar(select(User.id).where(User.email == email)) is not None

    async def add(self, *, name: str, email: str) -> User:
        user = User(name=name, email=email)
        self._session.add(user)
        await self._commit()
        return user

    async def change(self, user_id: int, *, name: str, email: str) -> User:
        user = await self.get(user_id)
        user.name, user.email = name, email
        await self._commit()
        return user

    async def see(self, user_id: int) -> User:
        """Return a user, and store the time of this visit."""
        seen = update(User).where(User.id == user_id).values(last_seen=func.now()).returning(User)
        user = (await self._session.scalars(seen)).one_or_none()
        if user is None:
            raise UserNotFoundError
        await self._commit()
        return user

    async def remove(self, user_id: int) -> None:
        await self._session.delete(await self.get(user_id))
        await self._commit()

    async def _commit(self) -> None:
        try:
            await self._session.commit()
        except IntegrityError as error:
            await self._session.rollback()
            raise EmailTakenError from error


class ShopDependencies(Dependencies):
    users = providers.Factory(UserRepository, scope=Scope.REQUEST)


Users = Annotated[UserRepository, FromDI(UserRepository)]


class UserData(pydantic.BaseModel):
    name: str
    email: str


class UserView(UserData):
    model_config = pydantic.ConfigDict(from_attributes=True)

    id: int
    last_seen: dt.datetime | None


class Search(pydantic.BaseModel):
    words: str


router = fastapi.APIRouter(route_class=ReportingRoute, dependencies=[fastapi.Depends(remember_unit_of_work)])


@router.get("/users/{user_id}", response_model=UserView)
@router.head("/users/{user_id}", response_model=UserView)
async def read_user(user_id: int, users: Users) -> User:
    return await users.get(user_id)


@router.post("/users", status_code=fastapi.status.HTTP_201_CREATED, response_model=UserView)
async def create_user(data: UserData, users: Users) -> User:
    return await users.add(name=data.name, email=data.email)


@router.put("/users/{user_id}", response_model=UserView)
async def change_user(user_id: int, data: UserData, users: Users) -> User:
    return await users.change(user_id, name=data.name, email=data.email)


@router.delete("/users/{user_id}", status_code=fastapi.status.HTTP_204_NO_CONTENT)
async def remove_user(user_id: int, users: Users) -> None:
    await users.remove(user_id)


@router.get("/me", response_model=UserView)
@write_intent
async def me(x_user_id: Annotated[int, fastapi.Header()], users: Users) -> User:
    return await users.see(x_user_id)


@router.get("/visits/{user_id}", response_model=UserView)
async def visit(user_id: int, users: Users) -> User:
    """Write, as `me` does, but without the marker, which the author forgot."""
    return await users.see(user_id)


@router.post("/search", response_model=list[UserView])
@read_intent(group="analytics")
async def search(wanted: Search, users: Users) -> collections.abc.Sequence[User]:
    return await users.search(wanted.words)


@router.get("/newest", response_model=list[UserView])
@read_intent(consistency=EVENTUAL)
async def newest(users: Users) -> collections.abc.Sequence[User]:
    """Return the public front page: slightly old data is fine."""
    return await users.newest()


@router.get("/taken")
@read_intent(consistency=STRONG)
async def is_taken(email: str, users: Users) -> bool:
    """Return whether this address is taken, according to the primary."""
    return await users.has_email(email)


async def answer_not_found(request: fastapi.Request, _: Exception) -> JSONResponse:
    headers = (await report_of(request)).as_headers()
    return JSONResponse({"detail": "There is no such user."}, status_code=404, headers=headers)


async def answer_conflict(request: fastapi.Request, _: Exception) -> JSONResponse:
    headers = (await report_of(request)).as_headers()
    return JSONResponse({"detail": "That email address is taken."}, status_code=409, headers=headers)


async def answer_unavailable(_: fastapi.Request, error: Exception) -> JSONResponse:
    """Answer a write while there is no primary: the client may try again."""
    return JSONResponse({"detail": f"The database is not available ({type(error).__name__})."}, status_code=503)


def create_application(settings: ReplicationSettings) -> fastapi.FastAPI:
    """Return the application; it creates its table on the primary when it starts."""
    container = Container(groups=[ShopDependencies], context={ReplicationSettings: settings})

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> collections.abc.AsyncIterator[None]:
        async with container.resolve(PrimaryEngine).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield

    app = fastapi.FastAPI(title="Shop", lifespan=lifespan)
    app.include_router(router)
    app.add_exception_handler(UserNotFoundError, answer_not_found)
    app.add_exception_handler(EmailTakenError, answer_conflict)
    for unavailable in (DBAPIError, OSError, ReplicasError):
        app.add_exception_handler(unavailable, answer_unavailable)
    setup_replicas(app, container)
    return app
