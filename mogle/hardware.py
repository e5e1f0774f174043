"""What a machine has, and the tiers: one row of data for each size of machine that the project is meant for.

A tier says how FLUX.1-dev, or the shipped tiny FLUX, is held and sampled there. How an adapter is trained there is in
the settings file of the same name, `mogle/configs/train/NAME.yaml`. Memory and minutes are estimates by arithmetic, to
which a test holds them; none has been measured.

bitsandbytes leaves T5's `wo` layers as they are, and transformers holds these in float32 where the rest is float16, so
that T5 takes 5.9 GiB on a T4 though it is "in 4 bits". That is why it goes before the transformer comes: transformer,
VAE and the activations of 512 px take 7.9 GiB without it, and would leave too little beside it.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from mogle.errors import MogleError

GIB = 2**30
FLUX = "black-forest-labs/FLUX.1-dev"


@dataclass(frozen=True)
class Machine:
    """What decides which tier fits: the facts that `measure` finds, or those of a machine that is only imagined."""

    torch: str | None = None  # its version; None where it does not load
    cuda: str | None = None  # the CUDA that torch was built for
    driver: str | None = None  # of an NVIDIA GPU, also where torch cannot use it
    gpu: str | None = None  # the name of the one that torch would use
    gpu_gib: float = 0.0
    bf16: bool = False  # in hardware, not emulated
    system_gib: float = 0.0  # 0 where it is not known
    trouble: str = ""  # why torch does not load


@dataclass(frozen=True)
class Tier:
    """How pictures are made on a machine of some size, and what that takes; where nothing is said, with FLUX.1-dev."""

    name: str
    dtype: str
    size: int  # pixels on a side
    quantise: str = "none"  # of the transformer
    quantise_text: str = "none"  # of T5
    offload: str = "none"  # one of `mogle.checkpoints.OFFLOADS`
    frees_text: bool = False  # sentences are encoded first, and the text encoders leave memory
    base: str | None = FLUX  # Hub name; None is the shipped tiny FLUX
    batch: int = 1  # pictures at a time
    steps: int = 28
    needs_gib: float = 0.0  # GPU memory from which on the tier is picked; 0 for none
    gpus: str = ""  # regular expression for the GPU's name, "" for any
    system_gib: float = 36.0  # weights pass through it, quantised ones piece by piece
    disk_gib: float = 34.0  # for weights that are downloaded
    peak_gib: float = 32.9  # of GPU memory while sampling; of system memory where there is no GPU
    minutes: float = 0.1  # for one batch, without loading

    def misfit(self, machine: Machine) -> str:
        """What the machine lacks for this tier, empty where nothing."""
        bf16 = self.dtype == "bf16"
        if machine.gpu_gib >= self.needs_gib and machine.bf16 >= bf16 and re.search(self.gpus, machine.gpu or ""):
            return ""
        wants = f"needs {self.gpus or 'a GPU'}, {self.needs_gib:g} GiB{', bfloat16' * bf16}"
        return f"{wants}; found {machine.gpu or 'no GPU'}, {machine.gpu_gib:.1f} GiB{', bfloat16' * machine.bf16}"

    def cost(self) -> str:
        """One line to print before anything loads."""
        transformer, t5 = (form.replace("none", self.dtype) for form in (self.quantise, self.quantise_text))
        held = f"{self.base or 'tiny FLUX'} in {self.dtype}, transformer in {transformer}, T5 in {t5}"
        held += ", sentences encoded first" * self.frees_text
        drawn = f"offload {self.offload}, {self.size} px, batch {self.batch}, {self.steps} steps"
        takes = f"{self.peak_gib:.1f} GiB of {'GPU ' * bool(self.needs_gib)}memory, {self.minutes:.2g} min a batch"
        disk = f"{self.disk_gib:g} GiB of disk (estimates, not measured)"
        return f"tier {self.name}: {held}, {drawn}: {takes}, {disk}"


#: From the smallest to the largest; GPUs show a little less memory than their names say. Peak memory is the weights
#: that are held together, and while drawing 1.5 GiB of activations for 512 px. Time is 2 operations for each parameter
#: and token in each step, at 20, 45, 125 and 400 (1e12) a second: about 40 % of what the GPUs' maker names.
_ROWS = (
    Tier("tiny", "fp32", 128, base=None, system_gib=4.0, disk_gib=2.0, peak_gib=1.0),
    Tier("t4", "fp16", 512, "nf4", "nf4", frees_text=True, needs_gib=14, system_gib=12.0, peak_gib=7.9, minutes=1.4),
    Tier("l4", "bf16", 512, "nf4", "int8", needs_gib=20, system_gib=12.0, peak_gib=13.6, minutes=0.63),
    Tier("a100", "bf16", 512, needs_gib=38, minutes=0.23),
    Tier("h100", "bf16", 512, needs_gib=75, gpus="H100|H200|H800|B200", minutes=0.071),
)
TIERS = {tier.name: tier for tier in _ROWS}


def best_tier(machine: Machine, name: str | None = None) -> Tier:
    """The largest tier that fits the machine, or the one that is asked for by name, whether it fits or not.

    Raises:
        MogleError: no tier of that name.
    """
    if name is None:
        return [tier for tier in _ROWS if not tier.misfit(machine)][-1]
    if name not in TIERS:
        raise MogleError(f"tier {name!r}: expected one of {', '.join(TIERS)}")
    return TIERS[name]


def hub_cache() -> Path:
    """The Hub's cache by its own rules; asked of the environment, so that nothing has to be imported."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def copies_of_flux() -> list[Path]:
    """Folders that FLUX.1-dev may be in: where `mogle weights get` puts it, in 4 bits or whole, and the Hub's cache."""
    snapshots = (hub_cache() / f"models--{FLUX.replace('/', '--')}" / "snapshots").glob("*")
    return [Path("checkpoints/FLUX.1-dev-nf4"), Path("checkpoints/FLUX.1-dev"), *snapshots]


def base_here(tier: Tier) -> Path | str | None:
    """The tier's base, if its weights are on this machine: a folder or a name on the Hub, whose cache has it."""
    for folder in copies_of_flux():
        whole = (folder / "model_index.json").is_file() and any((folder / "transformer").glob("*.safetensors"))
        if whole and (tier.quantise == "nf4" or not folder.name.endswith("-nf4")):
            return FLUX if folder.parent.name == "snapshots" else folder
    return None


def measure() -> Machine:
    """This machine. Imports torch, loads nothing else; a torch that does not load is a fact, not an error."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB if hasattr(os, "sysconf") else 0.0
    machine = Machine(driver=_driver(), system_gib=memory)
    try:
        import torch
    except Exception as error:  # not installed, or one of its libraries is missing
        return replace(machine, trouble=f"{type(error).__name__}: {' '.join(str(error).split())[:120]}")
    machine = replace(machine, torch=torch.__version__, cuda=torch.version.cuda)
    if not torch.cuda.is_available():
        return machine
    found, bf16 = torch.cuda.get_device_properties(0), torch.cuda.is_bf16_supported(including_emulation=False)
    return replace(machine, gpu=found.name, gpu_gib=found.total_memory / GIB, bf16=bf16)


def _driver() -> str | None:
    """The version of NVIDIA's driver, as its own tool says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=2, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):  # no such tool, or no GPU that answers
        return None
