"""A JupyterLab for the tests in this folder, with a real kernel behind it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def running(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab in `tmp_path`, with settings of its own; `window.jupyterapp` takes its commands."""
    own = {name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    runtime = tmp_path / "runtime"
    environment = {**os.environ, **own, "JUPYTER_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--IdentityProvider.token=t"]
    options += [
        "--LabApp.extension_manager=readonly",
        "--LabApp.expose_app_in_browser=True",
        "--ServerApp.terminals_enabled=False",
    ]
    quiet = tmp_path / "jupyter_config_dir/lab/user-settings/@jupyterlab/apputils-extension"
    quiet.mkdir(parents=True)  # nothing from the network, and no question about it
    nothing = {"fetchNews": "false", "checkForUpdates": False}
    (quiet / "notification.jupyterlab-settings").write_text(json.dumps(nothing))
    with open(tmp_path / "lab.log", "w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={tmp_path}"]
        server = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        yield waited(lambda: address(runtime), f"JupyterLab did not start, see {tmp_path}/lab.log")
    finally:
        server.terminate()
        server.wait(timeout=30)


def address(runtime: Path) -> str | None:
    found = list(runtime.glob("jpserver-*.json"))
    return json.loads(found[0].read_text())["url"] if found else None


def waited(look, otherwise: str, seconds: float = 90):
    """What `look` finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(otherwise)
