"""Plain arrays in one zip file, as NumPy's npz has them, written and read member by member so that nothing is guessed.

What numpy.savez and numpy.load do with names and damage of their own is not what a file that must be right needs: an
array named `file` cannot be written, one named `w.npy` is read back as `w`, a member that is no array comes back as
bytes, and one that claims fewer numbers than it holds is read without its checksum being looked at; and where the table
of contents is damaged, arrays are missing without a word.
"""

import struct
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

_KINDS = "?biufcSUmM"  # of dtypes that an npz stores as they are; what it does not know (bfloat16) it turns into bytes
_MANY = 0xFFFF  # stands for more members than two bytes can count


def write(file: IO[bytes], arrays: Mapping[str, np.ndarray], *, compressed: bool = True) -> None:
    """Write an npz.

    Args:
      file: open binary file.
      arrays: names to plain arrays, see `check`.
      compressed: False writes fast what does not get smaller, such as random weights.

    Example:
      >>> import io
      >>> file = io.BytesIO()
      >>> write(file, {"file": np.ones(2)})
      >>> read(file)["file"].tolist()
      [1.0, 1.0]
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Read an npz of plain arrays, all of it.

    Args:
      file: open binary file.

    Returns:
      Arrays by name.

    Raises:
      ValueError: whatever is wrong with the file: no zip, cut off, damaged, encrypted, members that are pickles or no
        arrays, two members of one name.

    Example:
      >>> import io
      >>> read(io.BytesIO(b"no zip"))
      Traceback (most recent call last):
      ...
      ValueError: File is not a zip file
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            _count(file, archive)
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name == entry.filename or name in arrays:
                    what = "is no array" if name == entry.filename else "is there twice"
                    raise ValueError(f"{entry.filename!r} {what}")
                with archive.open(entry) as member:
                    arrays[name] = _array(member)
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen types over damaged bytes; all mean the same
        raise ValueError(str(error) or type(error).__name__) from error
    return arrays


def read_array(file: IO[bytes]) -> np.ndarray:
    """Read one npy of plain numbers, all of it.

    Args:
      file: open binary file.

    Returns:
      The array.

    Raises:
      ValueError: whatever is wrong with the file.

    Example:
      >>> import io
      >>> read_array(io.BytesIO(b""))  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      ValueError: EOF: reading magic string, expected 8 bytes got 0
    """
    try:
        return _array(file)
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def check(name: Any, array: np.ndarray) -> None:
    """Refuse what an npz does not give back as it was.

    Args:
      name: of the array; printable text, since a zip cuts names off at a zero byte.
      array: booleans, integers, floats, complex numbers, text, bytes, dates.

    Raises:
      ValueError: for other names and dtypes: objects, records, bfloat16.

    Example:
      >>> check("w", np.array([None]))
      Traceback (most recent call last):
      ...
      ValueError: arrays must be plain (booleans, numbers, text), got 'w' of object.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"names of arrays must be printable text, got {name!r}.")
    if array.dtype.kind not in _KINDS or array.dtype.hasobject:
        raise ValueError(f"arrays must be plain (booleans, numbers, text), got {name!r} of {array.dtype}.")


def _count(file: IO[bytes], archive: zipfile.ZipFile) -> None:
    """Refuse a damaged table of contents: zipfile does not look at how many members it is said to have."""
    file.seek(-len(archive.comment) - 22, 2)  # the record that ends a zip
    magic, _, _, _, n_members, _, _, _ = struct.unpack("<4s4H2LH", file.read(22))
    if magic != b"PK\5\6" or n_members not in (len(archive.infolist()), _MANY):
        raise ValueError("its table of contents is damaged")


def _array(file: IO[bytes]) -> np.ndarray:
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):  # a zip looks at its checksum only where it ends
        raise ValueError("an array is followed by more bytes than it needs")
    return array
