"""
Runs the unit tests with the Python and the packages of a Debian suite: C{python3 -m
tests.kernel.debian SUITE [arguments of trial]}.

They run in the lab's root file system of the suite, but on this machine's own kernel,
as a user without privileges, in a copy of this checkout.  Only the standard library is
used here.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Final

from tests.kernel.guests import mounts, namespaced
from tests.kernel.rootfs import CHECKOUT, FORKY, TRIXIE, LabError, rootFileSystem

_SUITES: Final = {recipe.name: recipe for recipe in (FORKY, TRIXIE)}

_NOBODY: Final = "65534:65534"

_VERSIONS: Final = """
import sys, OpenSSL, cryptography, twisted
from OpenSSL.SSL import OPENSSL_VERSION, OpenSSL_version
modules = twisted, OpenSSL, cryptography
versions = [f"{module.__name__} {module.__version__}" for module in modules]
print("Python", sys.version.split()[0], *versions, OpenSSL_version(OPENSSL_VERSION).decode())
"""

# Names that begin with a dot or an underline are what virtual environments and test
# runs leave there.
_RUN: Final = """
mount -t tmpfs -o mode=1777 tmpfs {root}/tmp
mkdir {root}/tmp/checkout
cp -r {checkout}/[!._]* {root}/tmp/checkout
chown -R {user} {root}/tmp/checkout
exec chroot --userspec={user} {root} /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    HOME=/tmp LC_ALL=C.UTF-8 sh -c {inside}
"""


def main() -> None:
    """Run them, and end as they do."""
    name, *arguments = sys.argv[1:]

    def progress(text: str) -> None:
        print(text, flush=True)

    try:
        root = rootFileSystem(_SUITES[name], progress)
    except LabError as error:
        sys.exit(str(error))
    inside = [
        ["cd", "/tmp/checkout"],
        ["python3", "-c", _VERSIONS],
        ["exec", "python3", "-m", "twisted.trial", *(arguments or ["tests"])],
    ]
    script = mounts(root) + _RUN.format(
        root=shlex.quote(str(root)),
        checkout=shlex.quote(str(CHECKOUT)),
        user=_NOBODY,
        inside=shlex.quote(" && ".join(map(shlex.join, inside))),
    )
    sys.exit(subprocess.run(namespaced(script), check=False).returncode)


if __name__ == "__main__":
    main()
