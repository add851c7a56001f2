"""What the site needs beyond Markdown: links that leave the documentation, and blocks that only the tests see."""

import posixpath
import re
import typing


REPOSITORY: typing.Final = "https://github.com/modern-python/modern-di-replicas"
# Assertions about the block before: executed by the tests, and of no use to a reader.
INVISIBLE: typing.Final = re.compile(r"<!-- invisible-code-block.*?-->\n?", re.DOTALL)
LINK: typing.Final = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>\.\./[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def on_page_markdown(markdown: str, page: typing.Any, **_: object) -> str:  # MkDocs has no types here
    """Prepare one page; MkDocs calls this."""
    folder = posixpath.dirname(page.file.src_uri)
    return LINK.sub(lambda link: _absolute(link, folder), INVISIBLE.sub("", markdown))


def _absolute(link: re.Match[str], folder: str) -> str:
    path = posixpath.normpath(posixpath.join("docs", folder, link["target"]))
    if path.startswith("docs/"):
        return link[0]
    kind = "raw" if link["image"] else "blob"
    return f"{link['image']}[{link['text']}]({REPOSITORY}/{kind}/main/{path}{link['anchor'] or ''})"
