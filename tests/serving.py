"""`mogle app` as its users have it: a process of its own, in empty folders, on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Server:
    """The demo on a free port; what it may write to lies under `folder`: its home, temporary and working folders."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folders = {name: folder / name for name in ("work", "home", "tmp")}
        for path in self.folders.values():
            path.mkdir()
        self.log = folder / "log.txt"
        ours = {"PYTHONPATH": str(ROOT), "HOME": str(self.folders["home"]), "TMPDIR": str(self.folders["tmp"])}
        ours |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        for name in ("XDG_CACHE_HOME", "HF_HOME", "GRADIO_TEMP_DIR"):
            environment.setdefault(name, "")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mogle", "app", "--device", "cpu", *options],
            cwd=self.folders["work"],
            env={**os.environ, **ours, **environment},
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 300
        while not (found := re.search(r"serving on (\S+/)", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.2)
        self.url = found[1]

    def cpu(self) -> float:
        """Seconds of processor time so far, of all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MiB that it holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> int:
        """Ends it as a service manager does -> exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)
