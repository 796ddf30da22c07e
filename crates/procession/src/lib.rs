//! Programs made of many processes: start them, share memory and messages with them, hand them
//! work, and know what became of each.
//!
//! | module          | what it gives                                                        |
//! |-----------------|----------------------------------------------------------------------|
//! | [`process`]     | child processes by fork, spawn and fork server, and their results    |
//! | [`mod@command`] | external programs, as processes like any others                      |
//! | [`pool`]        | pools of worker processes: `map`, `imap`, `submit`, timeouts         |
//! | [`channel`]     | queues between any processes of a tree; pipes, listeners and clients |
//! | [`manager`]     | a server of objects for many processes, and clients of it            |
//! | [`collection`]  | dictionaries and lists that processes share                          |
//! | [`memory`]      | plain data that processes share: values, arrays, named memory        |
//! | [`pickle`]      | what Python programs send each other, written and read without Python |
//! | [`sync`]        | locks, conditions, events, barriers between any processes of a tree  |
//! | [`shm`]         | the shared memory beneath all of these                               |
//!
//! The processes of a tree share one arena of memory that has no name in the system and goes
//! with the last of them. A queue, a lock or a pool is a handle to an object there; it can be
//! sent to any process of the tree, as an argument or inside a message.
//!
//! Any process may be killed at any moment. The others go on, or get an error that names the dead
//! one; nothing hangs and nothing is left behind.
//!
//! # Examples
//!
//! ```no_run
//! use procession::pool::Pool;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     procession::init(); // a worker process goes its own way here
//!     let pool = Pool::new(4)?;
//!     let squares = pool.map(|number: u64| number * number, 0..10)?;
//!     assert_eq!(squares[9], 81);
//!     Ok(())
//! }
//! ```
//!
//! Linux only, for now.

mod error;
mod primitive;
mod slice;
mod sys;

pub mod channel;
pub mod collection;
pub mod manager;
pub mod memory;
pub mod pickle;
pub mod pool;
pub mod process;
pub mod shm;
pub mod sync;

pub use error::WaitError;
pub use process::command::{self, command};
pub use process::{Builder, JoinHandle, StartMethod, Stdio, init, parent, spawn};

/// Lets clients of a manager call the public methods of a type.
///
/// It stands before an `impl` block, which stays as it is; a type has one such block. Each method
/// in it that is `pub` in any way and takes `&self` or `&mut self` becomes one for clients. It is
/// called by its own name, with arguments by place or, from Python, by name; an argument of the
/// type `Option` need not be given. Arguments are types with serde's `Serialize` and
/// `DeserializeOwned`, taken by value: they come from another process. What is returned has the
/// same traits.
///
/// For a type `Counter` there is then a type `CounterProxy`, made by `From` of a
/// [`Proxy`](manager::Proxy), with the same methods and their documentation. What they
/// return depends on what the method returns:
///
/// | method of `Counter` | method of `CounterProxy` |
/// |---|---|
/// | `T` | `Result<T, CallFailed>` |
/// | `Result<T, E>` | `Result<T, ProxyError<E>>`: `Failed(e)` for what it returned as `Err(e)` |
/// | `T`, with `#[shared(object)]` | `Result<TProxy, CallFailed>` |
///
/// An `Err(e)` is a `RuntimeError` with the text of `e` to a client in Python, so that `E` needs
/// `Display`, too. So is a panic, with its message and place; the manager goes on.
///
/// Around the object is a lock, see [`Instance`](manager::Instance): methods with `&self`
/// run at the same time, one with `&mut self` alone.
///
/// Before a method may stand:
///
/// | | |
/// |---|---|
/// | `#[shared(skip)]` | Clients cannot call it. |
/// | `#[shared(quick)]` | It takes no time: the thread that looks after the sockets carries it out itself, which saves handing them to another one. A method that does take time then holds all clients up. |
/// | `#[shared(object)]` | What it returns, a type with `#[shared]` itself, stays in the manager, and the client gets a proxy for it. |
///
/// # Examples
///
/// ```
/// use procession::manager::Manager;
///
/// pub struct Counter {
///     count: u64,
/// }
///
/// #[procession::shared]
/// impl Counter {
///     /// Adds to the count and returns it.
///     pub fn increment(&mut self, by: u64) -> u64 {
///         self.count += by;
///         self.count
///     }
///
///     #[shared(quick)]
///     pub fn count(&self) -> u64 {
///         self.count
///     }
///
///     /// Takes apart, and so no method for clients.
///     #[shared(skip)]
///     pub fn into_count(self) -> u64 {
///         self.count
///     }
///
///     /// A new one, which stays in the manager.
///     #[shared(object)]
///     pub fn copy(&self) -> Counter {
///         Counter { count: self.count }
///     }
/// }
///
/// let manager = Manager::builder().serve(|registry| {
///     registry.register("Counter", || Counter { count: 0 });
/// })?;
/// let counter = CounterProxy::from(manager.connect()?.create("Counter", ())?);
/// assert_eq!(counter.increment(3)?, 3);
/// let copy = counter.copy()?;
/// copy.increment(1)?;
/// assert_eq!((counter.count()?, copy.count()?), (3, 4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What cannot be shared is an error at the argument in question:
///
/// ```compile_fail
/// struct Shelf;
///
/// #[procession::shared]
/// impl Shelf {
///     pub fn add(&mut self, title: &str) {} // error: … take it by value
/// }
/// ```
///
/// ```compile_fail
/// struct Shelf;
///
/// #[procession::shared]
/// impl Shelf {
///     pub fn add<T>(&mut self, title: T) {} // error: … its types cannot be left open
/// }
/// ```
///
/// ```compile_fail
/// struct Shelf;
///
/// #[procession::shared]
/// impl Shelf {
///     pub fn add(&mut self, thread: std::thread::Thread) {} // error: … `Deserialize` is not satisfied
/// }
/// ```
///
/// ```compile_fail
/// struct Shelf;
///
/// #[procession::shared]
/// impl Shelf {
///     pub fn take_apart(self) {} // error: … other clients may have it
/// }
/// ```
pub use procession_macros::shared;

#[cfg(doctest)]
mod guide;
