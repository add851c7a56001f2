import pytest
from sqlalchemy import make_url

from modern_di_replicas.drivers.known import SCHEMES, driver_of


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_driver_of_a_url_is_loaded_once(scheme: str) -> None:
    """It is looked up for each connection."""
    url = make_url(f"{scheme}://app@db-1/shop")
    assert driver_of(url) is driver_of(url)


def test_each_scheme_has_its_own_driver() -> None:
    """Their differences are behind one protocol."""
    assert len({id(driver_of(make_url(f"{scheme}://app@db-1/shop"))) for scheme in SCHEMES}) == len(SCHEMES)
