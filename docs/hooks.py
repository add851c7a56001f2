"""What the site needs beyond Markdown.

Links that leave the documentation, blocks that only the tests see, patterns in the navigation, and the changelog.
"""

import pathlib
import posixpath
import re
import typing


REPOSITORY: typing.Final = "https://github.com/modern-python/modern-di-replicas"
# Assertions about the block before: executed by the tests, and of no use to a reader.
INVISIBLE: typing.Final = re.compile(r"<!-- invisible-code-block.*?-->\n?", re.DOTALL)
LINK: typing.Final = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>\.\./[^)#\s]+)(?P<anchor>#[^)]*)?\)")

DOCS: typing.Final = pathlib.Path(__file__).parent


def on_config(config: typing.Any) -> None:  # MkDocs has no types here
    """Replace each pattern in the navigation by the pages it matches; MkDocs calls this."""
    config.nav = _expanded(config.nav)


def _expanded(entries: list[typing.Any]) -> list[typing.Any]:
    expanded: list[typing.Any] = []
    for entry in entries:
        if isinstance(entry, str) and "*" in entry:
            expanded += sorted(page.relative_to(DOCS).as_posix() for page in DOCS.glob(entry))
        elif isinstance(entry, dict):
            expanded += [{title: _expanded(part) if isinstance(part, list) else part for title, part in entry.items()}]
        else:
            expanded += [entry]
    return expanded


def on_page_markdown(markdown: str, page: typing.Any, **_: object) -> str:
    """Prepare one page; MkDocs calls this."""
    if page.file.src_uri == "changelog.md":
        markdown = (DOCS.parent / "CHANGELOG.md").read_text().replace("](docs/", "](")
    folder = posixpath.dirname(page.file.src_uri)
    return LINK.sub(lambda link: _absolute(link, folder), INVISIBLE.sub("", markdown))


def _absolute(link: re.Match[str], folder: str) -> str:
    path = posixpath.normpath(posixpath.join("docs", folder, link["target"]))
    if path.startswith("docs/"):
        return link[0]
    kind = "raw" if link["image"] else "blob"
    return f"{link['image']}[{link['text']}]({REPOSITORY}/{kind}/main/{path}{link['anchor'] or ''})"
