"""How other libraries load the cutouts that benchmarks/loader.py gives to all.

Every way keeps the same float32 cutouts uncompressed, and gives them in batches, in a new order
each epoch.

npy                a file a cutout, features and labels in memory, as most of this field do it
npy+albumentations the same, each cutout divided by its maximum, then flips and blur
h5py               one contiguous HDF5 dataset, indexed by sample
webdataset         tar shards of 1,000; order of shards, then a buffer of 1,000
streaming          MDS shards of mosaicml-streaming (64 MiB), its own shuffle
datasets           Arrow files of Hugging Face datasets, a take of a batch, its numpy format
datasets-arrow     the same, but its arrow format, which we turn into tensors ourselves: its fastest
litdata            chunks of 64 MB, its own shuffle (chunks, then blocks of 256, then inside each)
lmdb               one record a cutout

webdataset and litdata shuffle within a window, as they are made to; the others draw from all.

pip install lmdb==3.0.0 webdataset==1.0.2 mosaicml-streaming==0.13.0 datasets==5.2.0 litdata==0.2.76
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, default_collate

IMAGE = (3, 64, 64)
N_PIXELS, N_FEATURES = 3 * 64 * 64, 8


@dataclass(frozen=True)
class Way:
    """How to write a folder of cutouts, and how to read it: iterated once an epoch, by batches."""

    write: Callable[[Path, np.ndarray, np.ndarray, np.ndarray], None]
    batches: Callable[[Path, int, int], Iterable]


def shuffled(dataset: Dataset, batch_size: int, workers: int) -> DataLoader:
    """A loader that draws single samples of a map-style dataset, and stacks them."""
    # torch warns of arrays over foreign memory; they are only stacked, never written to
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=workers)


def pack(image: np.ndarray, features: np.ndarray, label: np.ndarray) -> bytes:
    """One sample as raw bytes, for the libraries that store bytes."""
    return image.tobytes() + features.tobytes() + label.tobytes()


def unpack(data: bytes | memoryview) -> tuple[np.ndarray, np.ndarray, np.int8]:
    """The arrays of `pack`, without a copy."""
    image = np.frombuffer(data, np.float32, N_PIXELS).reshape(IMAGE)
    features = np.frombuffer(data, np.float32, N_FEATURES, offset=image.nbytes)
    return (
        image,
        features,
        np.frombuffer(data, np.int8, 1, offset=image.nbytes + features.nbytes)[0],
    )


# ---- npy, with and without albumentations


def write_npy(folder: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray) -> None:
    """A file a cutout."""
    for i, image in enumerate(images):
        np.save(folder / f"{i}.npy", image)
    np.save(folder / "features.npy", features)
    np.save(folder / "labels.npy", labels)


class Npy(Dataset):
    """Cutouts of a file each."""

    def __init__(self, folder: Path):
        self.folder = str(folder)
        self.features, self.labels = (
            np.load(folder / "features.npy"),
            np.load(folder / "labels.npy"),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, np.ndarray, np.int8]:
        return np.load(f"{self.folder}/{i}.npy"), self.features[i], self.labels[i]


class AugmentedNpy(Npy):
    """The same, with the usual augmentations of a single cutout."""

    @cached_property  # made anew in each worker: forked ones would share one random state
    def transform(self) -> Callable:
        """Flips and a blur, on one thread."""
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
        import albumentations as A  # noqa: N812
        import cv2

        cv2.setNumThreads(0)
        return A.Compose(
            [A.HorizontalFlip(p=0.3), A.VerticalFlip(p=0.3), A.AdvancedBlur(p=0.3), A.ToTensorV2()]
        )

    def __getitem__(self, i: int) -> tuple[Any, np.ndarray, np.int8]:
        image, features, label = super().__getitem__(i)
        image = np.ascontiguousarray((image / image.max()).transpose(1, 2, 0))
        return self.transform(image=image)["image"], features, label


def read_npy(folder: Path, batch_size: int, workers: int) -> Iterable:
    """Files as they are."""
    return shuffled(Npy(folder), batch_size, workers)


def read_augmented_npy(folder: Path, batch_size: int, workers: int) -> Iterable:
    """Files, then albumentations."""
    return shuffled(AugmentedNpy(folder), batch_size, workers)


# ---- h5py


def write_h5py(folder: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray) -> None:
    """Contiguous datasets."""
    import h5py

    with h5py.File(folder / "cutouts.h5", "w") as file:
        file["images"], file["features"], file["labels"] = images, features, labels


class HDF5(Dataset):
    """Cutouts of one file, which each process opens for itself."""

    def __init__(self, folder: Path):
        import h5py

        self.path = folder / "cutouts.h5"
        with h5py.File(self.path) as file:
            self.features, self.labels = file["features"][:], file["labels"][:]

    @cached_property
    def images(self) -> Any:
        """The dataset of this process."""
        import h5py

        return h5py.File(self.path)["images"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.int8]:
        return self.images[i], self.features[i], self.labels[i]


def read_h5py(folder: Path, batch_size: int, workers: int) -> Iterable:
    """Samples one by one."""
    return shuffled(HDF5(folder), batch_size, workers)


# ---- webdataset


def write_webdataset(
    folder: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> None:
    """Shards of one file a sample, dated in whole seconds: tar headers cost most of the time."""
    import webdataset

    with webdataset.ShardWriter(f"{folder}/%06d.tar", maxcount=1000, mtime=0, verbose=0) as writer:
        for i, sample in enumerate(zip(images, features, labels, strict=True)):
            writer.write({"__key__": f"{i:08d}", "bin": pack(*sample)})


@dataclass(frozen=True)
class WebDatasetEpochs:
    """A new pipeline each epoch: a WebDataset has one seed, and would repeat its shards' order."""

    folder: Path
    batch_size: int
    workers: int

    def __iter__(self) -> Iterator:
        import webdataset

        shards = sorted(map(str, self.folder.glob("*.tar")))
        dataset = (
            webdataset.WebDataset(shards, shardshuffle=len(shards)).shuffle(1000).map(self.decode)
        )
        dataset = dataset.batched(self.batch_size, collation_fn=default_collate, partial=False)
        return iter(webdataset.WebLoader(dataset, batch_size=None, num_workers=self.workers))

    @staticmethod
    def decode(sample: dict) -> tuple:
        """Its bytes as arrays."""
        return unpack(sample["bin"])


def read_webdataset(folder: Path, batch_size: int, workers: int) -> Iterable:
    """Batches are made in the workers."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    return WebDatasetEpochs(folder, batch_size, workers)


# ---- mosaicml-streaming


def write_streaming(
    folder: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> None:
    """Columns of fixed type and shape, so that MDS stores bare bytes."""
    from streaming import MDSWriter

    columns = {
        "image": "ndarray:float32:3,64,64",
        "features": f"ndarray:float32:{N_FEATURES}",
        "label": "int8",
    }
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for image, row, label in zip(images, features, labels, strict=True):
            writer.write({"image": image, "features": row, "label": label})


class Tuples:
    """The batches of a loader of dictionaries, in our order."""

    def __init__(self, loader: Iterable[dict]):
        self.loader = loader

    def __iter__(self) -> Iterator[tuple]:
        return ((batch["image"], batch["features"], batch["label"]) for batch in self.loader)


def read_streaming(folder: Path, batch_size: int, workers: int) -> Iterable:
    """Its dataset counts epochs itself."""
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    clean_stale_shared_memory()  # a run that was killed leaves some, and the next one refuses it
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch_size)
    return Tuples(
        StreamingDataLoader(dataset, batch_size=batch_size, num_workers=workers, drop_last=True)
    )


# ---- Hugging Face datasets


def write_datasets(
    folder: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> None:
    """Flat lists of fixed length: its Array3D reads at a third of their speed or less."""
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    columns = {"image": images.reshape(len(images), -1), "features": features}
    columns = {
        name: pa.FixedSizeListArray.from_arrays(x.ravel(), x.shape[1])
        for name, x in columns.items()
    }
    datasets.Dataset(pa.table(columns | {"label": pa.array(labels)})).save_to_disk(folder)


def from_arrays(batch: dict) -> tuple[torch.Tensor, ...]:
    """A batch in the numpy format as tensors."""
    image, features, label = (
        torch.from_numpy(batch[name]) for name in ("image", "features", "label")
    )
    return image.view(-1, *IMAGE), features, label


def from_arrow(table: Any) -> tuple[torch.Tensor, ...]:
    """A batch in the arrow format as tensors over Arrow's memory: the take has made it for us."""
    image, features, label = (
        table[name].combine_chunks() for name in ("image", "features", "label")
    )
    image, features, label = (
        torch.from_numpy(x.to_numpy()) for x in (image.flatten(), features.flatten(), label)
    )
    return image.view(-1, *IMAGE), features.view(-1, N_FEATURES), label


def read_datasets(
    folder: Path, batch_size: int, workers: int, kind: str, collate: Callable
) -> Iterable:
    """Batches by a BatchSampler, as its guide has it for speed: one take, no stacking of rows."""
    import datasets

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    dataset = datasets.load_from_disk(folder).with_format(kind)
    sampler = BatchSampler(RandomSampler(dataset), batch_size, drop_last=True)
    return DataLoader(
        dataset, batch_size=None, sampler=sampler, collate_fn=collate, num_workers=workers
    )


# ---- litdata


def write_litdata(
    folder: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray
) -> None:
    """Tensors, which it reads without a copy (arrays it copies)."""
    os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
    import litdata

    x, f = torch.from_numpy(images), torch.from_numpy(features)
    litdata.optimize(
        lambda i: {"image": x[i], "features": f[i], "label": int(labels[i])},
        list(range(len(x))),
        str(folder),
        chunk_bytes="64MB",
        num_workers=1,
        start_method="fork",
        verbose=False,
    )


def read_litdata(folder: Path, batch_size: int, workers: int) -> Iterable:
    """Its chunks are mapped where they lie, as it does by itself for local folders."""
    os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
    import litdata

    # Its default decodes samples ahead, here each of them 28 times an epoch: 8 times as slow, and
    # tensors need none.
    dataset = litdata.StreamingDataset(str(folder), shuffle=True, drop_last=True, batch_decode=0)
    return Tuples(
        litdata.StreamingDataLoader(
            dataset, batch_size=batch_size, num_workers=workers, drop_last=True
        )
    )


# ---- lmdb


def write_lmdb(folder: Path, images: np.ndarray, features: np.ndarray, labels: np.ndarray) -> None:
    """A record a sample, in the order of the keys."""
    import lmdb

    with (
        lmdb.open(str(folder), map_size=2 * images.nbytes + 2**24) as env,
        env.begin(write=True) as txn,
    ):
        for i, sample in enumerate(zip(images, features, labels, strict=True)):
            txn.put(i.to_bytes(4, "big"), pack(*sample), append=True)


class LMDB(Dataset):
    """Records of one file, which each process opens for itself."""

    def __init__(self, folder: Path):
        self.folder = str(folder)
        with self.open() as env:
            self.n = env.stat()["entries"]

    def open(self) -> Any:
        """For reading alone, in any order, with no lock."""
        import lmdb

        return lmdb.open(self.folder, readonly=True, lock=False, readahead=False, meminit=False)

    @cached_property
    def records(self) -> Any:
        """The one transaction of this process; its buffers are the file's own memory."""
        self.env = self.open()
        return self.env.begin(buffers=True)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.int8]:
        return unpack(self.records.get(i.to_bytes(4, "big")))


def read_lmdb(folder: Path, batch_size: int, workers: int) -> Iterable:
    """Samples one by one, without a copy before they are stacked."""
    return shuffled(LMDB(folder), batch_size, workers)


WAYS = {
    "npy": Way(write_npy, read_npy),
    "npy+albumentations": Way(write_npy, read_augmented_npy),
    "h5py": Way(write_h5py, read_h5py),
    "webdataset": Way(write_webdataset, read_webdataset),
    "streaming": Way(write_streaming, read_streaming),
    "datasets": Way(write_datasets, partial(read_datasets, kind="numpy", collate=from_arrays)),
    "datasets-arrow": Way(write_datasets, partial(read_datasets, kind="arrow", collate=from_arrow)),
    "litdata": Way(write_litdata, read_litdata),
    "lmdb": Way(write_lmdb, read_lmdb),
}
