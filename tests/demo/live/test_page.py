"""The live page in a real browser."""

import collections.abc

import pytest
import pytest_asyncio

from modern_di_replicas.testing import LocalCluster
from tests.chromium import Page, chromium
from tests.demo.live.test_endpoints import live_demo


# All tests share one browser: it takes as long to start as a cluster.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def page() -> collections.abc.AsyncIterator[Page]:
    async with chromium() as page:
        yield page


def card(server: str) -> str:
    return f"[data-server={server}]"


def text(server: str, part: str) -> str:
    return f"document.querySelector('{card(server)} [data-is={part}]')?.textContent"


async def test_a_server_is_frozen_and_thawed_with_the_buttons_of_the_page(
    disposable_cluster: LocalCluster, page: Page
) -> None:
    """The page shows the three servers, the frozen one as down within seconds, and as up again afterwards."""
    async with live_demo(disposable_cluster) as (client, live):
        await page.open(str(client.base_url))
        await page.until("document.querySelectorAll('[data-server] [data-is=state].good').length === 3")
        names = await page.evaluate("[...document.querySelectorAll('[data-server] h2')].map(h2 => h2.textContent)")
        assert names == ["primary", "replica-1", "replica-2"]
        assert await page.evaluate(text("primary", "role")) == "primary"
        assert await page.evaluate(text("replica-1", "role")) == "standby"
        for width in (1000, 390):  # the size of a phone
            await page.send(
                "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 1000
            )
            assert await page.evaluate("document.documentElement.scrollWidth") <= width

        await page.click(f"{card('replica-1')} [data-fault=freeze]")
        await page.until(f"{text('replica-1', 'state')} === 'down, frozen'")
        assert live.faults.state("replica-1") == "frozen"
        assert await page.evaluate(text("replica-2", "state")) == "up"

        await page.click(f"{card('replica-1')} [data-fault=thaw]")
        await page.until(f"{text('replica-1', 'state')} === 'up'")
        assert not disposable_cluster.replicas[0].is_frozen()


async def test_the_page_connects_again_by_itself(replicated_cluster: LocalCluster, page: Page) -> None:
    """It says that its picture is outdated, and continues when events arrive again."""
    connection = "document.querySelector('#connection')?.textContent"
    async with live_demo(replicated_cluster) as (client, _):
        url = client.base_url
        await page.open(str(url))
        await page.until(f"{connection} === 'live'")
    await page.until(f"{connection} === 'reconnecting'")
    assert await page.evaluate("document.body.className") == "stale"
    async with live_demo(replicated_cluster, port=url.port or 0):
        await page.until(f"{connection} === 'live'")
