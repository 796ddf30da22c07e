//! The fork server of this program: started when it is first needed, and again if it has died.
//!
//! # In a forked child
//!
//! The parent's fork server is not this process's. Its copy is dropped here, which closes the inherited
//! descriptors.

use std::env;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::process::boot::Boot;
use crate::process::child::Child;
use crate::process::error::{BootError, SpawnError};
use crate::process::exec::Exec;
use crate::process::fork::Side;
use crate::process::fork_server::ForkServer;
use crate::process::function;
use crate::process::panics;
use crate::process::zygote::Zygote;
use crate::shm::Parcel;
use crate::sys::process;

/// The running executable, even if its file was replaced or removed meanwhile.
pub(crate) const OWN_IMAGE: &str = "/proc/self/exe";

/// How many fork servers are started for one child. The first may have been killed meanwhile, or over
/// it; if another one ends too, there is a reason that does not go away.
const ATTEMPTS: u32 = 3;

static SERVER: Mutex<Option<Arc<ForkServer>>> = Mutex::new(None);

/// Has the fork server make a child.
pub(crate) fn spawn(
    payload: &Parcel,
    descriptors: &[BorrowedFd<'_>],
    daemon: bool,
) -> Result<Child, SpawnError> {
    let mut attempt = 1;
    loop {
        match current()?.spawn(payload, descriptors, daemon) {
            Err(SpawnError::ForkServerDied { .. }) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// The fork server, which is started if there is none.
fn current() -> Result<Arc<ForkServer>, SpawnError> {
    let mut server = lock();
    if let Some(server) = server.as_ref().filter(|server| server.is_alive()) {
        return Ok(server.clone());
    }
    let started = Arc::new(ForkServer::start(Exec::new(OWN_IMAGE).args(env::args_os()))?);
    *server = Some(started.clone());
    Ok(started)
}

/// Lets the fork server of this program go, and returns it; `None` if there is none.
///
/// It ends when the children that it has made have ended. The next start with
/// [`StartMethod::ForkServer`](crate::process::StartMethod::ForkServer) starts another, with the
/// environment that this process has then. Does not block.
///
/// # Examples
///
/// ```
/// use procession::process::{Builder, StartMethod, stop_fork_server};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::process::init();
///     let builder = Builder::new().start_method(StartMethod::ForkServer);
///     assert_eq!(builder.spawn(|x: u32| x + 1, 1)?.join()?, 2);
///     let server = stop_fork_server().expect("it was started above");
///     assert!(server.wait(None)?.success());
///     Ok(())
/// }
/// ```
pub fn stop_fork_server() -> Option<Child> {
    lock().take().map(|server| server.child().clone())
}

/// Forgets the parent's fork server. To be called in a forked child.
pub(crate) fn forget() {
    // A thread that does not exist here may hold the lock; then the copy stays, and is refused.
    if let Ok(mut server) = SERVER.try_lock() {
        server.take();
    }
}

fn lock() -> MutexGuard<'static, Option<Arc<ForkServer>>> {
    // No change can panic half-way.
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a process that was started as the fork server has come to.
pub(crate) enum Served {
    /// No children are wanted any more.
    All,
    /// This is a child, and was given this.
    Child(Boot, Vec<OwnedFd>),
}

/// Makes children for the process that started this one, until it wants no more.
pub(crate) fn serve(boot: Boot) -> Result<Served, BootError> {
    let mut zygote = Zygote::from_boot(&boot)?;
    drop(boot);
    process::set_name("fork server");
    function::prepare();
    panics::make_ready();
    loop {
        let request = match zygote.next_request() {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(Served::All),
            // A signal handler ran.
            Err(_) => continue,
        };
        let forked = request.prepare().and_then(|prepared| prepared.fork(request.is_daemon()));
        match forked {
            Ok(Side::Parent { pid, .. }) => zygote.forked(request, pid),
            Ok(Side::Child) => {
                let (boot, descriptors) = request.into_child(zygote)?;
                return Ok(Served::Child(boot, descriptors));
            }
            Err(error) => zygote.failed(request, &text_of(&error)),
        }
    }
}

fn text_of(error: &SpawnError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
