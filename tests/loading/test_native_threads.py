import threading

import cv2
import torch

from lens_hpc.loading.native_threads import opencv_without_threads, torch_threads_kept


def torch_threads_in_a_fresh_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_opencv_has_its_threads_again_when_the_last_user_has_left() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        first = opencv_without_threads()
        second = opencv_without_threads()
        first.__enter__()
        assert cv2.getNumThreads() == 1
        second.__enter__()
        first.__exit__(None, None, None)  # not the one that came last
        assert cv2.getNumThreads() == 1
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_torch_threads_of_new_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch_threads_kept():
            thread = threading.Thread(target=torch.set_num_threads, args=(1,))
            thread.start()
            thread.join()
            assert torch_threads_in_a_fresh_thread() == 1  # or this test would prove nothing
        assert torch.get_num_threads() == 3
        assert torch_threads_in_a_fresh_thread() == 3
    finally:
        torch.set_num_threads(before)
