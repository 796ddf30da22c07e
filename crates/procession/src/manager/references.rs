//! Who refers to which object.
//!
//! An object is a number that the handler has chosen. It stays as long as somebody refers to it.
//! Clients that speak Python's own form change the counts through connections that end at once, so
//! that nobody knows which client a reference belongs to; those are counted for no client.

use std::collections::HashMap;
use std::sync::Arc;

use crate::manager::ClientId;
use crate::manager::peer::Peer;

#[derive(Debug, Default)]
pub(super) struct References {
    /// References to each object, those of clients included.
    counts: HashMap<u64, u64>,
    /// Every client that has been let in and not been parted with.
    clients: HashMap<ClientId, Client>,
}

#[derive(Debug)]
struct Client {
    peer: Arc<Peer>,
    /// Its references to each object, which go with it.
    own: HashMap<u64, u64>,
}

impl References {
    /// Begins to count for a client.
    pub(super) fn welcome(&mut self, peer: Arc<Peer>) {
        self.clients.insert(peer.id, Client { peer, own: HashMap::new() });
    }

    /// The client with this number, unless it has been parted with.
    pub(super) fn peer(&self, client: ClientId) -> Option<Arc<Peer>> {
        self.clients.get(&client).map(|client| client.peer.clone())
    }

    /// Counts one more reference; false, and nothing is counted, if the client is gone.
    pub(super) fn add(&mut self, client: Option<ClientId>, object: u64) -> bool {
        if let Some(client) = client {
            let Some(client) = self.clients.get_mut(&client) else { return false };
            *client.own.entry(object).or_default() += 1;
        }
        *self.counts.entry(object).or_default() += 1;
        true
    }

    /// Counts one more reference to an object that somebody refers to; false if nobody does.
    pub(super) fn add_to_known(&mut self, client: Option<ClientId>, object: u64) -> bool {
        self.counts.contains_key(&object) && self.add(client, object)
    }

    /// Takes references back: at most those that there are, and of a client only its own. True if
    /// nobody refers to the object any more.
    pub(super) fn remove(&mut self, client: Option<ClientId>, object: u64, count: u64) -> bool {
        let count = match client {
            None => count,
            Some(client) => self.remove_own(client, object, count),
        };
        self.take(object, count)
    }

    fn remove_own(&mut self, client: ClientId, object: u64, count: u64) -> u64 {
        let Some(client) = self.clients.get_mut(&client) else { return 0 };
        let Some(held) = client.own.get_mut(&object) else { return 0 };
        let count = count.min(*held);
        *held -= count;
        if *held == 0 {
            client.own.remove(&object);
        }
        count
    }

    fn take(&mut self, object: u64, count: u64) -> bool {
        let Some(left) = self.counts.get_mut(&object) else { return false };
        *left = left.saturating_sub(count);
        let last = *left == 0;
        if last {
            self.counts.remove(&object);
        }
        last
    }

    /// Takes back all references of a client, and returns the objects that nobody refers to now.
    pub(super) fn forget(&mut self, client: ClientId) -> Vec<u64> {
        let own = self.clients.remove(&client).map(|client| client.own).unwrap_or_default();
        let last = own.into_iter().filter(|(object, count)| self.take(*object, *count));
        last.map(|(object, _)| object).collect()
    }

    pub(super) fn count(&self, object: u64) -> u64 {
        self.counts.get(&object).copied().unwrap_or(0)
    }

    pub(super) fn all(&self) -> Vec<(u64, u64)> {
        self.counts.iter().map(|(object, count)| (*object, *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stream;

    fn with_clients() -> References {
        let mut references = References::default();
        let (one, other) = stream::stream_pair().unwrap();
        references.welcome(Arc::new(Peer::new(1, one)));
        references.welcome(Arc::new(Peer::new(2, other)));
        references
    }

    #[test]
    fn references_of_a_client_go_with_it_and_no_others() {
        let mut references = with_clients();
        for (client, object) in [(Some(1), 10), (Some(1), 10), (Some(1), 11), (Some(2), 11)] {
            assert!(references.add(client, object));
        }
        assert!(references.add(None, 12));
        assert_eq!(references.forget(1), [10]);
        assert_eq!(references.count(11), 1);
        assert!(!references.add(Some(1), 13), "the client is gone");
        assert!(references.peer(1).is_none());
        assert!(references.remove(Some(2), 11, 1));
        assert!(references.remove(None, 12, 1));
        assert_eq!(references.all(), []);
    }

    #[test]
    fn client_that_has_hung_up_is_known_to_have() {
        let mut references = with_clients();
        assert!(!references.peer(1).unwrap().has_hung_up());
        references.forget(2);
        assert!(references.peer(1).unwrap().has_hung_up());
    }

    #[test]
    fn nobody_gives_up_what_is_not_his() {
        let mut references = with_clients();
        assert!(references.add(Some(1), 10));
        assert!(!references.remove(Some(2), 10, 1));
        assert!(!references.remove(Some(2), 99, 1));
        assert_eq!(references.count(10), 1);
        assert!(!references.add_to_known(Some(2), 99));
        assert!(references.add_to_known(Some(2), 10));
        assert!(!references.remove(Some(1), 10, 7));
        assert_eq!(references.count(10), 1);
    }
}
