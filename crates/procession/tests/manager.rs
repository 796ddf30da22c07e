//! Servers of objects and their clients: nobody is held up, nothing is left, and deaths are told.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use procession::channel::connection::{
    Address, ByteConnection, Client as Connector, EndpointError, HandshakeError, RecvError,
};
use procession::manager::{
    After, Call, CallError, Client, Greeting, Handler, Properly, Server, Worker, greet,
};
use procession_testing::process::wait_until;

const KEY: &str = "a key";
const DEADLOCK: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            calls_of_many_threads_through_one_connection_get_their_own_replies,
            requests_of_every_size_come_and_go_whole,
            blocked_call_holds_up_neither_its_own_client_nor_others,
            idle_clients_need_no_threads,
            references_of_a_client_go_with_it,
            given_up_references_are_told_without_a_call,
            goodbye_tells_a_proper_end_from_a_sudden_one,
            plain_client_is_served_one_request_after_the_other,
            wrong_key_garbage_and_silence_hold_up_nobody,
            request_over_the_limit_ends_the_connection,
            calls_fail_when_the_server_stops,
            stop_wakes_whoever_waits_for_it
        ],
    )
}

/// Answers every request with what it was, after doing what its first byte says.
#[derive(Default)]
struct Echo {
    server: Mutex<Option<Arc<Server>>>,
    /// Requests that begin with `w` wait for one of these.
    gates: Mutex<Vec<Receiver<()>>>,
    released: Mutex<BTreeSet<u64>>,
    gone: Mutex<Vec<Properly>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Handler for Echo {
    fn request(&self, call: &Call<'_>, request: &[u8], reply: &mut Vec<u8>) -> After {
        let server = self.server.lock().unwrap().clone().unwrap();
        reply.extend_from_slice(request);
        match request.first() {
            Some(b'w') => {
                let gate = self.gates.lock().unwrap().pop().unwrap();
                server.may_block();
                gate.recv().unwrap();
            }
            Some(b'm') => {
                let object = u64::from(request[1]);
                assert!(server.refer(call.is_ours().then(|| call.client()), object));
            }
            Some(b'x') => return After::Close,
            Some(b's') => return After::Stop,
            _ => {}
        }
        After::Serve
    }

    fn restore(&self, call: &Call<'_>, object: u64) -> bool {
        let server = self.server.lock().unwrap().clone().unwrap();
        object == 77 && server.refer(Some(call.client()), object)
    }

    fn released(&self, objects: &[u64]) {
        self.released.lock().unwrap().extend(objects);
    }

    fn gone(&self, _client: u64, properly: Properly) {
        self.gone.lock().unwrap().push(properly);
    }

    fn work(&self, worker: Worker) {
        self.threads.lock().unwrap().push(thread::spawn(|| worker.run()));
    }
}

/// A server with its handler, stopped and joined on drop.
struct Running {
    server: Arc<Server>,
    echo: Arc<Echo>,
}

impl Running {
    fn at(address: Address) -> Self {
        Self::of(Server::builder(address, KEY).bind().unwrap())
    }

    fn of(server: Server) -> Self {
        let server = Arc::new(server);
        let echo = Arc::new(Echo::default());
        *echo.server.lock().unwrap() = Some(server.clone());
        server.start(echo.clone());
        Self { server, echo }
    }

    fn local() -> Self {
        static COUNT: Mutex<u32> = Mutex::new(0);
        let mut count = COUNT.lock().unwrap();
        *count += 1;
        let name = format!("procession-test-manager-{}-{count}", std::process::id());
        Self::at(Address::Abstract(name.into_bytes()))
    }

    fn connect(&self) -> ByteConnection {
        Connector::new(self.server.address().clone()).key(KEY).connect().unwrap()
    }

    fn client(&self) -> Client {
        match greet(self.connect(), self.server.address().clone()).unwrap() {
            Greeting::Ours(client) => *client,
            Greeting::Plain => panic!("the server does not speak our form"),
        }
    }

    /// Lets one request that begins with `w` wait until something is sent.
    fn gate(&self) -> Sender<()> {
        let (sender, receiver) = mpsc::channel();
        self.echo.gates.lock().unwrap().push(receiver);
        sender
    }

    fn comes_true(&self, condition: impl Fn(&Self) -> bool) -> bool {
        wait_until(DEADLOCK, || condition(self))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.stop();
        self.echo.server.lock().unwrap().take();
        let threads = std::mem::take(&mut *self.echo.threads.lock().unwrap());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn calls_of_many_threads_through_one_connection_get_their_own_replies() {
    let running = Running::local();
    let client = running.client();
    thread::scope(|scope| {
        for thread in 0..6_u64 {
            let client = &client;
            scope.spawn(move || {
                for number in 0..500_u64 {
                    let request =
                        [b"e".as_slice(), &(thread << 32 | number).to_le_bytes()].concat();
                    assert_eq!(client.call(thread, &request).unwrap(), request);
                }
            });
        }
    });
    assert_eq!(client.server(), std::process::id());
}

fn requests_of_every_size_come_and_go_whole() {
    for running in [Running::local(), Running::at(Address::tcp("localhost", 0).unwrap())] {
        let client = running.client();
        for size in [1, 16_383, 16_384, 16_385, 70_000, 1 << 20, 20_000_003] {
            let request: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8 | 128).collect();
            assert!(client.call(0, &request).unwrap() == request, "{size} bytes differ");
        }
    }
}

fn blocked_call_holds_up_neither_its_own_client_nor_others() {
    let running = Running::local();
    let (one, other) = (running.client(), running.client());
    let gates: Vec<_> = (0..20).map(|_| running.gate()).collect();
    thread::scope(|scope| {
        let calls: Vec<_> = (0..20)
            .map(|number| {
                let one = &one;
                scope.spawn(move || one.call(number, b"wait").unwrap())
            })
            .collect();
        assert!(running.comes_true(|running| running.echo.gates.lock().unwrap().is_empty()));
        assert_eq!(one.call(99, b"quick").unwrap(), b"quick");
        assert_eq!(other.call(0, b"quick").unwrap(), b"quick");
        assert!(running.server.threads() > 20);
        gates.iter().for_each(|gate| gate.send(()).unwrap());
        calls.into_iter().for_each(|call| assert_eq!(call.join().unwrap(), b"wait"));
    });
    // Those that were needed for the blocked calls end.
    assert!(running.comes_true(|running| running.server.threads() < 20));
}

fn idle_clients_need_no_threads() {
    let running = Running::local();
    let clients: Vec<_> = (0..300).map(|_| running.client()).collect();
    for client in &clients {
        assert_eq!(client.call(0, b"here").unwrap(), b"here");
    }
    assert_eq!(running.server.threads(), 1);
    drop(clients);
    assert!(running.comes_true(|running| running.echo.gone.lock().unwrap().len() == 300));
}

fn references_of_a_client_go_with_it() {
    let running = Running::local();
    let (one, other) = (running.client(), running.client());
    one.call(0, b"m\x05").unwrap();
    one.call(0, b"m\x06").unwrap();
    let missing = other.start_referring(&[6, 9, 77]).unwrap().finish().unwrap().missing();
    assert_eq!(missing, [9]);
    assert_eq!(running.server.references(6), 2);
    drop(one);
    assert!(running.comes_true(|running| running.echo.released.lock().unwrap().contains(&5)));
    assert_eq!(running.server.references(6), 1);
    assert_eq!(running.server.references(77), 1);
    drop(other);
    assert!(running.comes_true(|running| running.server.all_references().is_empty()));
    assert_eq!(*running.echo.released.lock().unwrap(), BTreeSet::from([5, 6, 77]));
}

fn given_up_references_are_told_without_a_call() {
    let running = Running::local();
    let client = running.client();
    client.call(0, b"m\x05").unwrap();
    client.adopt(5);
    assert!(client.refer_again(5));
    assert!(!client.refer_again(6), "the server must be asked first");
    client.give_up(5);
    assert_eq!(client.references(), [(5, 1)]);
    client.call(0, b"kept").unwrap();
    assert_eq!(running.server.references(5), 1);
    client.give_up(5);
    assert!(running.comes_true(|running| running.echo.released.lock().unwrap().contains(&5)));
}

fn goodbye_tells_a_proper_end_from_a_sudden_one() {
    let running = Running::local();
    let polite = running.client();
    polite.say_goodbye();
    polite.call(0, b"one more").unwrap();
    drop(polite);
    assert!(running.comes_true(|running| running.echo.gone.lock().unwrap().len() == 1));
    drop(running.client());
    assert!(running.comes_true(|running| running.echo.gone.lock().unwrap().len() == 2));
    assert_eq!(*running.echo.gone.lock().unwrap(), [Properly::Yes, Properly::No]);
}

fn plain_client_is_served_one_request_after_the_other() {
    let running = Running::local();
    let plain = running.connect();
    let gate = running.gate();
    plain.send(b"wait").unwrap();
    plain.send(b"the next").unwrap();
    assert!(running.comes_true(|running| running.echo.gates.lock().unwrap().is_empty()));
    assert_eq!(running.client().call(0, b"quick").unwrap(), b"quick");
    gate.send(()).unwrap();
    assert_eq!(plain.recv().unwrap(), b"wait");
    assert_eq!(plain.recv().unwrap(), b"the next");
    plain.send(b"x: the last one").unwrap();
    assert_eq!(plain.recv().unwrap(), b"x: the last one");
    assert!(matches!(plain.recv(), Err(RecvError::EndOfStream)));
}

fn wrong_key_garbage_and_silence_hold_up_nobody() {
    let address = Address::tcp("localhost", 0).unwrap();
    // The client that is served has to be done in that time, however busy the machine is.
    let patience = Duration::from_secs(2);
    let running = Running::of(Server::builder(address, KEY).patience(patience).bind().unwrap());
    let Address::Tcp(place) = *running.server.address() else { unreachable!() };
    let mut silent = TcpStream::connect(place).unwrap();
    let mut garbage = TcpStream::connect(place).unwrap();
    garbage.write_all(&[0x41; 4096]).unwrap();
    let wrong = Connector::new(running.server.address().clone()).key("another").connect();
    let rejected = EndpointError::Handshake(HandshakeError::Rejected);
    assert_eq!(format!("{:?}", wrong.unwrap_err()), format!("{rejected:?}"));
    assert_eq!(running.client().call(0, b"here").unwrap(), b"here");
    // Both are parted with: the one after its patience, the other at once.
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    let _ = garbage.read_to_end(&mut rest);
    assert_eq!(*running.echo.gone.lock().unwrap(), [Properly::No]);
}

fn request_over_the_limit_ends_the_connection() {
    let address = Address::tcp("localhost", 0).unwrap();
    let running = Running::of(Server::builder(address, KEY).longest_request(1000).bind().unwrap());
    let client = running.client();
    assert_eq!(client.call(0, &[b'e'; 900]).unwrap().len(), 900);
    assert!(matches!(client.call(0, &[b'e'; 1001]), Err(CallError::ServerGone { .. })));
    assert!(!client.is_usable());
    assert_eq!(running.client().call(0, b"here").unwrap(), b"here");
}

fn calls_fail_when_the_server_stops() {
    let running = Running::local();
    let client = running.client();
    let gate = running.gate();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| client.call(0, b"wait"));
        assert!(running.comes_true(|running| running.echo.gates.lock().unwrap().is_empty()));
        running.server.stop();
        let error = blocked.join().unwrap().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CallError::ServerGone { .. }), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        gate.send(()).unwrap();
    });
    assert!(matches!(client.call(0, b"late"), Err(CallError::ServerGone { .. })));
    let refused = Connector::new(running.server.address().clone()).key(KEY).connect();
    assert!(matches!(refused, Err(EndpointError::Refused { .. })));
}

fn stop_wakes_whoever_waits_for_it() {
    let running = Running::local();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| running.server.wait_stopped(None));
        assert_eq!(running.client().call(0, b"stop").unwrap(), b"stop");
        assert_eq!(waiting.join().unwrap(), Ok(true));
    });
}
