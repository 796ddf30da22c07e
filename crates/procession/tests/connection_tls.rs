//! TLS: nobody is trusted without reason, every failure says why, and nobody holds up anybody.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use procession::channel::connection::{
    Address, ByteConnection, Client, EndpointError, HandshakeError, Listener, RecvError, SendError,
    Tls, TlsError, finish_tunnels,
};
use procession::manager::{
    After, Call, Greeting, Handler, Manager, ManagerError, Properly, Server, Worker, greet, use_tls,
};
use procession::process::{Builder, StartMethod};
use procession_testing::process::wait_until;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use std::process::Command;

const KEY: &str = "a key";
const DEADLOCK: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            messages_of_every_size_come_whole_in_both_directions,
            who_sends_waits_for_who_receives,
            peer_that_takes_nothing_holds_up_nobody,
            end_is_told_from_a_cut,
            close_of_the_other_end_fails_what_is_sent,
            stranger_with_another_issuer_is_not_trusted,
            certificate_of_another_host_is_not_trusted,
            certificate_out_of_its_time_is_not_trusted,
            name_is_checked_where_one_is_given,
            client_without_certificate_is_turned_away_where_one_is_wanted,
            wrong_key_inside_is_found,
            plain_client_is_told_what_is_spoken,
            plain_listener_is_told_from_one_with_tls,
            garbage_and_silence_hold_up_no_other_client,
            what_is_no_certificate_is_refused_at_once,
            manager_serves_clients_over_tls,
            manager_of_objects_serves_over_tls,
            child_goes_on_with_an_inherited_end_through_its_parent,
            message_sent_before_the_end_of_a_process_arrives,
            death_of_the_other_end_is_no_clean_end,
            tunnels_leave_no_descriptor
        ],
    )
}

/// Ends the thread that encrypts at the end of a test.
struct Tidy;

impl Drop for Tidy {
    fn drop(&mut self) {
        assert!(finish_tunnels(DEADLOCK), "a tunnel does not end");
    }
}

/// Who signs certificates.
struct Issuer(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as texts.
struct Shown {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Issuer {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let name = format!("issuer {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    fn sign(&self, name: &str) -> Shown {
        self.sign_with(CertificateParams::new([name.to_owned()]).unwrap())
    }

    fn sign_with(&self, params: CertificateParams) -> Shown {
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem().into_bytes();
        Shown { chain, key: key.serialize_pem().into_bytes() }
    }
}

impl Shown {
    fn server(&self) -> Tls {
        Tls::server(&self.chain, &self.key).unwrap()
    }
}

fn any_port() -> Address {
    Address::tcp("127.0.0.1", 0).unwrap()
}

fn listen(tls: Tls) -> Listener {
    Listener::builder(any_port()).tls(tls).key(KEY).bind().unwrap()
}

/// A listener and a client that trust each other.
fn trusting() -> (Listener, Client) {
    let issuer = Issuer::new();
    let listener = listen(issuer.sign("127.0.0.1").server());
    let tls = Tls::client(&issuer.pem()).unwrap();
    let client = Client::new(listener.address().clone()).tls(tls).key(KEY);
    (listener, client)
}

fn connect(listener: &Listener, client: &Client) -> (ByteConnection, ByteConnection) {
    thread::scope(|scope| {
        let client = scope.spawn(|| client.connect().unwrap());
        (listener.accept().unwrap(), client.join().unwrap())
    })
}

fn pair() -> (ByteConnection, ByteConnection) {
    let (listener, client) = trusting();
    connect(&listener, &client)
}

/// What comes of a client at a listener: of both ends.
fn meet(
    listener: &Listener,
    client: &Client,
) -> (Result<ByteConnection, EndpointError>, Result<ByteConnection, EndpointError>) {
    thread::scope(|scope| {
        let client = scope.spawn(|| client.connect());
        let deadline = Some(Instant::now() + DEADLOCK);
        let accepted = listener.accept_until(deadline).map(|(connection, _)| connection);
        (accepted, client.join().unwrap())
    })
}

fn tls_error<T: std::fmt::Debug>(result: Result<T, EndpointError>) -> TlsError {
    match result {
        Err(EndpointError::Handshake(HandshakeError::Tls(error))) => error,
        other => panic!("no error of TLS: {other:?}"),
    }
}

fn messages_of_every_size_come_whole_in_both_directions() {
    let _tidy = Tidy;
    let (here, there) = pair();
    for (from, to) in [(&here, &there), (&there, &here)] {
        for length in [0, 1, 255, 16_384, 65_536, 70_001, 20 << 20] {
            let message: Vec<u8> = (0..length).map(|n| (n * 7 + n / 251) as u8).collect();
            thread::scope(|scope| {
                scope.spawn(|| from.send(&message).unwrap());
                assert!(to.recv().unwrap() == message, "{length} bytes came as others");
            });
        }
    }
}

fn who_sends_waits_for_who_receives() {
    let _tidy = Tidy;
    const LENGTH: usize = 64 << 20;
    let (here, there) = pair();
    let (sender, sent) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            here.send(&vec![1; LENGTH]).unwrap();
            sender.send(()).unwrap();
        });
        let deadline = Some(Instant::now() + DEADLOCK);
        // It returns once a second, so that the caller can see to signals.
        let arrived = loop {
            match there.poll(deadline) {
                Err(RecvError::Interrupted) => {}
                result => break result.unwrap(),
            }
        };
        assert!(arrived, "nothing has arrived");
        // More than all buffers on the way hold is not taken while nobody receives.
        assert!(sent.recv_timeout(Duration::from_millis(300)).is_err());
        assert_eq!(there.recv().unwrap().len(), LENGTH);
        sent.recv_timeout(DEADLOCK).unwrap();
    });
}

fn peer_that_takes_nothing_holds_up_nobody() {
    let _tidy = Tidy;
    let (listener, client) = trusting();
    let (stuck, _silent) = connect(&listener, &client);
    let (here, there) = connect(&listener, &client);
    let (begun, has_begun) = mpsc::channel();
    let blocked = thread::spawn(move || {
        begun.send(()).unwrap();
        stuck.send(&vec![0; 64 << 20])
    });
    has_begun.recv_timeout(DEADLOCK).unwrap();
    for _ in 0..1000 {
        here.send(b"a message").unwrap();
        assert_eq!(there.recv().unwrap(), b"a message");
    }
    drop(_silent);
    assert!(matches!(blocked.join().unwrap(), Err(SendError::Os { .. })));
}

/// Carries bytes between a client and a listener until it is told to cut.
struct Between {
    address: Address,
    cut: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Between {
    fn new(to: &Listener) -> Self {
        let Address::Tcp(to) = *to.address() else { panic!("no TCP") };
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(door.local_addr().unwrap());
        let (cut, is_cut) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let (client, _) = door.accept().unwrap();
            let server = TcpStream::connect(to).unwrap();
            let copies = [(&client, &server), (&server, &client)].map(|(from, to)| {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                thread::spawn(move || drop(std::io::copy(&mut from, &mut to)))
            });
            // Ends when it is told to, or its owner is gone.
            let _ = is_cut.recv();
            for socket in [&client, &server] {
                let _ = socket.shutdown(Shutdown::Both);
            }
            copies.into_iter().for_each(|copy| copy.join().unwrap());
        });
        Self { address, cut, thread }
    }

    fn cut(self) {
        self.cut.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

fn end_is_told_from_a_cut() {
    let _tidy = Tidy;
    let (here, there) = pair();
    here.send(b"the last").unwrap();
    drop(here);
    assert_eq!(there.recv().unwrap(), b"the last");
    assert!(matches!(there.recv(), Err(RecvError::EndOfStream)));

    let issuer = Issuer::new();
    let listener = listen(issuer.sign("127.0.0.1").server());
    let between = Between::new(&listener);
    let tls = Tls::client(&issuer.pem()).unwrap();
    let client = Client::new(between.address.clone()).tls(tls).key(KEY);
    let (here, there) = connect(&listener, &client);
    here.send(b"the last").unwrap();
    assert_eq!(there.recv().unwrap(), b"the last");
    // Between two messages, where a plain connection would just end.
    between.cut();
    for end in [here, there] {
        assert!(matches!(end.recv(), Err(RecvError::Tls(TlsError::Cut))));
        // Also for a process that knows nothing of TLS.
        let other = ByteConnection::new(std::os::fd::OwnedFd::from(end)).unwrap();
        let read = other.recv();
        assert!(matches!(read, Err(RecvError::EndOfStream | RecvError::Truncated { .. })));
    }
}

fn close_of_the_other_end_fails_what_is_sent() {
    let _tidy = Tidy;
    let (here, there) = pair();
    drop(there);
    assert!(matches!(here.recv(), Err(RecvError::EndOfStream)));
    // The first may still have found room.
    assert!(wait_until(DEADLOCK, || here.send(&[0; 4096]).is_err()));
}

fn stranger_with_another_issuer_is_not_trusted() {
    let _tidy = Tidy;
    let listener = listen(Issuer::new().sign("127.0.0.1").server());
    let tls = Tls::client(&Issuer::new().pem()).unwrap();
    let client = Client::new(listener.address().clone()).tls(tls).key(KEY);
    let (accepted, connected) = meet(&listener, &client);
    assert_eq!(tls_error(connected), TlsError::UnknownIssuer);
    assert!(matches!(tls_error(accepted), TlsError::Refused { .. }));
}

fn certificate_of_another_host_is_not_trusted() {
    let _tidy = Tidy;
    let issuer = Issuer::new();
    let listener = listen(issuer.sign("example.org").server());
    let tls = Tls::client(&issuer.pem()).unwrap();
    let client = Client::new(listener.address().clone()).tls(tls).key(KEY);
    let (accepted, connected) = meet(&listener, &client);
    let expected = "127.0.0.1".to_owned();
    assert_eq!(tls_error(connected), TlsError::WrongName { expected });
    assert!(matches!(tls_error(accepted), TlsError::Refused { .. }));
}

fn certificate_out_of_its_time_is_not_trusted() {
    let _tidy = Tidy;
    let issuer = Issuer::new();
    for (from, until, error) in
        [(1990, 1991, TlsError::Expired), (4000, 4001, TlsError::NotYetValid)]
    {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let listener = listen(issuer.sign_with(params).server());
        let tls = Tls::client(&issuer.pem()).unwrap();
        let client = Client::new(listener.address().clone()).tls(tls).key(KEY);
        assert_eq!(tls_error(meet(&listener, &client).1), error);
    }
}

fn name_is_checked_where_one_is_given() {
    let _tidy = Tidy;
    let issuer = Issuer::new();
    let listener = listen(issuer.sign("example.org").server());
    let named = |name| {
        let tls = Tls::client(&issuer.pem()).unwrap().server_name(name).unwrap();
        Client::new(listener.address().clone()).tls(tls).key(KEY)
    };
    let (here, there) = connect(&listener, &named("example.org"));
    here.send(b"hello").unwrap();
    assert_eq!(there.recv().unwrap(), b"hello");
    let expected = "example.com".to_owned();
    let wrong = tls_error(meet(&listener, &named("example.com")).1);
    assert_eq!(wrong, TlsError::WrongName { expected });
}

fn client_without_certificate_is_turned_away_where_one_is_wanted() {
    let _tidy = Tidy;
    let (issuer, clients) = (Issuer::new(), Issuer::new());
    let tls = issuer.sign("127.0.0.1").server().require_certificate(&clients.pem()).unwrap();
    let listener = listen(tls);
    let with = |shown: Option<Shown>| {
        let mut tls = Tls::client(&issuer.pem()).unwrap();
        if let Some(Shown { chain, key }) = shown {
            tls = tls.client_certificate(&chain, &key).unwrap();
        }
        Client::new(listener.address().clone()).tls(tls).key(KEY)
    };
    let (here, there) = connect(&listener, &with(Some(clients.sign("a client"))));
    here.send(b"hello").unwrap();
    assert_eq!(there.recv().unwrap(), b"hello");

    let (accepted, connected) = meet(&listener, &with(None));
    assert_eq!(tls_error(accepted), TlsError::NoCertificate);
    assert!(tls_error(connected).to_string().contains("wants a certificate"));

    let (accepted, connected) = meet(&listener, &with(Some(Issuer::new().sign("a client"))));
    assert_eq!(tls_error(accepted), TlsError::UnknownIssuer);
    assert!(tls_error(connected).to_string().contains("trusts nobody"));
}

fn wrong_key_inside_is_found() {
    let _tidy = Tidy;
    let (listener, client) = trusting();
    let (accepted, connected) = meet(&listener, &client.key("another key"));
    for end in [accepted, connected] {
        let wrong = matches!(
            end,
            Err(EndpointError::Handshake(HandshakeError::WrongKey | HandshakeError::Rejected))
        );
        assert!(wrong);
    }
}

fn plain_client_is_told_what_is_spoken() {
    let _tidy = Tidy;
    let issuer = Issuer::new();
    let listener = Listener::builder(any_port())
        .tls(issuer.sign("127.0.0.1").server())
        .key(KEY)
        .patience(SHORT)
        .bind()
        .unwrap();
    let client = Client::new(listener.address().clone()).key(KEY);
    thread::scope(|scope| {
        let client = scope.spawn(|| client.connect());
        // Whoever is silent is passed over.
        while !client.is_finished() {
            let accepted = listener.accept_until(Some(Instant::now() + SHORT));
            assert!(matches!(accepted, Err(EndpointError::TimedOut)), "{accepted:?}");
        }
        let error = client.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("speaks TLS"), "{error}");
    });
}

fn plain_listener_is_told_from_one_with_tls() {
    let _tidy = Tidy;
    let listener = Listener::builder(any_port()).key(KEY).bind().unwrap();
    let tls = Tls::client(&Issuer::new().pem()).unwrap();
    let client = Client::new(listener.address().clone()).tls(tls).key(KEY);
    let (accepted, connected) = meet(&listener, &client);
    assert_eq!(tls_error(connected), TlsError::NotSpoken);
    let error = accepted.unwrap_err();
    assert!(error.to_string().contains("speaks TLS"), "{error}");
}

fn garbage_and_silence_hold_up_no_other_client() {
    let _tidy = Tidy;
    let (listener, client) = trusting();
    let Address::Tcp(place) = *listener.address() else { panic!("no TCP") };
    let _silent = TcpStream::connect(place).unwrap();
    let mut garbage = TcpStream::connect(place).unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    thread::scope(|scope| {
        let connecting = scope.spawn(|| client.connect().unwrap());
        let mut refused = 0;
        let accepted = loop {
            match listener.accept() {
                Ok(connection) => break connection,
                Err(error) => {
                    assert_eq!(tls_error::<()>(Err(error)), TlsError::NotSpoken);
                    refused += 1;
                }
            }
        };
        assert!(refused <= 1);
        connecting.join().unwrap().send(b"hello").unwrap();
        assert_eq!(accepted.recv().unwrap(), b"hello");
    });
}

fn what_is_no_certificate_is_refused_at_once() {
    let _tidy = Tidy;
    let (one, other) = (Issuer::new().sign("localhost"), Issuer::new().sign("localhost"));
    let bad = |result: Result<Tls, TlsError>| result.unwrap_err();
    assert!(matches!(bad(Tls::client(b"no PEM")), TlsError::BadCertificate { .. }));
    assert!(matches!(bad(Tls::server(b"no PEM", &one.key)), TlsError::BadCertificate { .. }));
    assert!(matches!(bad(Tls::server(&one.chain, b"no PEM")), TlsError::BadKey { .. }));
    assert!(matches!(bad(Tls::server(&one.chain, &other.key)), TlsError::BadKey { .. }));
    let client = Tls::client(&one.chain).unwrap();
    assert_eq!(tls_error(Listener::builder(any_port()).tls(client).bind()), TlsError::WrongSide);
    let connecting = Client::new(any_port()).tls(one.server()).connect();
    assert_eq!(tls_error(connecting), TlsError::WrongSide);
}

struct Doubling;

impl Handler for Doubling {
    fn request(&self, _call: &Call<'_>, request: &[u8], reply: &mut Vec<u8>) -> After {
        reply.extend(request.iter().map(|byte| byte.wrapping_mul(2)));
        After::Serve
    }

    fn restore(&self, _call: &Call<'_>, _object: u64) -> bool {
        false
    }

    fn released(&self, _objects: &[u64]) {}

    fn gone(&self, _client: u64, _properly: Properly) {}

    fn work(&self, worker: Worker) {
        thread::spawn(|| worker.run());
    }
}

fn manager_serves_clients_over_tls() {
    let _tidy = Tidy;
    let issuer = Issuer::new();
    let tls = issuer.sign("127.0.0.1").server();
    let server = Server::builder(any_port(), KEY).tls(tls.clone()).bind().unwrap();
    server.start(std::sync::Arc::new(Doubling));
    let impatient = Server::builder(any_port(), KEY).patience(SHORT).tls(tls).bind().unwrap();
    impatient.start(std::sync::Arc::new(Doubling));
    let tls = Tls::client(&issuer.pem()).unwrap();
    let address = server.address().clone();
    let connector = Client::new(address.clone()).tls(tls).key(KEY);
    let clients: Vec<_> = (0..20)
        .map(|_| match greet(connector.connect().unwrap(), address.clone()).unwrap() {
            Greeting::Ours(client) => client,
            Greeting::Plain => panic!("the server does not speak our form"),
        })
        .collect();
    for client in &clients {
        assert_eq!(client.call(0, &[1, 2, 3]).unwrap(), [2, 4, 6]);
        assert_eq!(client.call(0, &vec![4; 1 << 20]).unwrap(), vec![8; 1 << 20]);
    }
    let error = Client::new(impatient.address().clone()).key(KEY).connect().unwrap_err();
    assert!(error.to_string().contains("speaks TLS"), "{error}");
    impatient.stop();
    assert_eq!(clients[0].call(0, &[5]).unwrap(), [10]);
    server.stop();
    assert!(clients[0].call(0, &[5]).is_err());
}

fn manager_of_objects_serves_over_tls() {
    let _tidy = Tidy;
    let issuer = Issuer::new();
    let server = issuer.sign("127.0.0.1").server();
    let builder = Manager::builder().address(any_port()).authkey(KEY).tls(server);
    let elsewhere = builder.clone().start(|_registry| {}).unwrap_err();
    assert!(matches!(elsewhere, ManagerError::TlsElsewhere), "{elsewhere}");
    let manager = builder.serve(|_registry| {}).unwrap();
    use_tls(manager.address(), Tls::client(&issuer.pem()).unwrap());
    let list = manager.connect().unwrap().list::<u64>().unwrap();
    list.push(&4).unwrap();
    assert_eq!(list.len().unwrap(), 1);
}

fn child_goes_on_with_an_inherited_end_through_its_parent() {
    let _tidy = Tidy;
    let (here, there) = pair();
    let mut child = Command::new("sh")
        .args(["-c", "printf '\\0\\0\\0\\5hello'"])
        .stdout(here.as_fd().try_clone_to_owned().unwrap())
        .spawn()
        .unwrap();
    assert_eq!(there.recv().unwrap(), b"hello");
    assert!(child.wait().unwrap().success());
    here.send(b"the parent's").unwrap();
    assert_eq!(there.recv().unwrap(), b"the parent's");
}

/// Sends a message and ends without anything else, the connection open.
fn send_and_leave((address, trusted, length): (String, Vec<u8>, usize)) {
    let tls = Tls::client(&trusted).unwrap();
    let client = Client::new(Address::Tcp(address.parse().unwrap())).tls(tls).key(KEY);
    let connection = client.connect().unwrap();
    connection.send(&vec![3; length]).unwrap();
    std::mem::forget(connection);
}

fn message_sent_before_the_end_of_a_process_arrives() {
    let _tidy = Tidy;
    const LENGTH: usize = 100_000;
    let issuer = Issuer::new();
    let listener = listen(issuer.sign("127.0.0.1").server());
    let arguments = (listener.address().to_string(), issuer.pem(), LENGTH);
    let spawning = Builder::new().start_method(StartMethod::Spawn);
    let child = spawning.spawn(send_and_leave, arguments).unwrap();
    let connection = listener.accept().unwrap();
    child.join().unwrap();
    assert_eq!(connection.recv().unwrap().len(), LENGTH);
    assert!(matches!(connection.recv(), Err(RecvError::EndOfStream)));
}

/// Sends a message and dies.
fn send_and_be_killed((address, trusted): (String, Vec<u8>)) {
    let tls = Tls::client(&trusted).unwrap();
    let client = Client::new(Address::Tcp(address.parse().unwrap())).tls(tls).key(KEY);
    let connection = client.connect().unwrap();
    connection.send(b"a message").unwrap();
    // Until it has been received.
    assert_eq!(connection.recv().unwrap(), b"received");
    std::process::abort();
}

fn death_of_the_other_end_is_no_clean_end() {
    let _tidy = Tidy;
    let issuer = Issuer::new();
    let listener = listen(issuer.sign("127.0.0.1").server());
    let arguments = (listener.address().to_string(), issuer.pem());
    let child =
        Builder::new().start_method(StartMethod::Spawn).spawn(send_and_be_killed, arguments);
    let connection = listener.accept().unwrap();
    assert_eq!(connection.recv().unwrap(), b"a message");
    connection.send(b"received").unwrap();
    assert!(child.unwrap().join().is_err());
    assert!(matches!(connection.recv(), Err(RecvError::Tls(TlsError::Cut))));
}

fn tunnels_leave_no_descriptor() {
    let _tidy = Tidy;
    let (listener, client) = trusting();
    drop(connect(&listener, &client));
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for _ in 0..50 {
        let (here, there) = connect(&listener, &client);
        here.send(b"hello").unwrap();
        assert_eq!(there.recv().unwrap(), b"hello");
    }
    assert!(wait_until(DEADLOCK, || count() <= before), "{} were {before}", count());
    let Address::Tcp(place) = *listener.address() else { panic!("no TCP") };
    let mut left = TcpStream::connect(place).unwrap();
    left.shutdown(Shutdown::Write).unwrap();
    left.set_nonblocking(true).unwrap();
    loop {
        let accepted = listener.accept_until(Some(Instant::now() + SHORT));
        assert!(matches!(accepted, Err(EndpointError::TimedOut)), "{accepted:?}");
        match left.read(&mut [0; 100]) {
            Ok(length) => break assert_eq!(length, 0, "it is told something"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}
