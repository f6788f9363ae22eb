"""What a node says of itself.

Standard library alone: a node that lacks every package must still be able to say so.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Disk:
    """A filesystem as seen from one folder."""

    folder: str
    total_bytes: int
    free_bytes: int
    problem: str = ""
    """Why nothing can be written there; empty where it can."""


@dataclass(frozen=True)
class StorageCheck:
    """Whether a node reads what the driver wrote to WORK, and can write there itself."""

    reads: str = ""
    """Why the driver's marker cannot be read; empty where it can."""
    writes: str = ""
    """Why nothing can be written; empty where it can, or was not tried."""


@dataclass(frozen=True)
class Asked:
    """What each node is asked to look at."""

    cache_folder: str | None = None
    """Of staged slides; None for the node's own default."""
    markers: str | None = None
    """Folder of marker files below WORK, where the driver's lies already."""
    token: str = ""
    """What the driver's marker holds."""
    weights: tuple[str, ...] = ()
    """Paths of weight files."""
    packages: tuple[str, ...] = ()
    """Packages that the asked-for encoders need besides the usual ones."""


@dataclass(frozen=True)
class Rates:
    """How fast a node works."""

    decode: float
    """Patches a second that one core decodes."""
    encode: float
    """Patches a second that one GPU encodes, or one core where the node has no GPU."""
    on_gpu: bool
    encoder: str
    dim: int
    """Numbers in its feature vectors."""
    precision: str


@dataclass(frozen=True)
class NodeReport:
    """Everything that was found on a node."""

    host: str
    python: str
    versions: dict[str, str]
    """Of packages by their name; those that are not installed are missing."""
    codecs: dict[str, str]
    """By library: empty where it decoded its small image right, else why not."""
    cache: Disk
    system: str = "Linux"
    """As Python's platform.system() names it."""
    shm: Disk | None = None
    """/dev/shm; None where there is none."""
    cores: int = 0
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    """Version of the GPU driver."""
    torch_gpu: str = ""
    """Why torch cannot use the GPUs; empty where it can, or there are none."""
    storage: StorageCheck | None = None
    weights: dict[str, int | None] | None = None
    """Bytes of each weight file that was asked about; None where it is not there."""
    missing: tuple[str, ...] = ()
    """Packages that were asked about and are not installed."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster: what Ray says of it, and what it says of itself."""

    name: str
    """Host and address, as in Ray's own lists."""
    cpus: float = 0
    """That Ray gives to tasks."""
    gpus: float = 0
    """That Ray gives to tasks."""
    object_store_bytes: int = 0
    report: NodeReport | None = None
    silence: str = ""
    """Why there is no report."""
    rates: Rates | None = None
    unmeasured: str = ""
    """Why there are no rates; empty also where none were asked for."""
    is_busy: bool = False
    """True where others held what measuring needs."""
