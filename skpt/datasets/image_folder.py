"""Images in one folder per class: all at once, or one batch after the other."""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from sklearn.utils import Bunch
from torch.utils.data import Dataset, get_worker_info

from skpt.exceptions import InvalidInputError, SkptWarning

__all__ = ["ImageFolderDataset", "load_image_folder"]

# What a file must be called to count as an image. Some of these are decoded only where Pillow was built or extended for
# them: such files are then reported as bad, not passed over.
EXTENSIONS = {
    *(".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
}
CHANNELS = {"RGB": 3, "L": 1}


class ImageFolderDataset(Dataset):
    """Images in one folder per class, decoded when they are asked for.

    The files are listed once, as torchvision's ``ImageFolder`` lists them: every folder directly below `path` is a class,
    and every image in it, or in a folder below it, one of its items. Nothing is decoded before it is read, so a folder
    may be larger than memory. A batch is decoded by as many threads as there are processors; in the worker processes of a
    ``DataLoader`` they share them out.

    Parameters
    ----------
    path : str or path-like
        The folder of the folders.
    size : int or (int, int), default=None
        Pixels: height and width that every image is resized to, not keeping its proportions; an int means a square. None
        leaves each image as it is; only images of one size make a batch.
    mode : {'RGB', 'L'}, default='RGB'
        Three channels (red, green, blue) or one (luminance, grey).
    skip : path-like or iterable of path-like, default=()
        Files to leave out, such as the keys of `bad_files`: a path as it is, or relative to `path`. Each must name an image.

    Attributes
    ----------
    classes : list of str
        Names of the folders, sorted.
    class_to_idx : dict of str to int
        The number of each class.
    files : list of pathlib.Path
        The images, sorted by class and by their path below it.
    targets : ndarray of shape (n_samples,)
        The number of each image's class, int64.

    Raises
    ------
    InvalidInputError
        If there is no folder, no class, or a class without images; if a parameter is wrong. When an item is read: if its
        file cannot be decoded.
    ImportError
        If Pillow is not installed.

    See Also
    --------
    load_image_folder : Decodes all images into one array.

    Notes
    -----
    An item is a uint8 tensor of shape (n_channels, height, width) and the int of its class. Hidden files and folders, whose
    names begin with a dot, and files that are not named like images are left out; capital letters in the extension do not
    matter. Images are turned upright where their EXIF data say how. Transparency is dropped, 16-bit grey is divided by 256,
    of an animation the first picture is taken. Resizing is bilinear over all pixels that fall together (antialiased); large
    JPEG files are decoded at a fraction of their size first, which remains at least twice the size asked for.

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skpt.datasets import ImageFolderDataset
    >>> for name, colour in [("day/1.png", "white"), ("night/1.png", "black"), ("night/2.png", "navy")]:
    ...     Path("sky", name).parent.mkdir(parents=True, exist_ok=True)
    ...     Image.new("RGB", (40, 30), colour).save(Path("sky", name))
    >>> dataset = ImageFolderDataset("sky", size=(8, 8))
    >>> dataset.classes, dataset.targets
    (['day', 'night'], array([0, 1, 1]))
    >>> image, label = dataset[2]
    >>> image.shape, image.dtype, label
    (torch.Size([3, 8, 8]), torch.uint8, 1)
    """

    def __init__(self, path, size=None, mode: str = "RGB", skip: Iterable = ()):
        _pillow()
        self.path = Path(path)
        self.size = _read_size(size)
        if mode not in CHANNELS:
            raise InvalidInputError(f"The 'mode' of an image folder must be 'RGB' or 'L'. Got {mode!r} instead.")
        self.mode = mode
        by_class = {name: _images_below(folder) for name, folder in _class_folders(self.path).items()}
        skipped = self._named_by(skip, [file for files in by_class.values() for file in files])
        by_class = {name: [file for file in files if file not in skipped] for name, files in by_class.items()}
        empty = [name for name, files in by_class.items() if not files]
        if empty:
            raise InvalidInputError(
                f"Every folder in {str(self.path)!r} is a class and must hold an image, a file named "
                f"*{' *'.join(sorted(EXTENSIONS))}. Got none in {empty}. Remove the empty folders, or put images in."
            )
        self.classes = list(by_class)
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}
        self.files = [file for files in by_class.values() for file in files]
        self.targets = np.repeat(np.arange(len(by_class)), [len(files) for files in by_class.values()])

    def _named_by(self, skip, files: list[Path]) -> set[Path]:
        """Give the files that are to be left out, however their paths are written."""
        skip = [Path(each) for each in ([skip] if isinstance(skip, (str, os.PathLike)) else skip)]
        by_path = {os.path.abspath(file): [file] for file in files}
        by_place: dict[str, list[Path]] = {}  # a link and what it leads to are in one place
        for file in files if skip else ():
            by_place.setdefault(os.path.realpath(file), []).append(file)
        found, unknown = set(), []
        for each in skip:
            paths = (each, self.path / each)
            named = [file for path in paths for file in by_path.get(os.path.abspath(path), ())]
            named = named or [file for path in paths for file in by_place.get(os.path.realpath(path), ())]
            found.update(named)
            if not named:
                unknown.append(str(each))
        if unknown:
            raise InvalidInputError(
                f"The 'skip' parameter of an image folder must name images below {str(self.path)!r}. Got {unknown}, which name "
                "none of them. Give each as one of the dataset's files, or as a path relative to the folder."
            )
        return found

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        pixels = self.decode(operator.index(i))
        if isinstance(pixels, str):
            raise InvalidInputError(
                f"{_listed(_CANNOT_BE_DECODED, {self.files[i]: pixels})}\nMend or remove it; bad_files() of this dataset finds "
                "all of its kind, and the 'skip' parameter leaves them out."
            )
        return torch.from_numpy(pixels), int(self.targets[i])

    def __getitems__(self, indices) -> list[tuple[torch.Tensor, int]]:
        return list(_in_threads(self.__getitem__, list(indices)))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.path)!r}, size={self.size}, mode={self.mode!r}): "
            f"{len(self)} images, {len(self.classes)} classes"
        )

    def decode(self, i: int) -> np.ndarray | str:
        """Decode an image, or say why that cannot be done.

        Parameters
        ----------
        i : int
            Its number.

        Returns
        -------
        ndarray of shape (n_channels, height, width) or str
            The pixels, uint8; or what is wrong with the file.
        """
        file = self.files[i]
        try:
            return _decode(file, self.size, self.mode)
        except MemoryError:
            raise
        except Exception as error:
            # Pillow's decoders raise errors of many kinds on a broken file; whatever it is, it is this file's.
            return f"{type(error).__name__}: {error}"

    def bad_files(self) -> dict[Path, str]:
        """Decode every file once, and give those that cannot be decoded.

        Returns
        -------
        dict of pathlib.Path to str
            What is wrong with each; empty where all is well.
        """
        decoded = (pixels if isinstance(pixels, str) else None for pixels in _in_threads(self.decode, range(len(self))))
        return {file: reason for file, reason in zip(self.files, decoded, strict=True) if reason is not None}


def load_image_folder(path, size=None, mode: str = "RGB", *, on_bad_file: str = "raise", return_X_y: bool = False):
    """Images in one folder per class, as one array (classification).

    Every folder directly below `path` is a class, named like it, and every image in it, or in a folder below it, one of its
    samples, as torchvision's ``ImageFolder`` reads them. The array takes ``n_samples * n_channels * height * width`` bytes;
    take `ImageFolderDataset` where that is more than the memory.

    Parameters
    ----------
    path : str or path-like
        The folder of the folders.
    size : int or (int, int), default=None
        Pixels: height and width that every image is resized to, not keeping its proportions; an int means a square. None
        leaves the images as they are, and they must be of one size.
    mode : {'RGB', 'L'}, default='RGB'
        Three channels (red, green, blue) or one (luminance, grey).
    on_bad_file : {'raise', 'warn'}, default='raise'
        What to do about files that cannot be decoded: raise an error that lists them, or leave them out with a warning
        that lists them.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : ndarray of shape (n_samples, n_channels, height, width)
            The images, uint8.
        target : ndarray of shape (n_samples,)
            The number of each image's class, int64.
        target_names : list of str
            The classes: names of the folders, sorted. ``target_names[i]`` is the name of class i.
        filenames : list of str
            The file of each sample, sorted by class and by path below it.
        bad_files : dict of pathlib.Path to str
            The files that were left out, and why.
        DESCR : str
            What was read, in a line.

    (data, target) : tuple if `return_X_y` is True
        The same `data` and `target`.

    Raises
    ------
    InvalidInputError
        If there is no folder, no class, or a class without images; if a parameter is wrong; if files cannot be decoded and
        `on_bad_file` is 'raise'; if `size` is None and the images differ in size.
    ImportError
        If Pillow is not installed.

    Warns
    -----
    SkptWarning
        If files cannot be decoded and `on_bad_file` is 'warn'.

    See Also
    --------
    ImageFolderDataset : Decodes images when they are read; its notes say what becomes of rotation, transparency and so on.

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skpt.datasets import load_image_folder
    >>> for name, colour in [("day/1.png", "white"), ("night/1.png", "black"), ("night/2.png", "navy")]:
    ...     Path("sky", name).parent.mkdir(parents=True, exist_ok=True)
    ...     Image.new("RGB", (40, 30), colour).save(Path("sky", name))
    >>> sky = load_image_folder("sky", size=8)
    >>> sky.data.shape, sky.target, sky.target_names
    ((3, 3, 8, 8), array([0, 1, 1]), ['day', 'night'])
    """
    if on_bad_file not in ("raise", "warn"):
        raise InvalidInputError(
            f"The 'on_bad_file' parameter of load_image_folder must be 'raise' or 'warn'. Got {on_bad_file!r} instead."
        )
    folder = ImageFolderDataset(path, size, mode)
    data, good, bad, other_sizes = None, [], {}, {}
    for i, pixels in enumerate(_in_threads(folder.decode, range(len(folder)))):
        if isinstance(pixels, str):
            bad[folder.files[i]] = pixels
            continue
        if data is None:
            data = np.empty((len(folder), *pixels.shape), dtype=np.uint8)
        if pixels.shape != data.shape[1:]:
            other_sizes[folder.files[i]] = _height_by_width(pixels.shape)
            continue
        data[len(good)] = pixels
        good.append(i)
    if bad and (on_bad_file == "raise" or data is None):
        remedy = "" if data is None else ", or leave them out by on_bad_file='warn'"
        raise InvalidInputError(f"{_listed(_CANNOT_BE_DECODED, bad)}\nMend or remove them{remedy}.")
    if other_sizes:
        first = f"Images in one array have one size. {folder.files[good[0]]} has {_height_by_width(data.shape[1:])} pixels, but"
        raise InvalidInputError(f"{_listed(first, other_sizes)}\nGive the size that all are resized to, for example size=64.")
    if bad:
        warnings.warn(f"{_listed(_CANNOT_BE_DECODED, bad)}\nThey were left out.", SkptWarning, stacklevel=2)
    data, target = data[: len(good)], folder.targets[good]
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        target_names=folder.classes,
        filenames=[str(folder.files[i]) for i in good],
        bad_files=bad,
        DESCR=f"{len(data)} images of {data.shape[1:]} (n_channels, height, width) in {len(folder.classes)} classes, "
        f"from {folder.path}",
    )


def _class_folders(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        raise InvalidInputError(f"{str(path)!r} is no folder. Give the folder that holds one folder for each class.")
    folders = {entry.name: Path(entry) for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith(".")}
    if not folders:
        raise InvalidInputError(
            f"The folder {str(path)!r} must hold one folder for each class. Got none. Put the images of each class into a "
            "folder named like the class."
        )
    return dict(sorted(folders.items()))


def _images_below(folder: Path, above: frozenset[str] = frozenset()) -> list[Path]:
    """Files named like images in a folder and those below it, sorted; links are followed, but not in circles."""
    here = above | {os.path.realpath(folder)}
    found = []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if os.path.realpath(entry) not in here:
                found.extend(_images_below(Path(entry), here))
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
            found.append(Path(entry))
    return sorted(found, key=lambda file: file.relative_to(folder).parts)


def _read_size(size) -> tuple[int, int] | None:
    if size is None:
        return None
    both = (size, size) if isinstance(size, Integral) else size
    if (
        isinstance(both, (tuple, list))
        and len(both) == 2
        and all(isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in both)
    ):
        return int(both[0]), int(both[1])
    raise InvalidInputError(
        "The 'size' of an image folder must be None, an int in the range [1, inf), or two of them, height and width. Got "
        f"{size!r} instead."
    )


def _pillow():
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError('Reading images needs Pillow, which is not installed: pip install "skpt[images]"') from error
    return Image, ImageOps


def _decode(file: Path, size: tuple[int, int] | None, mode: str) -> np.ndarray:
    Image, ImageOps = _pillow()
    with Image.open(file) as image:
        if size is not None:
            image.draft(None, (2 * max(size),) * 2)  # of JPEG files alone: no smaller than this, whichever way is up
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError(f"its pixels have 32 bits (mode {image.mode!r}), and which value is white is not known")
        elif "transparency" in image.info and image.mode == "P":
            image = image.convert("RGBA")
        image = image.convert(mode)
        if size is not None and image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        pixels = np.array(image)
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1))


_CANNOT_BE_DECODED = "What cannot be decoded as an image:"


def _listed(head: str, files: dict[Path, str], most: int = 20) -> str:
    lines = [f"{file}: {text}" for file, text in list(files.items())[:most]]
    return "\n    ".join([head, *lines, *[f"and {len(files) - most} more"] * (len(files) > most)])


def _height_by_width(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[2]}"


def _in_threads(function: Callable, items: Sequence) -> Iterator:
    """Call a function for each item, and give the results in order. Pillow lets other threads work while it decodes."""
    try:
        n_processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        n_processors = os.cpu_count() or 1
    worker = get_worker_info()
    n_threads = min(len(items), max(1, n_processors // (worker.num_workers if worker else 1)))
    if n_threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        yield from pool.map(function, items)
