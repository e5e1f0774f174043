"""Say in one line what a machine lacks, before anything is installed. Runs on any Python 3."""

import shutil
import sys

FREE_GB = 8  # the virtual environment takes 2 GB without CUDA and 7 GB with it; the course's own files stay below 1 GB


def main():
    if sys.version_info < (3, 11):
        found = ".".join(map(str, sys.version_info[:3]))
        return "found Python %s, expected 3.11 or newer; name another one: make PYTHON=python3.12" % found
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "this Python cannot make virtual environments; install its venv package (python3-venv on Debian)"
    free = shutil.disk_usage(".").free / 1e9
    if free < FREE_GB:
        return "found %.1f GB of free disk, expected %d GB" % (free, FREE_GB)
    return None


problem = main()
if problem:
    sys.exit("error: " + problem)
