#!/usr/bin/env python3
"""Copies the documentation into the directory of a package, so that every relative link works there.

    release/pages.py ROOT FOLDER
    release/pages.py --plain FILE

ROOT is the directory that becomes the archive, with all its other files already in it, and FOLDER, such
as share/doc/ringload, is where the pages go. A link to a header leads to ROOT/include. A link to a file
that the package does not have becomes plain text.

--plain makes plain text of every link to a file in FILE: the description of a wheel is shown where no file
of the repository is.
"""

import os
import pathlib
import re
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TOP_LEVEL = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
#: [text](target), where the target is no URL.
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s:]+)\)")


def pages():
    """The paths of the pages, relative to the repository."""
    docs = sorted((REPOSITORY / "docs").glob("*.md"))
    return [pathlib.Path(name) for name in TOP_LEVEL] + [
        page.relative_to(REPOSITORY) for page in docs
    ]


def target_in(root, folder, page, file):
    """The path in the package of what `page` links as `file`; None if the package lacks it."""
    linked = pathlib.Path(os.path.normpath(page.parent / file))
    if linked in pages() or linked == pathlib.Path("docs"):
        return folder / linked
    places = [folder / linked]
    if linked.suffix == ".h":
        places.append(pathlib.Path("include", linked.name))
    return next((place for place in places if (root / place).exists()), None)


def with_links(root, folder, page, text):
    """The text of `page` with the links of the package."""

    def link(match):
        words, target = match.groups()
        file, hash_sign, anchor = target.partition("#")
        if not file:
            return match[0]
        place = target_in(root, folder, page, file)
        if place is None:
            return words
        relative = os.path.relpath(place, folder / page.parent)
        return f"[{words}]({relative}{hash_sign}{anchor})"

    return LINK.sub(link, text)


def without_links(text):
    """The text without links to files."""
    return LINK.sub(lambda match: match[0] if match[2].startswith("#") else match[1], text)


def main(root, folder):
    """Copies all pages to `folder` of the package in `root`."""
    for page in pages():
        copy = root / folder / page
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        copy.write_text(with_links(root, folder, page, text), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if sys.argv[1] == "--plain":
        path = pathlib.Path(sys.argv[2])
        path.write_text(without_links(path.read_text(encoding="utf-8")), encoding="utf-8")
        sys.exit()
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
