import collections.abc

import pytest

from modern_di_replicas.testing import LocalCluster


def create_stock(cluster: LocalCluster) -> None:
    cluster.primary.execute(
        """
        CREATE TABLE stock (id int PRIMARY KEY, amount int NOT NULL);
        INSERT INTO stock VALUES (1, 0);
        CREATE TABLE sale (item int REFERENCES stock DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE delivery (amount int NOT NULL);
        CREATE FUNCTION deliver() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN UPDATE stock SET amount = stock.amount + NEW.amount; RETURN NEW; END';
        CREATE TRIGGER delivered AFTER INSERT ON delivery FOR EACH ROW EXECUTE FUNCTION deliver();
        CREATE FUNCTION sell() RETURNS int LANGUAGE sql AS 'UPDATE stock SET amount = amount + 1 RETURNING amount';
        """
    )
    cluster.catch_up()


@pytest.fixture(scope="module")
def stock_cluster() -> collections.abc.Iterator[LocalCluster]:
    """Yield a cluster with one row in stock. Tests pause its replicas and resume them."""
    with LocalCluster(replicas=2) as cluster:
        create_stock(cluster)
        yield cluster
