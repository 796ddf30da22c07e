//! Managers of Python that run meanwhile.

use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use procession::channel::connection::Address;
use procession::manager::RemoteManager;

use crate::python::{pythons, read_line};

pub(crate) const KEY: &str = "a key";
/// Where this project's Python package is; it can be imported once it is built.
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python");
/// A manager in Python, `sys.argv` being the name of the package, and a folder for a socket file or
/// else a host. Ends with its standard input.
const MANAGER: &str = "
import importlib, multiprocessing, os, queue, sys, threading
package, place = sys.argv[1:]
folder = os.path.isdir(place)
multiprocessing.current_process().authkey = b'a key'
managers = importlib.import_module(package + '.managers')

class Counter:
    def __init__(self, count=0, *, step=1):
        self.count, self.step = count, step
    def increment(self, times=1):
        self.count += times * self.step
        return self.count
    def fail(self, *args):
        raise ValueError(*args)
    def append_to(self, some_list, item):
        some_list.append(item)
        return some_list
    def upwards(self):
        return iter(range(self.count))

class Manager(managers.SyncManager):
    pass

tasks = queue.Queue()
Manager.register('get_tasks', callable=lambda: tasks)
Manager.register('Counter', Counter, method_to_typeid={'upwards': 'Iterator'})

def end_with_input():
    sys.stdin.read()
    os._exit(0)

threading.Thread(target=end_with_input, daemon=True).start()
address = os.path.join(place, 'socket') if folder else (place, 0)
server = Manager(address=address, authkey=b'a key').get_server()
print(server.address if folder else server.address[1], flush=True)
server.serve_forever()
";

/// A manager that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) address: Address,
    /// What it is, for messages.
    pub(crate) name: String,
}

impl Running {
    pub(crate) fn start(python: &str, package: &str, place: &str) -> Self {
        Self::start_by(Command::new(python), python, package, place)
    }

    pub(crate) fn start_by(command: Command, python: &str, package: &str, place: &str) -> Self {
        Starting::new(command, python, package, place).wait()
    }

    pub(crate) fn connect(&self) -> RemoteManager {
        RemoteManager::connect(self.address.clone(), KEY).unwrap()
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.name.starts_with("procession")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// A manager that has been started and has not said yet where it is. It ends when it is dropped, with
/// its standard input.
struct Starting {
    child: Child,
    place: String,
    name: String,
}

impl Starting {
    fn new(mut command: Command, python: &str, package: &str, place: &str) -> Self {
        command.args(["-c", MANAGER, package, place]).env("PYTHONPATH", PACKAGE);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self { child, place: place.to_owned(), name: format!("{package} in {python}") }
    }

    fn wait(mut self) -> Running {
        let line = read_line(&mut self.child);
        let address = match line.parse() {
            Ok(port) => Address::tcp(&self.place, port).unwrap(),
            Err(_) => Address::unix(line),
        };
        Running { child: self.child, address, name: self.name }
    }
}

/// The Python in which this project's package can be imported, if there is one.
pub(crate) fn with_package() -> Option<&'static str> {
    static FOUND: LazyLock<Option<&'static str>> = LazyLock::new(|| {
        let found = pythons().filter(|python| {
            let import = ["-c", "import procession.managers"];
            let mut command = Command::new(python);
            command.args(import).env("PYTHONPATH", PACKAGE).stderr(Stdio::null());
            command.status().unwrap().success()
        });
        found.last()
    });
    *FOUND
}

/// Calls `test` with managers of every kind that can be had. They are started side by side.
pub(crate) fn with_managers(test: impl Fn(&mut Running)) {
    let packages = pythons().map(|python| (python, "multiprocessing"));
    let packages = packages.chain(with_package().map(|python| (python, "procession")));
    let start =
        |(python, package)| Starting::new(Command::new(python), python, package, "127.0.0.1");
    let starting: Vec<Starting> = packages.map(start).collect();
    for manager in starting {
        test(&mut manager.wait());
    }
    if with_package().is_none() {
        eprintln!("not with this project's package, which is not built");
    }
}
