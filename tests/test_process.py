import os
import random
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
import torch

from lens_hpc.process import float32_kept, torch_unchanged, unchanged


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
