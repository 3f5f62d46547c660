"""Trunk: the part of a network that begins with weights from elsewhere, read from a file of the data folder."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from glideslope.tasks.data import FOLDER_VARIABLE, DataFormatError, MissingDataError, data_folder, file_sha256

COUNTERS = "num_batches_tracked"
"""What batch normalisation counts with and never uses: a file may have it or not."""


def weights_path(name: str) -> Path:
    """The file of a name in the data folder.

    Raises:
        MissingDataError: no data folder is set, or it has no such file.
    """
    folder = data_folder()
    if folder is None:
        raise MissingDataError(
            f"the weights {name!r} are looked for in the data folder, and none is set: name it with --data DIR or the "
            f"environment variable {FOLDER_VARIABLE}."
        )
    path = folder / name
    if not path.is_file():
        raise MissingDataError(
            f"the weights {name!r} are not in the data folder {folder}. Put the file there, or train from scratch with "
            "pretrained=''."
        )
    return path


def trunk_sha256(name: str) -> str:
    """Fingerprint of the file.

    Raises:
        MissingDataError: see `weights_path`.
    """
    return file_sha256(weights_path(name))


def load_trunk(trunk: nn.Module, name: str) -> None:
    """Put the weights of a safetensors file of the data folder in place of those of `trunk`.

    Names and shapes must be those of `trunk.state_dict()`, all of them and no others.

    Raises:
        MissingDataError: see `weights_path`.
        DataFormatError: the file is of another kind, or holds something else.
    """
    path = weights_path(name)
    try:
        found = {key: value for key, value in load_file(path).items() if not key.endswith(COUNTERS)}
    except SafetensorError as error:
        raise DataFormatError(f"{path} cannot be read as safetensors: {error}.") from error
    wanted = {key: value for key, value in trunk.state_dict().items() if not key.endswith(COUNTERS)}
    wrong = [
        *(f"{key} is missing" for key in wanted if key not in found),
        *(f"{key} is not known" for key in found if key not in wanted),
        *(
            f"{key} has the shape {tuple(found[key].shape)}, and not {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in found and found[key].shape != value.shape
        ),
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataFormatError(f"{path} does not hold the weights of this trunk: {'; '.join(wrong[:3])}{more}.")
    trunk.load_state_dict(found, strict=False)
