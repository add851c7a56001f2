"""What the site needs beyond Markdown.

Links and images that leave the documentation, blocks that only the tests see, patterns in the navigation, and the
changelog.
"""

import logging
import pathlib
import posixpath
import re
import typing

from mkdocs.structure.files import File


LOGGER: typing.Final = logging.getLogger("mkdocs.hooks")
REPOSITORY: typing.Final = "https://github.com/modern-python/modern-di-replicas"
# Assertions about the block before: executed by the tests, and of no use to a reader.
INVISIBLE: typing.Final = re.compile(r"<!-- invisible-code-block.*?-->\n?", re.DOTALL)
LINK: typing.Final = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>\.\./[^)#\s]+)(?P<anchor>#[^)]*)?\)")

DOCS: typing.Final = pathlib.Path(__file__).parent
FIGURES: typing.Final = DOCS.parent / "benchmarks" / "figures"


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


def on_files(files: typing.Any, config: typing.Any, **_: object) -> None:
    """Make the benchmark's pictures part of the site; MkDocs calls this."""
    for picture in sorted(FIGURES.glob("*.svg")):
        files.append(File.generated(config, f"assets/{picture.name}", abs_src_path=str(picture)))


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
    if not (DOCS.parent / path).exists():
        LOGGER.warning("docs/%s has a link to %s, which does not exist", folder, path)
    if link["image"]:
        assets = posixpath.relpath("assets", folder or ".")
        return f"![{link['text']}]({assets}/{posixpath.basename(path)})"
    return f"[{link['text']}]({REPOSITORY}/blob/main/{path}{link['anchor'] or ''})"
