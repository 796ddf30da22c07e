"""CPython's test cases, with those that look into the original's files told where these are."""

import pathlib
import sysconfig

from test import _test_multiprocessing as suite

ORIGINAL = pathlib.Path(sysconfig.get_path("stdlib"), "multiprocessing")


def module_names(_test):
    """The names of the original's modules: each must be there, whoever answers it."""
    names = [f"multiprocessing.{path.stem}" for path in sorted(ORIGINAL.glob("*.py"))]
    names.remove("multiprocessing.__init__")
    return [*names, "multiprocessing"]


def install(module, method):
    """Fill the namespace of a module with the suite's test cases for a start method."""
    # It lists what lies beside `multiprocessing.__file__`.
    suite._TestImportStar.get_module_names = module_names
    suite.install_tests_in_module_dict(module, method)
