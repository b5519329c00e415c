"""Convert GGUF files, once for each file, to folders with safetensors weights that load in seconds."""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ntps_utils._utils.files import atomic_folder, cache_folder, sha256, write_json
from ntps_utils.models._hub import HubError, first_line

INFO = "gguf.json"  # in the folder of a converted file


class ConversionWarning(UserWarning):
    """A GGUF file is converted, which takes minutes and disk space; this happens once for each file."""


@dataclass(frozen=True)
class GGUFInfo:
    """What a GGUF file says about itself.

    Attributes
    ----------
    name : str
        Name of the model.
    license : str or None
        Its license, if the file names it.
    architecture : str
        Architecture in the terms of llama.cpp, such as "llama".
    n_weights : dict of str to int
        Number of weights of each type, such as "Q4_1" or "F32", most frequent first.
    sha256 : str
        Hash of the file, 64 hex digits.
    """

    name: str
    license: str | None
    architecture: str
    n_weights: dict[str, int]
    sha256: str

    @property
    def origin(self) -> str:
        """Description of the weights for provenance and reports."""
        types = [name for name in self.n_weights if name not in ("F32", "F16", "BF16")]
        return f"{', '.join(types)} weights of a GGUF file, dequantized to float32" if types else "GGUF file"


def gguf_file(path: Path) -> Path | None:
    """Find the GGUF file of a path.

    Parameters
    ----------
    path : Path
        A ``.gguf`` file, or a folder with exactly one and without safetensors weights.

    Returns
    -------
    Path or None
        None if the path is neither.

    Raises
    ------
    HubError
        If a folder has several GGUF files.

    Examples
    --------
    >>> gguf_file(Path("model.safetensors")) is None
    True
    """
    if path.suffix.lower() == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise HubError(f"{path} has {len(files)} GGUF files: {names}. Give the path of one of them.")
    return files[0] if files else None


def convert(file: Path) -> Path:
    """Convert a GGUF file to a folder in the cache, or return the folder of an earlier conversion.

    Parameters
    ----------
    file : Path
        A GGUF file of a causal language model.

    Returns
    -------
    Path
        A folder of transformers with float32 weights in safetensors, the tokenizer, and
        :class:`GGUFInfo` in ``gguf.json``. Its name is the hash of the file.

    Raises
    ------
    HubError
        If the file cannot be read.

    Warns
    -----
    ConversionWarning
        If the file is converted now.
    """
    digest = sha256(file)
    folder = cache_folder() / "converted" / digest[:16]
    if (folder / INFO).is_file():
        return folder
    try:
        info = _read_info(file, digest)
        gigabytes = 4e-9 * sum(info.n_weights.values())
        warnings.warn(
            f"{file.name} is converted to float32 once, which takes a minute or more; the result takes "
            f"{gigabytes:.1f} GB in {folder}.",
            ConversionWarning,
            stacklevel=2,
        )
        model, tokenizer = _load(file)
        with atomic_folder(folder) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            write_json(temporary / INFO, asdict(info))
    except (HubError, OSError, ModuleNotFoundError):
        raise
    except Exception as error:  # the readers raise many kinds
        raise HubError(f"{file} could not be read as a GGUF model: {first_line(error)}.") from None
    return folder


def read_info(folder: Path) -> GGUFInfo | None:
    """Read what the GGUF file of a converted folder says about itself.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    GGUFInfo or None
        None for a folder that :func:`convert` did not write.

    Examples
    --------
    >>> read_info(Path("no-folder")) is None
    True
    """
    file = folder / INFO
    return GGUFInfo(**json.loads(file.read_text("utf-8"))) if file.is_file() else None


def _read_info(file: Path, digest: str) -> GGUFInfo:
    from gguf import GGUFReader

    reader = GGUFReader(file)

    def text(key: str) -> str | None:
        entry = reader.get_field(f"general.{key}")
        return None if entry is None else str(entry.contents())

    n_weights = Counter[str]()
    for tensor in reader.tensors:
        n_weights[tensor.tensor_type.name] += int(tensor.n_elements)
    return GGUFInfo(
        text("name") or file.stem, text("license"), text("architecture") or "", dict(n_weights.most_common()), digest
    )


def _load(file: Path) -> tuple[Any, Any]:
    """Load model and tokenizer with the reader of transformers."""
    import torch
    import transformers

    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **options)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    finally:
        logger.setLevel(level)
    model.hf_quantizer = None  # otherwise transformers refuses to save the model, as if it were still quantized
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer
