"""Threads that libraries start on their own, which loader threads would have to compete with.

OpenCV keeps one number for the process. torch keeps one for each thread, and another that every new
thread begins with: setting the first sets both.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

_lock = threading.Lock()
_opencv_users = 0
_opencv_threads_before = 0


@contextmanager
def opencv_without_threads() -> Iterator[None]:
    """Keep OpenCV within the thread that calls it.

    Several may enter this at the same time; the last that leaves sets what the first has found.
    """
    global _opencv_users, _opencv_threads_before
    with _lock:
        if _opencv_users == 0:
            _opencv_threads_before = cv2.getNumThreads()
            cv2.setNumThreads(0)
        _opencv_users += 1
    try:
        yield
    finally:
        with _lock:
            _opencv_users -= 1
            if _opencv_users == 0:
                cv2.setNumThreads(_opencv_threads_before)


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Undo what `torch.set_num_threads` in other threads does meanwhile to all new threads."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
