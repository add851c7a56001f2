"""A small shop, with every operation that a session supports."""

from sqlalchemy import ForeignKey, MetaData, Sequence
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


# Effects that only the server can see: a function that writes, and a procedure.
FUNCTIONS = (
    """CREATE FUNCTION visit() RETURNS int LANGUAGE plpgsql AS
       $$ BEGIN UPDATE item SET amount = amount WHERE id = 1; RETURN 7; END $$""",
    "CREATE PROCEDURE restock() LANGUAGE sql AS $$ UPDATE item SET amount = amount WHERE id = 1 $$",
)


class Base(AsyncAttrs, DeclarativeBase):
    metadata = MetaData()


numbers = Sequence("numbers", metadata=Base.metadata)


class Shop(Base):
    __tablename__ = "shop"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    items: Mapped[list["Item"]] = relationship(back_populates="shop", order_by="Item.id")


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shop_id: Mapped[int] = mapped_column(ForeignKey("shop.id"))
    amount: Mapped[int]
    shop: Mapped[Shop] = relationship(back_populates="items")


class Account(Base):
    """A versioned row: PostgreSQL can detect that it is stale."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    balance: Mapped[int]
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  # as SQLAlchemy's documentation writes it
