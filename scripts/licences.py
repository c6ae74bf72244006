"""Checks the licence expressions in `cargo metadata` (standard input) against the `allow` list of deny.toml (argument 1)."""

import json
import re
import sys


def allowed_licences(path):
    text = open(path, encoding="utf-8").read()
    block = re.search(r"^allow = \[(.*?)^\]", text, re.S | re.M)
    return set(re.findall(r'"([^"]+)"', block.group(1)))


def permitted(expression, allowed):
    """Whether an SPDX expression can be satisfied with allowed licences; `A/B` is the old way to write `A OR B`."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def term():
        if peek() == "(":
            take()
            value = any_of()
            take()
            return value
        name = take()
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in allowed

    def all_of():
        value = term()
        while peek() == "AND":
            take()
            value = term() and value
        return value

    def any_of():
        value = all_of()
        while peek() == "OR":
            take()
            value = all_of() or value
        return value

    return any_of()


def main():
    allowed = allowed_licences(sys.argv[1])
    packages = [p for p in json.load(sys.stdin)["packages"] if p["source"]]
    refused = [
        f"{p['name']} {p['version']}: {p['license']}"
        for p in packages
        if not (p["license"] and permitted(p["license"], allowed))
    ]
    foreign = [p["name"] for p in packages if not p["source"].startswith("registry+")]
    for line in refused:
        print(f"licence not allowed: {line}", file=sys.stderr)
    for name in foreign:
        print(f"not from the registry: {name}", file=sys.stderr)
    print(f"licences: {len(packages)} dependencies, {len(refused)} refused")
    sys.exit(1 if refused or foreign else 0)


if __name__ == "__main__":
    main()
