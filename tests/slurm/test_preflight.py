"""The preflight itself, with two processes as two nodes."""

import importlib.util
import os
import socket
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch import distributed

from tests.slurm.conftest import SCRIPTS

PREFLIGHT = SCRIPTS / "preflight.py"


def node(number: int, port: int, **own: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "SLURM_NODEID": str(number),
        "SLURM_JOB_NUM_NODES": "2",
        "PER_NODE": "1",
        "HOSTS": "first second",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(PREFLIGHT)],
        env=environment | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_two_nodes_that_reach_each_other_are_measured() -> None:
    port = free_port()
    nodes = [node(number, port) for number in (0, 1)]
    outputs = [one.communicate(timeout=100)[0] for one in nodes]
    assert [one.returncode for one in nodes] == [0, 0], outputs
    assert "preflight: 2 nodes, all-reduce" in outputs[0]


def test_a_node_that_gloo_does_not_reach_is_named_with_the_remedy() -> None:
    port = free_port()
    nodes = [node(0, port), node(1, port, GLOO_SOCKET_IFNAME="no_such_interface")]
    output = nodes[1].communicate(timeout=100)[0]
    nodes[0].kill()  # as srun does
    nodes[0].communicate()
    assert nodes[1].returncode == 1
    name = socket.gethostname()
    assert f"preflight: {name}, whose name stands for " in output
    assert "gloo does not reach all nodes" in output
    assert "LENS_HPC_INTERFACE in slurm/site.sh" in output


@pytest.fixture
def preflight() -> ModuleType:
    spec = importlib.util.spec_from_file_location("preflight", PREFLIGHT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("broken", ["gloo", "nccl"])
def test_nodes_with_gpus_need_both_gloo_and_nccl(
    preflight: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: str,
) -> None:
    """The other node has left its words already; no GPU is there, and none is reached."""
    tried: list[str] = []

    def meet(backend: str, **_: object) -> None:
        tried.append(backend)
        if backend == broken:
            raise RuntimeError("connection refused")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(distributed, "init_process_group", meet)
    monkeypatch.setattr(distributed, "barrier", lambda device_ids: None)
    monkeypatch.setattr(distributed, "TCPStore", lambda *_, **__: store)
    monkeypatch.setenv("HOSTS", "first second")
    store = distributed.HashStore()
    for word in ("here", "gloo"):
        store.set(f"{word}/1", "second")

    status = preflight.measure_network(0, 2, "first", "127.0.0.1", 0, on_gpu=True)
    assert status == 1
    assert tried == ["gloo", "nccl"][: ["gloo", "nccl"].index(broken) + 1]
    told = capsys.readouterr().err
    assert f"{broken} does not reach all nodes: connection refused" in told
    assert "LENS_HPC_INTERFACE" in told
