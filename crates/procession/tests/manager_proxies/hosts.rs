//! Two hosts, which are two networks of this machine.

use std::env;
use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

use procession::channel::connection::Address;
use procession::manager::proxies::QueueProxy;
use procession::manager::{CallFailed, RemoteManager};

use crate::managers::{KEY, Running, with_package};
use crate::python::{pythons, read_line};

/// Tells this program to be a worker of the manager at the address in this variable.
pub(crate) const WORKER: &str = "PROCESSION_TEST_WORKER";

/// Doubles the numbers that it is given, until the master is gone.
pub(crate) fn work_for(address: Address) {
    let manager = RemoteManager::connect(address, KEY).unwrap();
    let tasks: QueueProxy<(u64, QueueProxy<u64>)> = manager.proxy("get_tasks").unwrap().into();
    loop {
        match tasks.get() {
            Ok((number, results)) => results.put(&(2 * number)).unwrap(),
            Err(CallFailed::ServerGone { .. }) => return,
            Err(other) => panic!("{other}"),
        }
    }
}

/// A network of its own, as a host has it, until it is dropped.
struct Host(Child);

impl Host {
    /// `command` is what a network is made by.
    fn start(mut command: Command, args: &[&str]) -> Result<Self, String> {
        command.args(args).args(["sh", "-c", "echo ready; read end"]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut host = Self(piped.spawn().map_err(|error| error.to_string())?);
        match read_line(&mut host.0).as_str() {
            "ready" => Ok(host),
            _ => Err("no network of its own can be made".to_owned()),
        }
    }

    /// A command that is to run there.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.id().to_string(), "--user", "--net"]);
        command.arg("--preserve-credentials").arg(program);
        command
    }

    fn ip(&self, line: &str) -> Result<(), String> {
        let done = self.command("ip").args(line.split(' ')).output();
        match done.map_err(|error| error.to_string())? {
            done if done.status.success() => Ok(()),
            done => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Two networks, joined by a cable.
fn two_hosts() -> Result<(Host, Host), String> {
    let left = Host::start(Command::new("unshare"), &["--map-root-user", "--net"])?;
    let right = Host::start(left.command("unshare"), &["--net"])?;
    left.ip(&format!("link add left type veth peer name right netns {}", right.0.id()))?;
    for (host, end, address) in [(&left, "left", "10.77.0.1/24"), (&right, "right", "10.77.0.2/24")]
    {
        host.ip(&format!("addr add {address} dev {end}"))?;
        host.ip(&format!("link set {end} up"))?;
        host.ip("link set lo up")?;
    }
    Ok((left, right))
}

pub(crate) fn worker_on_another_host_reaches_the_master() {
    let (left, right) = match two_hosts() {
        Ok(hosts) => hosts,
        Err(why) => return eprintln!("skipped: this machine cannot stand for two hosts: {why}"),
    };
    let packages = pythons().last().map(|python| (python, "multiprocessing"));
    let packages = packages.into_iter().chain(with_package().map(|python| (python, "procession")));
    for (python, package) in packages {
        let mut running = Running::start_by(right.command(python), python, package, "10.77.0.2");
        let Address::Tcp(place) = running.address else { panic!("not at a port") };
        let worker = |host: &Host| {
            let mut command = host.command(env::current_exe().unwrap());
            command.env(WORKER, place.to_string()).spawn().unwrap()
        };
        let mut workers = [worker(&left), worker(&right)];
        // This process is on neither of the two hosts.
        let master = "
import sys
from multiprocessing.managers import SyncManager
SyncManager.register('get_tasks')
manager = SyncManager(address=('10.77.0.2', int(sys.argv[1])), authkey=b'a key')
manager.connect()
tasks, results = manager.get_tasks(), manager.Queue()
for number in range(20):
    tasks.put((number, results))
doubled = [results.get() for number in range(20)]
print(sorted(doubled) == [2 * number for number in range(20)])
";
        let mut command = right.command(python);
        let done = command.args(["-c", master, &place.port().to_string()]).output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "True", "{package}: {errors}");
        running.child.kill().unwrap();
        for worker in &mut workers {
            assert!(worker.wait().unwrap().success(), "{package}");
        }
    }
}
