"""Which modules of the package use which, and what a process imports of them."""

import ast
import json
import pathlib
import subprocess
import sys

import pytest

import procession

LIMIT = 300.0  # seconds; only a deadlock takes this long
FOLDER = pathlib.Path(procession.__file__).parent

# The parts of connections, managers and pools from below, and those that each may name, wherever in
# its code. All may name what is not listed.
PARTS = {
    "_handshake": (),
    "_tls": (),
    "_links": (),
    "_homes": ("_links",),
    "_proxies": ("_links",),
    "_served": (),
    "_residents": ("_homes", "_proxies", "_served"),
    "_adopted": ("_served",),
    "_own_listener": (),
    "_manager_server": ("_adopted", "_links", "_own_listener", "_proxies", "_served"),
    "_server_end": ("_links",),
    "_base_manager": (
        *("_homes", "_links", "_manager_server", "_proxies", "_residents", "_server_end"),
    ),
    "_memory_manager": ("_base_manager", "_manager_server", "_proxies"),
    "managers": (
        *("_base_manager", "_links", "_manager_server", "_memory_manager", "_proxies", "_served"),
        "pool",
    ),
    "_workers": (),
    "_pool_calls": (),
    "_pool_original": ("pool",),
    "pool": ("_pool_calls", "_pool_original", "_workers"),
    "_executor_work": (),
    "futures": ("_executor_work", "_workers"),
}
# Where a lower part comes to name a higher one while it runs, and why.
EXCEPTIONS = {
    # An object in shared memory is pickled for the server as for any process of the tree.
    ("_links", "_homes"),
    # Pickles of the original's programs name its module, which is this one here.
    ("_links", "managers"),
}

SERVER = """
import json, sys
import procession
from procession.managers import SyncManager

class Modules:
    def loaded(self):
        return list(sys.modules)

class Manager(SyncManager):
    pass

Manager.register("Modules", Modules)

if __name__ == "__main__":
    with Manager(ctx=procession.get_context("spawn")) as manager:
        assert manager.dict(a=1)["a"] == 1
        print(json.dumps(manager.Modules().loaded()))
"""

CHILD = """
import json, sys
import procession

def use(proxy, names):
    proxy["a"] = 1
    names.put(list(sys.modules))

if __name__ == "__main__":
    ctx = procession.get_context("spawn")
    names = ctx.Queue()
    with ctx.Manager() as manager:
        child = ctx.Process(target=use, args=(manager.dict(), names))
        child.start()
        print(json.dumps(names.get()))
        child.join()
"""

POOL = """
import json, sys
import procession

def loaded(*_):
    return list(sys.modules)

if __name__ == "__main__":
    from procession.futures import ProcessPoolExecutor

    ctx = procession.get_context("spawn")
    with ProcessPoolExecutor(1, ctx) as executor:
        [names] = executor.map(loaded, [1], [2])
    with ctx.Pool(1) as pool:
        print(json.dumps(names + pool.apply(loaded)))
"""


def modules_named_by(path):
    """The modules of the package that the code of a module names."""
    skipped = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            skipped.update(ast.walk(node))
        elif isinstance(node, ast.ImportFrom) and node not in skipped:
            module = node.module or ""
            if module == "procession":
                yield from (alias.name for alias in node.names)
            elif module.startswith("procession."):
                yield module.split(".")[1]


def files_of(part):
    folder = FOLDER / part
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert files, f"{part} is no module of the package"
    return files


@pytest.mark.parametrize("part", PARTS)
def test_parts_use_only_what_is_below_them(part):
    for path in files_of(part):
        forbidden = PARTS.keys() - {part, *PARTS[part]}
        named = {name for name in modules_named_by(path) if (part, name) not in EXCEPTIONS}
        assert not named & forbidden, f"{path.name} of {part} may not use these"


def loaded_by(text, tmp_path):
    """What a program prints that some process of its own has imported of the package."""
    script = tmp_path / "program.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    start = "procession."
    return {name[len(start) :] for name in json.loads(done.stdout) if name.startswith(start)}


def test_server_imports_nothing_that_clients_alone_need(tmp_path):
    loaded = loaded_by(SERVER, tmp_path)
    assert {"_manager_server", "_served"} <= loaded
    assert not loaded & {
        *("_memory_manager", "_own_listener", "_residents", "_server_end", "pool"),
        *("_links.plain", "_served.conditions", "_served.events", "_served.locks"),
        *("_handshake", "_tls"),
    }


def test_child_that_is_given_a_proxy_imports_no_server(tmp_path):
    loaded = loaded_by(CHILD, tmp_path)
    assert {"_proxies.kinds", "_residents.containers"} <= loaded
    assert not loaded & {
        *("_adopted", "_base_manager", "_manager_server", "managers"),
        *("_links.plain", "_residents.events", "_residents.locks", "_residents.queues"),
        *("_handshake", "_tls"),
    }


def test_worker_imports_nothing_of_what_hands_tasks_out(tmp_path):
    loaded = loaded_by(POOL, tmp_path)
    assert "_workers" in loaded
    assert not loaded & {"_executor_work", "_pool_calls", "_pool_original", "futures", "pool"}
