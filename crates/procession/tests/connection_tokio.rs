//! Connections, listeners and processes in async code.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use procession::channel::connection::{
    Address, AsyncConnection, AsyncListener, ByteConnection, Client, Connection, EndpointError,
    HandshakeError, Listener, RecvError, SendError, byte_pipe, byte_pipe_one_way, pipe,
};
use tokio::runtime::Builder;
use tokio::time::timeout;

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            messages_of_every_size_go_both_ways,
            tasks_share_a_connection,
            dropped_futures_lose_nothing,
            ends_are_told_apart,
            long_messages_are_refused_in_advance,
            silent_clients_do_not_hold_up_others,
            connection_that_is_refused_is_an_error,
            process_is_awaited_while_it_talks
        ],
    )
}

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(DEADLOCK, test).await.expect("a deadlock") });
}

type Bytes = AsyncConnection<(), ()>;

fn ends() -> (Bytes, Bytes) {
    let (here, there) = byte_pipe().unwrap();
    (Bytes::new(here).unwrap(), Bytes::new(there).unwrap())
}

fn messages_of_every_size_go_both_ways() {
    run(async {
        let (here, there) = ends();
        for size in [0, 1, 16_384, 65_536, 65_537, 5_000_000] {
            let message: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let (sent, received) = tokio::join!(here.send_bytes(&message), there.recv_bytes());
            sent.unwrap();
            assert!(received.unwrap() == message, "{size} bytes differ");
        }
        let long = vec![1; 3_000_000];
        let (one, other, first, second) = tokio::join!(
            here.send_bytes(&long),
            there.send_bytes(&long),
            here.recv_bytes(),
            there.recv_bytes(),
        );
        one.unwrap();
        other.unwrap();
        assert!(first.unwrap() == long && second.unwrap() == long);
    });
}

fn tasks_share_a_connection() {
    run(async {
        let (here, there) = ends();
        let messages: Vec<Vec<u8>> = (1..=3).map(|byte| vec![byte; 400_000]).collect();
        let [a, b, c] = &messages[..] else { unreachable!() };
        let sends = async {
            let sent = tokio::join!(here.send_bytes(a), here.send_bytes(b), here.send_bytes(c));
            sent.0.and(sent.1).and(sent.2).unwrap();
        };
        let receives =
            async { tokio::join!(there.recv_bytes(), there.recv_bytes(), there.recv_bytes()) };
        let ((), (x, y, z)) = tokio::join!(sends, receives);
        let mut received = [x.unwrap(), y.unwrap(), z.unwrap()];
        received.sort();
        assert!(received[..] == messages[..], "messages were mixed");
    });
}

fn dropped_futures_lose_nothing() {
    run(async {
        let (here, there) = ends();
        let long = vec![9; 3_000_000];
        // Nobody reads, so it stops in the middle, and is dropped there.
        assert!(timeout(Duration::from_millis(10), here.send_bytes(&long)).await.is_err());
        let part = timeout(Duration::ZERO, there.recv_bytes()).await;
        assert!(part.is_err(), "all of it was there");
        let (sent, received) = tokio::join!(here.send_bytes(b"next"), async {
            (there.recv_bytes().await, there.recv_bytes().await)
        });
        sent.unwrap();
        assert!(received.0.unwrap() == long, "the message that was given up is not whole");
        assert_eq!(received.1.unwrap(), b"next");
    });
}

fn ends_are_told_apart() {
    run(async {
        let (reader, writer) = byte_pipe_one_way().unwrap();
        let (reader, writer) = (Bytes::new(reader).unwrap(), Bytes::new(writer).unwrap());
        assert!(matches!(reader.send_bytes(b"").await, Err(SendError::ReceiveOnly)));
        assert!(matches!(writer.recv_bytes().await, Err(RecvError::SendOnly)));
        writer.send_bytes(b"last").await.unwrap();
        drop(writer);
        assert_eq!(reader.recv_bytes().await.unwrap(), b"last");
        assert!(matches!(reader.recv_bytes().await, Err(RecvError::EndOfStream)));

        let (here, there) = ends();
        drop(there);
        assert!(matches!(here.send_bytes(b"to nobody").await, Err(SendError::Os { .. })));
        assert!(matches!(here.send_bytes(b"to nobody").await, Err(SendError::Torn)));

        let (here, there) = ends();
        let long = vec![0; 3_000_000];
        assert!(timeout(Duration::from_millis(10), here.send_bytes(&long)).await.is_err());
        drop(here);
        assert!(matches!(there.recv_bytes().await, Err(RecvError::Truncated { .. })));
    });
}

fn long_messages_are_refused_in_advance() {
    run(async {
        let (here, there) = byte_pipe().unwrap();
        there.set_limit(10);
        let (here, there) = (Bytes::new(here).unwrap(), Bytes::new(there).unwrap());
        here.send_bytes(&[0; 10]).await.unwrap();
        here.send_bytes(&[0; 11]).await.unwrap();
        assert_eq!(there.recv_bytes().await.unwrap().len(), 10);
        for _ in 0..2 {
            let refused = there.recv_bytes().await;
            assert!(matches!(refused, Err(RecvError::TooLong { length: 11, limit: 10 })));
        }
    });
}

fn silent_clients_do_not_hold_up_others() {
    run(async {
        let builder = Listener::builder(Address::tcp("localhost", 0).unwrap()).key("a key");
        let listener = AsyncListener::new(builder.backlog(64).bind().unwrap()).unwrap();
        let address = listener.address().clone();
        let silent: Vec<ByteConnection> =
            (0..20).map(|_| Client::new(address.clone()).connect().unwrap()).collect();
        silent[0].send(b"garbage").unwrap();
        let wrong = Client::new(address.clone()).key("another key");
        let (refused, _) = tokio::join!(
            async {
                loop {
                    match listener.accept::<u32, u32>().await {
                        // What the client with the garbage came to.
                        Err(EndpointError::Handshake(HandshakeError::Unsupported { .. })) => {}
                        other => return other,
                    }
                }
            },
            wrong.connect_async::<u32, u32>()
        );
        assert!(matches!(refused, Err(EndpointError::Handshake(HandshakeError::WrongKey))));
        let client = Client::new(address).key("a key");
        let (server, client) =
            tokio::join!(listener.accept::<u32, u32>(), client.connect_async::<u32, u32>());
        client.unwrap().send(&7).await.unwrap();
        assert_eq!(server.unwrap().recv().await.unwrap(), 7);
    });
}

fn connection_that_is_refused_is_an_error() {
    run(async {
        let listener = Listener::bind(Address::tcp("localhost", 0).unwrap()).unwrap();
        let address = listener.address().clone();
        drop(listener);
        let refused = Client::new(address).connect_async::<(), ()>().await;
        assert!(matches!(refused, Err(EndpointError::Refused { .. })));
    });
}

fn double(end: Connection<u32, u32>) -> String {
    while let Ok(value) = end.recv() {
        end.send(&(2 * value)).unwrap();
    }
    "all doubled".to_owned()
}

fn process_is_awaited_while_it_talks() {
    let (here, there) = pipe::<u32, u32>().unwrap();
    let handle = procession::spawn(double, there).unwrap();
    run(async {
        let talk = async {
            let here = AsyncConnection::try_from(here).unwrap();
            for value in 0..5 {
                here.send(&value).await.unwrap();
                assert_eq!(here.recv().await.unwrap(), 2 * value);
            }
        };
        let ((), value) = tokio::join!(talk, handle.join_async());
        assert_eq!(value.unwrap(), "all doubled");
    });
    assert!(procession::channel::connection::stop_sharing(None));
}
