//! `multiprocessing.managers`: the server's sockets and threads, and a process's connection with it.

mod client;
mod host;
mod server;

pub(crate) use self::client::{PyManagerClient, connect_manager};
pub(crate) use self::host::{PyCaller, PyServerThread};
pub(crate) use self::server::PyManagerServer;
