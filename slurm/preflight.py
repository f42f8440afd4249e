"""Do all nodes of this job reach each other, and how fast? One process a node, started by srun.

Says who is missing, who sees too few GPUs, and which node is slow; otherwise the bandwidth of an all-reduce.
"""

import os
import socket
import statistics
import sys
import time
from datetime import timedelta

import torch
from torch import distributed

PATIENCE_SECONDS = 40
MEGABYTES = 32
TIMES = 5


def main() -> int:
    """Exit status of this node's process."""
    rank, nodes = int(os.environ["SLURM_NODEID"]), int(os.environ["SLURM_JOB_NUM_NODES"])
    on_gpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true"
    name, wanted, seen = socket.gethostname(), int(os.environ["PER_NODE"]), torch.cuda.device_count()
    if on_gpu and seen < wanted:
        return refuse(f"{name}: {wanted} processes want a GPU each, PyTorch sees {seen}; is its driver there, and is "
                      "this PyTorch made for it? ACCELERATE_USE_CPU=true trains on the CPU")  # fmt: skip
    if nodes == 1:
        return 0
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    patience = timedelta(seconds=PATIENCE_SECONDS)
    try:
        store = distributed.TCPStore(address, port, nodes, rank == 0, patience, wait_for_workers=False)
        store.set(f"here/{rank}", name)
        if missing := absent(store, nodes):
            return refuse(f"{name}: waited {PATIENCE_SECONDS} s in vain for {', '.join(missing)}") if rank == 0 else 1
        device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=nodes, timeout=patience,
            device_id=device if on_gpu else None,
        )  # fmt: skip
        rate, links = bandwidth(device), neighbours(rank, nodes, device)
    except (RuntimeError, distributed.DistError) as error:
        return refuse(f"{name}: cannot reach {address}:{port}: {str(error).splitlines()[0]}")
    if rank == 0:
        tell(rate, links, [store.get(f"here/{other}").decode() for other in range(nodes)])
    distributed.destroy_process_group()
    return 0


def refuse(message: str) -> int:
    """Say why not."""
    print(f"preflight: {message}", file=sys.stderr, flush=True)
    return 1


def absent(store: distributed.Store, nodes: int) -> list[str]:
    """Names of the nodes that have not come when patience ends."""
    end = time.monotonic() + PATIENCE_SECONDS
    while missing := [rank for rank in range(nodes) if not store.check([f"here/{rank}"])]:
        if time.monotonic() > end:
            names = os.environ["HOSTS"].split()
            return [names[rank] for rank in missing]
        time.sleep(0.1)
    return []


def bandwidth(device: torch.device) -> float:
    """GB a second that each node sends in an all-reduce."""
    nodes, values = distributed.get_world_size(), torch.ones(MEGABYTES << 18, device=device)
    seconds = []
    for _ in range(TIMES + 1):
        distributed.barrier(device_ids=[0] if device.type == "cuda" else None)
        began = time.perf_counter()
        distributed.all_reduce(values)
        values[0].item()  # waits for the GPU
        seconds.append(time.perf_counter() - began)
        values.fill_(1)
    return 2 * (nodes - 1) / nodes * (MEGABYTES << 20) / statistics.median(seconds[1:]) / 1e9


def neighbours(rank: int, nodes: int, device: torch.device) -> list[float]:
    """GB a second that each node gets from the one before it, all at the same time."""
    out, into = torch.ones(MEGABYTES << 18, device=device), torch.empty(MEGABYTES << 18, device=device)
    seconds = []
    for _ in range(TIMES + 1):
        distributed.barrier(device_ids=[0] if device.type == "cuda" else None)
        began = time.perf_counter()
        operations = [
            distributed.P2POp(distributed.isend, out, (rank + 1) % nodes),
            distributed.P2POp(distributed.irecv, into, (rank - 1) % nodes),
        ]
        for work in distributed.batch_isend_irecv(operations):
            work.wait()
        into[0].item()
        seconds.append(time.perf_counter() - began)
    mine = torch.tensor([(MEGABYTES << 20) / statistics.median(seconds[1:]) / 1e9], device=device)
    rates = [torch.empty_like(mine) for _ in range(nodes)]
    distributed.all_gather(rates, mine)
    return [float(rate) for rate in rates]


def tell(rate: float, links: list[float], names: list[str]) -> None:
    """The figure, and whoever holds the others up."""
    slowest = min(range(len(links)), key=links.__getitem__)
    link = f"slowest link into {names[slowest]}: {links[slowest]:.2f} GB/s"
    print(f"preflight: {len(names)} nodes, all-reduce {rate:.2f} GB/s; {link}")
    if links[slowest] < statistics.median(links) / 2:
        print(f"preflight: {names[slowest]} is slow: others get {statistics.median(links):.2f} GB/s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
