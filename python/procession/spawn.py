"""What a fresh interpreter does to become a child, and what its parent tells it for that."""

from __future__ import annotations

import functools
import io
import os
import sys
from _pickle import load, loads  # `pickle` has the same, and takes long to import

from procession import _process, _stdlib
from procession._procession import Boot, take_boot

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, NoReturn

__all__ = [
    "freeze_support",
    "get_command_line",
    "get_executable",
    "get_preparation_data",
    "import_main_path",
    "is_forking",
    "prepare",
    "set_executable",
    "spawn_main",
]

# Where this package lies.
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Modules that were `__main__` before the parent's main module took their place.
old_main_modules: list[ModuleType] = []


class DupFd:
    """A descriptor that the child has under the same number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        return self.fd


def set_executable(path: str | bytes | os.PathLike[Any]) -> None:
    """Let children that are fresh interpreters run this program."""
    _stdlib.load("spawn").set_executable(path)


def get_executable() -> str | bytes:
    """Return the program that children run."""
    executable: str | bytes = _stdlib.load("spawn").get_executable()
    return executable


def is_forking(argv: list[str]) -> bool:
    """Say whether a command line is that of a child."""
    return len(argv) >= 2 and argv[1] == "--multiprocessing-fork"


def get_command_line(program: str = "from procession.spawn import spawn_main; spawn_main()") -> Any:
    """Return the command line of a child."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--multiprocessing-fork"]
    flags = _stdlib.load("util")._args_from_interpreter_flags()
    # The child's own path may lack it, if the parent's was changed or by flags such as `-I`.
    path = f"import sys; sys.path.append({_FOLDER!r}); "
    return [get_executable(), *flags, "-c", path + program, "--multiprocessing-fork"]


def get_preparation_data(name: str) -> dict[str, Any]:
    """Return what the child needs before it can unpickle its process object."""
    from procession import _alias, _by_value

    _process.refuse_on_import("a child must not start processes while it imports the main module")
    data: dict[str, Any] = _stdlib.load("spawn").get_preparation_data(name)
    if not _by_value.main_comes_along():
        # A script from the standard input has a path too, but there is nothing; and what the child
        # would not import needs no name.
        data.pop("init_main_from_path", None)
        data.pop("init_main_from_name", None)
    data["start_method"] = _process.start_method()
    data["procession_installed"] = _alias.installed()
    links: Any = sys.modules.get("procession._links")
    if links is not None and links.tls_of:
        data["procession_tls"] = links.tls_of
    return data


def complaint() -> bytes:
    """Return the pickle of a queue with one item, for the one child that may complain of its main.

    A pickle in the pickle, because a child that has nothing to complain of need not read it.
    """
    return bytes(_stdlib.load("reduction").ForkingPickler.dumps(_token()))


@functools.cache
def _token() -> Any:
    from procession._procession import Queue

    token: Queue[None] = Queue(ctx=None)
    token.put(None)
    os.register_at_fork(after_in_child=_token.cache_clear)
    return token


def freeze_support() -> None:
    """Run the child's code if this is a child, and exit."""
    if is_forking(sys.argv):
        spawn_main()


def spawn_main() -> NoReturn:
    """Run the child's code, and exit."""
    assert is_forking(sys.argv), "Not forking"
    boot = take_boot()
    if boot is None:
        sys.exit("this program is started by procession for a child process, and not by hand")
    if boot.is_fork_server:
        from procession.forkserver import serve

        serve(boot)
    process_obj, parent_sentinel = load_process(boot)
    # What it held has been taken hold of.
    del boot
    sys.exit(process_obj._bootstrap(parent_sentinel))


def load_process(boot: Boot) -> tuple[Any, int]:
    """Make this process ready, and return the object that it is to be and the parent's sentinel."""
    payload = io.BytesIO(boot.payload)
    current: Any = _stdlib.process.current_process()
    current._inheriting = True
    try:
        preparation = load(payload)
        try:
            prepare(preparation)
        except _process.StartOnImportError as error:
            _explain(error, preparation)
            sys.exit(1)
        return load(payload), preparation["procession_parent_sentinel"].detach()
    finally:
        del current._inheriting


_NO_GUARD = """\
RuntimeError:
An attempt has been made to start a new process before the main module was imported
  File "{path}", line {line}
A child that is started by spawn or forkserver imports the main module of its parent to find what is
defined there, and must not start processes itself then. Move what is not a definition under

    if __name__ == "__main__":

with freeze_support() as the first call there if the program is to be frozen to an executable."""


def _explain(error: BaseException, preparation: dict[str, Any]) -> None:
    """Say that the main module lacks its guard, unless another child has said so."""
    from queue import Empty

    try:
        loads(preparation["procession_complaint"]).get(block=False)
    except Empty:
        return
    path, line = preparation.get("init_main_from_path", "?"), 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "__mp_main__":
            path, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    print(_NO_GUARD.format(path=path, line=line), file=sys.stderr)


def prepare(data: dict[str, Any]) -> None:
    """Make this process ready to unpickle its process object."""
    process: Any = _stdlib.process
    if data.get("procession_installed"):
        from procession import _alias

        _alias.install()
    if "procession_tracker" in data:
        _stdlib.use_tracker(data["procession_tracker"].detach())
    current = process.current_process()
    if "name" in data:
        current.name = data["name"]
    if "procession_tls" in data:
        from procession import _links

        _links.tls_of.update(data["procession_tls"])
    if "authkey" in data:
        current.authkey = data["authkey"]
    if data.get("log_to_stderr"):
        _stdlib.load("util").log_to_stderr()
    if "log_level" in data:
        _stdlib.load("util").get_logger().setLevel(data["log_level"])
    if "sys_path" in data:
        sys.path = data["sys_path"]
    if "sys_argv" in data:
        sys.argv = data["sys_argv"]
    if "dir" in data:
        os.chdir(data["dir"])
    if "orig_dir" in data:
        process.ORIGINAL_DIR = data["orig_dir"]
    if "start_method" in data:
        _process.choose_start_method(data["start_method"])
    import_main(data.get("init_main_from_name"), data.get("init_main_from_path"))


def import_main(name: str | None, path: str | None) -> None:
    """Import the parent's main module, by its name or else from its file."""
    process: Any = _stdlib.process.current_process()
    inheriting = getattr(process, "_inheriting", None)
    process._inheriting = True
    try:
        if name is not None:
            _import_main_by_name(name)
        elif path is not None:
            import_main_path(path)
    finally:
        if inheriting is None:
            del process._inheriting


def import_main_path(main_path: str) -> None:
    """Import the file `main_path`, the parent's main module, unless it is there already."""
    stem = os.path.splitext(os.path.basename(main_path))[0]
    # The script that starts IPython is without a guard, and has nothing that could be needed.
    if stem == "ipython" or getattr(sys.modules["__main__"], "__file__", None) == main_path:
        return
    if os.path.isfile(main_path) and not _is_archive(main_path):
        _take_main(_run_script(main_path))
    else:
        from runpy import run_path

        _take_main(_module(run_path(main_path, run_name="__mp_main__")))


def _import_main_by_name(name: str) -> None:
    # A package's `__main__` is code that runs, without a guard.
    if name == "__main__" or name.endswith(".__main__"):
        return
    if getattr(sys.modules["__main__"].__spec__, "name", None) == name:
        return
    from runpy import run_module

    _take_main(_module(run_module(name, run_name="__mp_main__", alter_sys=True)))


def _is_archive(path: str) -> bool:
    """Say whether the file is a program in an archive, or compiled, and not a text."""
    with io.open_code(path) as file:
        start = file.read(4)
    return start.startswith(b"PK") or path.endswith(".pyc")


def _run_script(path: str) -> ModuleType:
    """Return what the text at `path` makes of an empty module."""
    main = _module(
        {"__name__": "__mp_main__", "__file__": path, "__cached__": None, "__package__": ""}
    )
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    # Found under its name while it runs, as a module is: a class that is defined there may ask.
    before = sys.modules.get("__mp_main__")
    sys.modules["__mp_main__"] = main
    try:
        exec(code, vars(main))
    finally:
        if before is None:
            del sys.modules["__mp_main__"]
        else:
            sys.modules["__mp_main__"] = before
    return main


def _module(attributes: dict[str, Any]) -> ModuleType:
    module = type(sys)("__mp_main__")
    vars(module).update(attributes)
    return module


def _take_main(main: ModuleType) -> None:
    old_main_modules.append(sys.modules["__main__"])
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
