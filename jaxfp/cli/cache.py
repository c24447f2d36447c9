"""Compiled programs are kept between runs of the command line, which compiles for longer than it computes.

JAX does the work (https://docs.jax.dev/en/latest/persistent_compilation_cache.html), told by its environment variables,
which it reads when it is imported. So nothing here may import it. What the user has set stays.
"""

import os
import pathlib
import sys


def folder() -> pathlib.Path:
    """Where the programs lie by default: in the user's cache folder, as the platform has it.

    Returns:
      A path; relative, and not to be used, where no such folder is known.

    Example:
      >>> folder().parts[-2:]
      ('jaxfp', 'xla')
    """
    home = os.path.expanduser("~")
    usual = {
        "darwin": os.path.join(home, "Library", "Caches"),
        "win32": os.environ.get("LOCALAPPDATA", os.path.join(home, "AppData", "Local")),
    }
    caches = os.environ.get("XDG_CACHE_HOME") or usual.get(sys.platform, os.path.join(home, ".cache"))
    return pathlib.Path(caches, "jaxfp", "xla")


def keep_programs() -> None:
    """Tell JAX, through the environment, to keep compiled programs; does nothing once JAX is imported.

    Example:
      >>> import jax
      >>> keep_programs()
    """
    off = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("0", "f", "false", "n", "no", "off")
    if off or "jax" in sys.modules:
        return
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        if not _writable(folder()):  # JAX would warn about each of a hundred programs
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder())
    # JAX's own default is a second. Most of our programs take less, and together they take ten.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # On some Intel CPUs XLA calls every program it reads back one of another machine (jax-ml/jax#38445), at length. It
    # is not: the CPU's features are part of the key. What is an error is raised all the same.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _writable(path: pathlib.Path) -> bool:
    if not path.is_absolute():
        return False
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # who can write here can run code as this user
    except OSError:
        return False
    return os.access(path, os.R_OK | os.W_OK | os.X_OK)
