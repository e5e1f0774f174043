"""Twenty people at the web demo at once, for two minutes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.utils import QueueError
from serving import ROOT, Server

from mogle.labels import decode_mask
from mogle.painter import pack
from mogle.provenance import Recipe, read_picture

PEOPLE, SECONDS = 20, 120
WORDS = ["black hair", "blond hair", "a beard", "glasses", "a hat", "lipstick", "earrings", "a green shirt"]


@pytest.fixture
def small(tmp_path) -> Iterator[Server]:
    """A server in whose queue fewer people find room than come."""
    (tmp_path / "server").mkdir()
    running = Server(tmp_path / "server", "--queue-size", "12")
    yield running
    running.process.kill()


@pytest.mark.slow
def test_twenty_people_at_once(small, tmp_path) -> None:
    """Each gets what they asked for or hears that the queue is full; some leave before; memory stays as it is."""
    server = small
    masks = [decode_mask(ROOT / "data" / "portraits" / "mask" / f"{number}.png") for number in range(8)]
    made, full, left, wrong = [], [], [], []
    memory: list[float] = []
    ends = time.monotonic() + SECONDS

    def person(number: int) -> None:
        dice = random.Random(number)
        patient = {"timeout": 120}  # on a machine that has other work, too
        client = Client(server.url, verbose=False, download_files=str(tmp_path / str(number)), httpx_kwargs=patient)
        while time.monotonic() < ends:
            mask = dice.choice([None, *masks])
            recipe = Recipe(f"Someone with {dice.choice(WORDS)}.", mask, dice.getrandbits(60), 4, 3.0, 1.0, 128, 128)
            asked = {"prompt": recipe.prompt, "seed": recipe.seed, "steps": recipe.steps, "guidance": recipe.guidance}
            try:
                job = client.submit(**asked, mask=None if mask is None else pack(mask), api_name="/generate")
                if dice.random() < 0.1:
                    while job.communicator.event_id is None and not job.done():  # before that it cannot be cancelled
                        time.sleep(0.01)
                    time.sleep(dice.random())
                    if not job.done():
                        job.cancel()
                        left.append(number)
                        continue
                path, _ = job.result(timeout=300)
                different = read_picture(path)[1].differences(recipe)
                (wrong if different else made).append(f"{number}: {different}")
            except QueueError:
                full.append(number)
                time.sleep(1 + dice.random())
            except Exception as error:
                wrong.append(f"{number}: {type(error).__name__}: {error}")

    people = [threading.Thread(target=person, args=(number,)) for number in range(PEOPLE)]
    for one in people:
        one.start()
    while any(one.is_alive() for one in people):
        time.sleep(1)
        memory.append(server.memory())
    for one in people:
        one.join()
    third = len(memory) // 3
    early, late = np.median(memory[third : 2 * third]), np.median(memory[-third:])
    print(f"{len(made)} pictures, {len(full)} times full, {len(left)} left; {early:.0f} -> {late:.0f} MiB")
    assert not wrong, wrong[:5]
    assert len(made) >= PEOPLE / 2 and full and late < early * 1.03 + 10
    assert "Traceback" not in server.log.read_text()
    assert server.stop() == 0
