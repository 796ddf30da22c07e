//! Programs in Python with which tests talk.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use procession::channel::connection::{Address, ByteConnection, Client, EndpointError, Listener};

/// Every Python from 3.8 on that is found, in PATH or among those of pyenv, one of each 3.x; at
/// least one. The newest is the last.
pub(crate) fn pythons() -> impl Iterator<Item = &'static str> {
    static FOUND: LazyLock<BTreeMap<u32, String>> = LazyLock::new(find_pythons);
    assert!(!FOUND.is_empty(), "these tests need an interpreter called python3");
    FOUND.values().map(String::as_str)
}

/// The newest Python.
pub(crate) fn newest() -> &'static str {
    pythons().last().unwrap()
}

fn find_pythons() -> BTreeMap<u32, String> {
    let in_path = ["python3".to_owned()].into_iter();
    let in_path = in_path.chain((8..20).map(|minor| format!("python3.{minor}")));
    let mut found = BTreeMap::new();
    for (minor, path) in in_path.chain(pythons_of_pyenv()).filter_map(|name| probe(&name)) {
        found.entry(minor).or_insert(path);
    }
    found
}

fn pythons_of_pyenv() -> Vec<String> {
    let root = Command::new("pyenv").arg("root").output();
    let root = root.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let folders = root.and_then(|root| PathBuf::from(root.trim()).join("versions").read_dir().ok());
    let pythons = folders.into_iter().flatten().flatten();
    let pythons = pythons.map(|folder| folder.path().join("bin/python3"));
    pythons.filter_map(|path| path.to_str().map(str::to_owned)).collect()
}

/// Of an interpreter that can be used here, the number behind the 3, and its path: what has the
/// name may only be a script that looks for it.
fn probe(name: &str) -> Option<(u32, String)> {
    const PROGRAM: &str = "
import sys
if sys.version_info >= (3, 8):
    print(sys.version_info[1], sys.executable)
";
    let quiet = Command::new(name).args(["-c", PROGRAM]).stderr(Stdio::null()).output().ok()?;
    let line = String::from_utf8(quiet.stdout).ok()?;
    let (minor, path) = line.trim().split_once(' ')?;
    Some((minor.parse().ok()?, path.to_owned()))
}

/// A Python process; its standard input and output are pipes.
pub(crate) fn start(python: &str, program: &str, arguments: &[&str]) -> Child {
    Command::new(python)
        .args(["-c", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn read_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Waits for a Python process to end; what it has written that was not read yet.
pub(crate) fn finish(mut child: Child) -> String {
    drop(child.stdin.take());
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "the Python program failed");
    rest.trim_end().to_owned()
}

/// Listens, and calls `serve(connection)`, of a program that stands before this one.
pub(crate) const LISTEN: &str = "
import sys
from multiprocessing.connection import Listener
from multiprocessing import AuthenticationError
family, address, key = sys.argv[1], sys.argv[2], sys.argv[3].encode()
with Listener(('localhost', 0) if family == 'AF_INET' else address, family, authkey=key) as listener:
    print(listener.address[1] if family == 'AF_INET' else 'ready', flush=True)
    try:
        connection = listener.accept()
    except AuthenticationError:
        print('refused', flush=True)
    else:
        serve(connection)
";

/// Connects, and calls `serve(connection)`, of a program that stands before this one.
pub(crate) const CONNECT: &str = "
import sys
from multiprocessing.connection import Client
from multiprocessing import AuthenticationError
family, address, key = sys.argv[1], sys.argv[2], sys.argv[3].encode()
try:
    connection = Client(('localhost', int(address)) if family == 'AF_INET' else address, authkey=key)
except AuthenticationError:
    print('refused', flush=True)
else:
    serve(connection)
";

/// The kinds of address, as Python calls them.
pub(crate) const FAMILIES: [&str; 2] = ["AF_INET", "AF_UNIX"];

fn socket_path() -> PathBuf {
    env::temp_dir().join(format!("procession-test-{}", std::process::id()))
}

/// Starts a listener in Python and connects with it from here; each has a key.
pub(crate) fn connect(
    python: &str,
    serve: &str,
    family: &str,
    [there, here]: [&str; 2],
) -> (Child, Result<ByteConnection, EndpointError>) {
    let path = socket_path();
    let program = format!("{serve}{LISTEN}");
    let mut child = start(python, &program, &[family, path.to_str().unwrap(), there]);
    let line = read_line(&mut child);
    let address = match family {
        "AF_INET" => Address::tcp("localhost", line.parse().unwrap()).unwrap(),
        _ => Address::unix(path),
    };
    (child, Client::new(address).key(here).connect())
}

/// Listens here and lets a client in Python connect.
pub(crate) fn accept(
    python: &str,
    serve: &str,
    family: &str,
    [there, here]: [&str; 2],
) -> (Child, Result<ByteConnection, EndpointError>) {
    let address = match family {
        "AF_INET" => Address::tcp("localhost", 0).unwrap(),
        _ => Address::unix(socket_path()),
    };
    let listener = Listener::builder(address).key(here).bind().unwrap();
    let text = match listener.address() {
        Address::Tcp(address) => address.port().to_string(),
        _ => socket_path().to_str().unwrap().to_owned(),
    };
    let child = start(python, &format!("{serve}{CONNECT}"), &[family, &text, there]);
    (child, listener.accept())
}
