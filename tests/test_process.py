import os
import random
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
import torch

from lens_hpc.process import float32_kept, let_threads_sleep, torch_unchanged, unchanged


def test_environment_warnings_and_random_states_are_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LENS_HPC_TEST", "before")
    filters = list(warnings.filters)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = (random.random(), np.random.rand())  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002

    with unchanged():
        os.environ["LENS_HPC_TEST"] = "within"
        os.environ["LENS_HPC_NEW"] = "within"
        warnings.filterwarnings("ignore", message="anything")
        random.seed(2)
        np.random.seed(2)  # noqa: NPY002

    assert os.environ["LENS_HPC_TEST"] == "before"
    assert "LENS_HPC_NEW" not in os.environ
    assert list(warnings.filters) == filters
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_torch_and_opencv_are_restored_after_an_error_too() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    threads = (torch.get_num_threads(), cv2.getNumThreads())
    benchmark = torch.backends.cudnn.benchmark

    def change_everything() -> None:
        torch.manual_seed(2)
        torch.set_num_threads(threads[0] + 1)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = not benchmark
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        cv2.setNumThreads(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), torch_unchanged():
        change_everything()

    assert torch.equal(torch.rand(1), expected)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark == benchmark
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


@pytest.mark.slow
def test_precision_that_a_notebook_chose_survives() -> None:
    code = """
import torch
from lens_hpc.process import float32_kept, torch_unchanged

torch.set_float32_matmul_precision("medium")
torch.backends.cudnn.conv.fp32_precision = "tf32"
with torch_unchanged(), float32_kept():
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
print(torch.get_float32_matmul_precision(), torch.backends.cudnn.conv.fp32_precision)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["medium", "tf32"]


def test_float32_keeps_all_its_bits_unless_tf32_is_wanted() -> None:
    before = torch.backends.cudnn.conv.fp32_precision
    with float32_kept():
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    with float32_kept(tf32=True):
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert torch.backends.cudnn.conv.fp32_precision == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("users", "spins"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"OMP_WAIT_POLICY": "passive"}, "0"),
    ],
)
def test_threads_of_torch_sleep_soon_unless_the_user_says_otherwise(
    users: dict[str, str], spins: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if "OMP" not in name}
    code = "from lens_hpc.process import let_threads_sleep; let_threads_sleep(); import torch"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"OMP_DISPLAY_ENV": "verbose"} | users,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


def test_a_wait_policy_of_the_users_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    with unchanged():
        let_threads_sleep()
        assert "GOMP_SPINCOUNT" not in os.environ
        del os.environ["OMP_WAIT_POLICY"]
        let_threads_sleep()
        assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert "GOMP_SPINCOUNT" not in os.environ
