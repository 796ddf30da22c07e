//! Servers in bad weather: crowds, garbage, clients that are killed at random, a server that is.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use procession::channel::connection::{Address, Client as Connector};
use procession::manager::{
    After, Call, CallError, Client, Greeting, Handler, Properly, Server, Worker, greet,
};
use procession::process::{Builder, JoinHandle, StartMethod};
use procession::sync::Event;
use procession_testing::process::{allow_descriptors, kill, wait_until};

const KEY: &str = "a key";
const DEADLOCK: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            thousand_clients_at_once_are_served_by_few_threads,
            more_clients_than_allowed_are_turned_away,
            garbage_reaches_no_handler_and_stops_nothing,
            clients_killed_at_random_leave_nothing,
            death_of_the_server_is_told_at_once_and_names_it,
            soak_garbage_for_a_minute,
            soak_clients_killed_at_random_for_a_minute
        ],
    )
}

/// Makes objects, and counts in each. Requests: `m`, an object of the client is made; `a` and a
/// number, one is added to the object; `p`, the process id.
#[derive(Default)]
struct Counters {
    server: Mutex<Option<Arc<Server>>>,
    counts: Mutex<HashMap<u64, u64>>,
    next: AtomicU64,
    requests: AtomicU64,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Handler for Counters {
    fn request(&self, call: &Call<'_>, request: &[u8], reply: &mut Vec<u8>) -> After {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match request.split_first() {
            Some((b'm', _)) => {
                let object = self.next.fetch_add(1, Ordering::Relaxed);
                let server = self.server.lock().unwrap().clone().unwrap();
                self.counts.lock().unwrap().insert(object, 0);
                if server.refer(Some(call.client()), object) {
                    reply.extend(object.to_le_bytes());
                } else {
                    self.counts.lock().unwrap().remove(&object);
                }
            }
            Some((b'a', object)) => {
                let object = u64::from_le_bytes(object.try_into().unwrap());
                let mut counts = self.counts.lock().unwrap();
                let count = counts.get_mut(&object).unwrap();
                *count += 1;
                reply.extend(count.to_le_bytes());
            }
            _ => reply.extend(std::process::id().to_le_bytes()),
        }
        After::Serve
    }

    fn restore(&self, _call: &Call<'_>, _object: u64) -> bool {
        false
    }

    fn released(&self, objects: &[u64]) {
        let mut counts = self.counts.lock().unwrap();
        for object in objects {
            counts.remove(object);
        }
    }

    fn gone(&self, _client: u64, _properly: Properly) {}

    fn work(&self, worker: Worker) {
        self.threads.lock().unwrap().push(thread::spawn(|| worker.run()));
    }
}

/// A server with its handler, stopped and joined on drop.
struct Running {
    server: Arc<Server>,
    counters: Arc<Counters>,
}

impl Running {
    fn of(server: Server) -> Self {
        let server = Arc::new(server);
        let counters = Arc::new(Counters::default());
        *counters.server.lock().unwrap() = Some(server.clone());
        server.start(counters.clone());
        Self { server, counters }
    }

    fn at_a_port() -> Self {
        let address = Address::tcp("127.0.0.1", 0).unwrap();
        Self::of(Server::builder(address, KEY).bind().unwrap())
    }

    fn client(&self) -> Client {
        client_at(self.server.address().clone())
    }

    fn references(&self) -> usize {
        self.server.all_references().len()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.stop();
        drop(self.counters.server.lock().unwrap().take());
        let threads = std::mem::take(&mut *self.counters.threads.lock().unwrap());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn client_at(address: Address) -> Client {
    let connection = Connector::new(address.clone()).key(KEY).connect().unwrap();
    match greet(connection, address).unwrap() {
        Greeting::Ours(client) => *client,
        Greeting::Plain => panic!("the server does not speak our form"),
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn thousand_clients_at_once_are_served_by_few_threads() {
    allow_descriptors(4096).unwrap();
    let running = Running::at_a_port();
    let clients: Vec<Client> = thread::scope(|scope| {
        let crowds: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| (0..100).map(|_| running.client()).collect::<Vec<_>>()))
            .collect();
        crowds.into_iter().flat_map(|crowd| crowd.join().unwrap()).collect()
    });
    let calls: Vec<_> = clients.iter().map(|client| client.start(0, b"m").unwrap()).collect();
    calls.iter().for_each(|call| assert_eq!(call.finish().unwrap().len(), 8));
    assert_eq!(running.references(), 1000);
    assert_eq!(running.server.threads(), 1);
    drop(calls);
    drop(clients);
    assert!(wait_until(DEADLOCK, || running.references() == 0));
}

fn more_clients_than_allowed_are_turned_away() {
    let address = Address::tcp("127.0.0.1", 0).unwrap();
    let running = Running::of(Server::builder(address, KEY).max_clients(2).bind().unwrap());
    let (one, other) = (running.client(), running.client());
    let address = running.server.address().clone();
    let third = Connector::new(address.clone()).key(KEY).connect();
    assert!(third.map_err(drop).and_then(|end| greet(end, address).map_err(drop)).is_err());
    assert_eq!(one.call(0, b"m").unwrap().len(), 8);
    drop(other);
    // The server comes to know of it a moment later.
    let there_is_room = || {
        let address = running.server.address().clone();
        let end = Connector::new(address.clone()).key(KEY).connect();
        end.map_err(drop).and_then(|end| greet(end, address).map_err(drop)).is_ok()
    };
    assert!(wait_until(DEADLOCK, there_is_room));
}

fn garbage_reaches_no_handler_and_stops_nothing() {
    send_garbage_for(SHORT);
}

fn soak_garbage_for_a_minute() {
    send_garbage_for(LONG);
}

/// Bytes that are different each time.
fn noise(state: &mut u64, length: usize) -> Vec<u8> {
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn send_garbage_for(time: Duration) {
    let running = Running::at_a_port();
    let Address::Tcp(place) = *running.server.address() else { unreachable!() };
    let client = running.client();
    assert_eq!(client.call(0, b"p").unwrap().len(), 4);
    let before = (descriptors(), running.counters.requests.load(Ordering::Relaxed));
    let (until, done) = (Instant::now() + time, AtomicBool::new(false));
    let (strangers, calls) = thread::scope(|scope| {
        let senders: Vec<_> = (1..=4_u64)
            .map(|seed| {
                scope.spawn(move || {
                    let (mut state, mut strangers) = (seed * 0x9e37_79b9, 0_u64);
                    while Instant::now() < until {
                        let mut stranger = TcpStream::connect(place).unwrap();
                        let length = state as usize % 3000;
                        // The server may have closed already, or may not read all of it.
                        let _ = stranger.write_all(&noise(&mut state, length));
                        let _ = stranger.shutdown(std::net::Shutdown::Write);
                        let _ = stranger.read_to_end(&mut Vec::new());
                        strangers += 1;
                    }
                    strangers
                })
            })
            .collect();
        let caller = scope.spawn(|| {
            let mut calls = 0_u64;
            while !done.load(Ordering::Relaxed) {
                client.call(0, b"p").unwrap();
                calls += 1;
            }
            calls
        });
        let strangers: u64 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        done.store(true, Ordering::Relaxed);
        (strangers, caller.join().unwrap())
    });
    // The handler has seen the calls and nothing else.
    let requests = running.counters.requests.load(Ordering::Relaxed);
    assert_eq!(requests, before.1 + calls);
    assert!(wait_until(DEADLOCK, || descriptors() <= before.0), "{}", descriptors());
    eprintln!("{strangers} strangers and {calls} calls in {time:?}");
}

/// Makes objects and counts in them until it is killed; the first count tells that it has begun.
fn count_until_killed((address, begun): (String, Event)) {
    let client = client_at(Address::Tcp(address.parse().unwrap()));
    loop {
        let reply = client.call(0, b"m").unwrap();
        let object = u64::from_le_bytes(reply.try_into().unwrap());
        client.adopt(object);
        for expected in 1..=20_u64 {
            let request = [&b"a"[..], &object.to_le_bytes()].concat();
            assert_eq!(client.call(0, &request).unwrap(), expected.to_le_bytes());
        }
        // Every second one is given up.
        if object % 2 == 0 {
            client.give_up(object);
        }
        begun.set();
    }
}

fn start_counting(running: &Running) -> JoinHandle<()> {
    let begun = Event::new().unwrap();
    let arguments = (running.server.address().to_string(), begun.clone());
    let child = Builder::new()
        .start_method(StartMethod::Spawn)
        .spawn(count_until_killed, arguments)
        .unwrap();
    begun.wait(None).unwrap();
    child
}

fn clients_killed_at_random_leave_nothing() {
    kill_clients_for(SHORT);
}

fn soak_clients_killed_at_random_for_a_minute() {
    kill_clients_for(LONG);
}

fn kill_clients_for(time: Duration) {
    let running = Running::at_a_port();
    let witness = running.client();
    let object = u64::from_le_bytes(witness.call(0, b"m").unwrap().try_into().unwrap());
    witness.adopt(object);
    // What the first spawn opens stays open.
    let first = start_counting(&running);
    kill(first.pid());
    assert!(first.join().is_err());
    assert!(wait_until(DEADLOCK, || running.references() == 1));
    let (before, until) = (descriptors(), Instant::now() + time);
    let (mut kills, mut state) = (0, 0x1234_5678_u64);
    let mut children: Vec<_> = (0..3).map(|_| start_counting(&running)).collect();
    while Instant::now() < until || kills < 6 {
        let victim = noise(&mut state, 1)[0] as usize % children.len();
        let child = children.swap_remove(victim);
        kill(child.pid());
        assert!(child.join().is_err());
        kills += 1;
        children.push(start_counting(&running));
    }
    for child in children {
        kill(child.pid());
        assert!(child.join().is_err());
    }
    assert!(wait_until(DEADLOCK, || running.references() == 1), "{}", running.references());
    assert!(wait_until(DEADLOCK, || running.counters.counts.lock().unwrap().len() == 1));
    let request = [&b"a"[..], &object.to_le_bytes()].concat();
    assert_eq!(witness.call(0, &request).unwrap(), 1_u64.to_le_bytes());
    assert!(wait_until(DEADLOCK, || descriptors() <= before), "{} were {before}", descriptors());
    eprintln!("{kills} clients were killed in {time:?}");
}

/// Serves until it is killed, under an abstract name.
fn serve(name: String) {
    let address = Address::Abstract(name.into_bytes());
    let running = Running::of(Server::builder(address, KEY).bind().unwrap());
    running.server.wait_stopped(None).unwrap();
}

/// Calls until the server is gone, and returns what is said then.
fn call_until_gone((name, begun): (String, Event)) -> String {
    let client = client_at(Address::Abstract(name.into_bytes()));
    loop {
        match client.call(0, b"p") {
            Ok(_) => begun.set(),
            Err(error @ CallError::ServerGone { .. }) => return error.to_string(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn death_of_the_server_is_told_at_once_and_names_it() {
    let name = format!("procession-test-storm-{}", std::process::id());
    let spawn = || Builder::new().start_method(StartMethod::Spawn);
    let server = spawn().spawn(serve, name.clone()).unwrap();
    let address = Address::Abstract(name.clone().into_bytes());
    let is_there = || Connector::new(address.clone()).key(KEY).connect().is_ok();
    assert!(wait_until(DEADLOCK, is_there));
    let others: Vec<_> = (0..2)
        .map(|_| {
            let begun = Event::new().unwrap();
            let other = spawn().spawn(call_until_gone, (name.clone(), begun.clone())).unwrap();
            begun.wait(None).unwrap();
            other
        })
        .collect();
    let client = client_at(address.clone());
    let pid = server.pid();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        if let Err(error) = client.call(0, b"p") {
                            break error.to_string();
                        }
                    }
                })
            })
            .collect();
        assert_eq!(client.call(0, b"p").unwrap(), pid.to_le_bytes());
        kill(pid);
        for caller in callers {
            let text = caller.join().unwrap();
            assert!(text.contains(&format!("process {pid}")), "{text}");
        }
    });
    assert!(server.join().is_err());
    for other in others {
        let text = other.join().unwrap();
        assert!(text.contains(&format!("process {pid}")), "{text}");
    }
}
