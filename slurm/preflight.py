"""Do all nodes of this job reach each other, and how fast? One process a node, started by srun.

Says who is missing, who sees too few GPUs, who is not reached by gloo or NCCL, and which node is
slow; otherwise the bandwidth of an all-reduce. Training needs gloo on GPUs, too: by it the
processes agree when to save and to stop.
"""

import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta

import torch
from torch import distributed

TIMEOUT_SECONDS = 40
MEGABYTES = 32
TIMES = 5
TRUE = {"1", "true", "yes", "y", "t", "on"}  # as Accelerate reads it
REMEDY = "name the network between the nodes by LENS_HPC_INTERFACE in slurm/site.sh, such as ib0"


def main() -> int:
    """Return the exit status of this node's process."""
    rank = int(os.environ["SLURM_NODEID"])
    nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
    on_gpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() not in TRUE
    name = socket.gethostname()

    wanted = int(os.environ["PER_NODE"])
    seen = torch.cuda.device_count()
    if on_gpu and seen < wanted:
        return refuse(
            f"{name}: {wanted} processes want a GPU each, PyTorch sees {seen}; is its driver "
            "there, and is this PyTorch made for it? ACCELERATE_USE_CPU=true trains on the CPU"
        )
    if nodes == 1:
        return 0

    address = os.environ["MASTER_ADDR"]
    port = int(os.environ["MASTER_PORT"])
    try:
        return measure_network(rank, nodes, name, address, port, on_gpu)
    except (RuntimeError, distributed.DistError) as error:
        return refuse(f"{name}: cannot reach {address}:{port}: {str(error).splitlines()[0]}")


def measure_network(rank: int, nodes: int, name: str, address: str, port: int, on_gpu: bool) -> int:
    """Bring all nodes together, and print how fast they reach each other."""
    timeout = timedelta(seconds=TIMEOUT_SECONDS)
    store = distributed.TCPStore(address, port, nodes, rank == 0, timeout, wait_for_workers=False)
    store.set(f"here/{rank}", name)

    missing = wait_for_all(store, nodes, "here")
    if missing and rank == 0:
        return refuse(f"{name}: waited {TIMEOUT_SECONDS} s in vain for {', '.join(missing)}")
    if missing:
        return 1

    for backend in ["gloo", "nccl"] if on_gpu else ["gloo"]:
        try:
            meet(backend, store, rank, nodes)
        except (RuntimeError, distributed.DistError) as error:
            return refuse(
                f"{name}, whose name stands for {own_address(name)}: {backend} does not reach all "
                f"nodes: {str(error).splitlines()[0]}; {REMEDY}"
            )

    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    rate = all_reduce_rate(device)
    links = link_rates(rank, nodes, device)
    if rank == 0:
        names = [store.get(f"here/{other}").decode() for other in range(nodes)]
        report(rate, links, names)
    distributed.destroy_process_group()
    return 0


def meet(backend: str, store: distributed.Store, rank: int, nodes: int) -> None:
    """Bring all nodes together by this backend, instead of by the one before."""
    if distributed.is_initialized():
        distributed.destroy_process_group()

    on_gpu = backend == "nccl"
    distributed.init_process_group(
        backend,
        store=distributed.PrefixStore(backend, store),
        rank=rank,
        world_size=nodes,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
        device_id=torch.device("cuda", 0) if on_gpu else None,
    )
    distributed.barrier(device_ids=[0] if on_gpu else None)

    # None may leave this backend while another still needs it.
    store.set(f"{backend}/{rank}", "")
    missing = wait_for_all(store, nodes, backend)
    if missing:
        raise RuntimeError(f"no word from {', '.join(missing)}")


def own_address(name: str) -> str:
    """Return what the name of this node stands for: gloo tells the others to connect to that."""
    try:
        return socket.gethostbyname(name)
    except OSError:
        return "no address"


def refuse(message: str) -> int:
    """Print what is wrong, and return exit status 1."""
    print(f"preflight: {message}", file=sys.stderr, flush=True)
    return 1


def wait_for_all(store: distributed.Store, nodes: int, word: str) -> list[str]:
    """Wait until all nodes have left this word, and return the names of those that never do."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while True:
        missing = [rank for rank in range(nodes) if not store.check([f"{word}/{rank}"])]
        if not missing or time.monotonic() > end:
            names = os.environ["HOSTS"].split()
            return [names[rank] for rank in missing]
        time.sleep(0.1)


def all_reduce_rate(device: torch.device) -> float:
    """Return the GB a second that each node sends in an all-reduce."""
    nodes = distributed.get_world_size()
    values = torch.ones(MEGABYTES << 18, device=device)

    def all_reduce() -> None:
        distributed.all_reduce(values)
        values[0].item()  # waits for the GPU

    seconds = median_seconds(all_reduce, device)
    return 2 * (nodes - 1) / nodes * (MEGABYTES << 20) / seconds / 1e9


def link_rates(rank: int, nodes: int, device: torch.device) -> list[float]:
    """Return the GB a second that each node gets from the one before it, all at the same time."""
    sent = torch.ones(MEGABYTES << 18, device=device)
    received = torch.empty(MEGABYTES << 18, device=device)

    def exchange() -> None:
        operations = [
            distributed.P2POp(distributed.isend, sent, (rank + 1) % nodes),
            distributed.P2POp(distributed.irecv, received, (rank - 1) % nodes),
        ]
        for work in distributed.batch_isend_irecv(operations):
            work.wait()
        received[0].item()  # waits for the GPU

    rate = (MEGABYTES << 20) / median_seconds(exchange, device) / 1e9
    own = torch.tensor([rate], device=device)
    rates = [torch.empty_like(own) for _ in range(nodes)]
    distributed.all_gather(rates, own)
    return [float(each) for each in rates]


def median_seconds(exchange: Callable[[], None], device: torch.device) -> float:
    """Return the median time of something that all nodes do together; the first is left out."""
    seconds = []
    for _ in range(TIMES + 1):
        distributed.barrier(device_ids=[0] if device.type == "cuda" else None)
        began = time.perf_counter()
        exchange()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def report(rate: float, links: list[float], names: list[str]) -> None:
    """Print the bandwidth, and which node holds the others up."""
    slowest = min(range(len(links)), key=links.__getitem__)
    link = f"slowest link into {names[slowest]}: {links[slowest]:.2f} GB/s"
    print(f"preflight: {len(names)} nodes, all-reduce {rate:.2f} GB/s; {link}")

    median = statistics.median(links)
    if links[slowest] < median / 2:
        print(f"preflight: {names[slowest]} is slow: others get {median:.2f} GB/s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
