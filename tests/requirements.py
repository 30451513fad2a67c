"""
Prints what setup.py requires, as C{pip install} takes it: C{python -m
tests.requirements newest} or C{oldest}.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def requirements() -> list[str]:
    """
    Read C{install_requires} of setup.py, without running it.

    @return: the requirements.
    """
    setup = Path(__file__).parents[1] / "setup.py"
    for node in ast.walk(ast.parse(setup.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            found: list[str] = ast.literal_eval(node.value)
            return found
    raise ValueError("setup.py has no install_requires")


def pinned(requirement: str) -> str:
    """
    Turn a lower bound into that very version.

    @param requirement: C{name>=version}.
    @return: C{name==version.*}, which takes the bound's bug fixes.
    """
    name, version = requirement.split(">=")
    return f"{name}=={version}.*" if version.count(".") < 2 else f"{name}=={version}"


def main() -> None:
    """Print the requirements."""
    oldest = sys.argv[1:] == ["oldest"]
    for requirement in requirements():
        print(pinned(requirement) if oldest else requirement)


if __name__ == "__main__":
    main()
