#!/usr/bin/env python3
"""Prints the licences of all crates in the command, the C library or the wheel."""

import collections
import json
import pathlib
import subprocess

PRODUCTS = {"ringload", "ringload-capi", "ringload-python"}
NAMES = ("LICENSE*", "LICENCE*", "COPYING*", "COPYRIGHT*", "NOTICE*", "UNLICENSE*")
METADATA = [
    *("cargo", "metadata", "--locked", "--format-version=1", "--features=ringload-capi/capi"),
    "--filter-platform=x86_64-unknown-linux-gnu",
]


def linked(metadata):
    """The packages that the products link, at every depth: not those of builds and tests."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    left = [identity for identity, package in packages.items() if package["name"] in PRODUCTS]
    found = set()
    while left:
        identity = left.pop()
        if identity in found:
            continue
        found.add(identity)
        for dependency in nodes[identity]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                left.append(dependency["pkg"])
    return [packages[identity] for identity in found if packages[identity]["source"]]


def texts(package):
    """The texts of the licence files at the top of the package."""
    root = pathlib.Path(package["manifest_path"]).parent
    files = {file for name in NAMES for file in root.glob(name) if file.is_file()}
    return [file.read_text(errors="replace").strip() for file in sorted(files)]


def main():
    """Prints each text once, below the packages that it belongs to."""
    metadata = json.loads(subprocess.run(METADATA, check=True, capture_output=True).stdout)
    packages = sorted(linked(metadata), key=lambda package: (package["name"], package["version"]))
    owners = collections.defaultdict(list)
    for package in packages:
        label = f"{package['name']} {package['version']} ({package['license']})"
        for text in texts(package) or ["(The package has no file with its licence.)"]:
            owners[text].append(label)
    print("ringload contains these crates, under these licences.")
    for text, labels in owners.items():
        print("\n" + "=" * 80, *labels, "", text, sep="\n")


if __name__ == "__main__":
    main()
