//! The connection of this process with a manager's server.

use std::sync::atomic::{AtomicU64, Ordering};

use procession::manager::{Client, Greeting, greet};
use pyo3::prelude::*;

use crate::connection::{PyTls, connector};
use crate::draft::{draft_onto, with_scratch};
use crate::error::EngineResult;
use crate::pickling::{dump_outside, load};
use crate::wait::blocking;

/// The number of this thread. No other thread of this process has it, also no later one.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// The one connection of this process with a manager's server.
#[pyclass(name = "ManagerClient", module = "procession._procession", frozen)]
pub(crate) struct PyManagerClient(Box<Client>);

/// Connect with a manager's server; None if it is one of the standard library.
#[pyfunction]
#[pyo3(signature = (address, authkey, tls=None))]
pub(crate) fn connect_manager(
    address: &Bound<'_, PyAny>,
    authkey: Vec<u8>,
    tls: Option<PyRef<'_, PyTls>>,
) -> EngineResult<Option<PyManagerClient>> {
    let py = address.py();
    let connector = connector(address, Some(authkey), tls.as_deref())?;
    let address = connector.address().clone();
    let mut connecting = connector.start()?;
    let connection = blocking(py, || connecting.finish())??;
    Ok(match py.detach(|| greet(connection, address))? {
        Greeting::Ours(client) => Some(PyManagerClient(client)),
        Greeting::Plain => None,
    })
}

#[pymethods]
impl PyManagerClient {
    /// The process id of the server.
    #[getter]
    fn server(&self) -> u32 {
        self.0.server()
    }

    /// Say whether this process made the connection, and the server has not ended it.
    fn is_usable(&self) -> bool {
        self.0.is_usable()
    }

    /// Send a request and return the reply.
    fn call<'py>(
        &self,
        py: Python<'py>,
        request: &Bound<'py, PyAny>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        let pending = with_scratch(|message| -> EngineResult<_> {
            draft_onto(message, |draft| dump_outside(request, draft))?;
            let thread = thread_number();
            Ok(py.detach(|| self.0.start(thread, message))?)
        })?;
        let reply = blocking(py, || pending.finish())??;
        Ok(load(py, &reply)?)
    }

    /// Have the server count references to objects, and return those that there are not.
    fn refer(&self, py: Python<'_>, objects: Vec<u64>) -> EngineResult<Vec<u64>> {
        let pending = py.detach(|| self.0.start_referring(&objects))?;
        let missing = blocking(py, || pending.finish())??.missing();
        objects.iter().filter(|object| !missing.contains(object)).for_each(|object| {
            self.0.adopt(*object);
        });
        Ok(missing)
    }

    /// Note a reference that the server has counted for this process.
    fn adopt(&self, number: u64) {
        self.0.adopt(number);
    }

    /// Note one more reference; False if the server must be asked.
    fn refer_again(&self, number: u64) -> bool {
        self.0.refer_again(number)
    }

    /// Give a reference up.
    fn give_up(&self, py: Python<'_>, number: u64) {
        py.detach(|| self.0.give_up(number));
    }

    /// Tell the server that this process ends as it should.
    fn say_goodbye(&self, py: Python<'_>) {
        py.detach(|| self.0.say_goodbye());
    }

    /// End the connection.
    fn close(&self) {
        self.0.close();
    }
}
