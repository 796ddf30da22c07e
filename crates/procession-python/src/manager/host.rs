//! What requests mean: methods of Python objects.
//!
//! Plain calls of methods that never block, such as those of a `dict`, are answered here. All else
//! is for the package's `Server` to answer, with the duty left to another thread.

use std::sync::Mutex;

use procession::manager::{After, Call, ClientId, Handler, Properly, Worker};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PySet, PyString, PyTuple};

use crate::codec;

/// Who makes a request.
#[pyclass(name = "Caller", module = "procession._procession", frozen)]
pub(crate) struct PyCaller {
    /// Number of the client.
    #[pyo3(get)]
    client: ClientId,
    /// Number of the client's thread.
    #[pyo3(get)]
    thread: u64,
    /// Whether references belong to the client, so that they go with it.
    #[pyo3(get)]
    is_ours: bool,
    /// Whether this is the first request of a connection of the standard library.
    #[pyo3(get)]
    is_first: bool,
}

impl PyCaller {
    fn of(call: &Call<'_>) -> Self {
        Self {
            client: call.client(),
            thread: call.thread(),
            is_ours: call.is_ours(),
            is_first: call.is_first(),
        }
    }
}

/// The work of one thread of a server.
#[pyclass(name = "ServerThread", module = "procession._procession", frozen)]
pub(crate) struct PyServerThread(Mutex<Option<Worker>>);

#[pymethods]
impl PyServerThread {
    /// Serve until the server stops or has more threads than it needs.
    fn run(&self, py: Python<'_>) {
        let worker = self.0.lock().ok().and_then(|mut worker| worker.take());
        if let Some(worker) = worker {
            py.detach(|| worker.run());
        }
    }
}

/// The package's `Server`, as the engine calls it.
pub(crate) struct Host {
    server: Py<PyAny>,
    /// Its objects, by their idents: each with the names of methods that may be called, and the
    /// types of what some of them return.
    objects: Py<PyDict>,
    /// Types whose methods never block.
    quick: Py<PyAny>,
    /// Whether requests are pickles.
    pickled: bool,
}

impl Host {
    pub(crate) fn new(server: &Bound<'_, PyAny>, quick: &Bound<'_, PyAny>) -> PyResult<Self> {
        let objects = server.getattr("id_to_obj")?.cast_into::<PyDict>()?;
        let serializer: String = server.getattr("_serializer")?.extract()?;
        Ok(Self {
            server: server.clone().unbind(),
            objects: objects.unbind(),
            quick: quick.clone().unbind(),
            pickled: serializer == "pickle",
        })
    }

    /// Answers a plain call of a method that never blocks; `None` if it is something else.
    fn answer_quickly(
        &self,
        py: Python<'_>,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Option<()> {
        let request = codec::decode(py, request)?.cast_into::<PyTuple>().ok()?;
        let (ident, name, args, kwds) = request
            .extract::<(
                Bound<'_, PyString>,
                Bound<'_, PyString>,
                Bound<'_, PyTuple>,
                Bound<'_, PyDict>,
            )>()
            .ok()?;
        let found = self.objects.bind(py).get_item(ident).ok()??.cast_into::<PyTuple>().ok()?;
        let object = found.get_item(0).ok()?;
        let exposed = found.get_item(1).ok()?.cast_into::<PySet>().ok()?;
        let mapped = found.get_item(2).ok()?;
        let quick = self.quick.bind(py).contains(object.get_type()).ok()?
            && exposed.contains(&name).ok()?
            && (mapped.is_none() || !mapped.contains(&name).ok()?);
        if !quick {
            return None;
        }
        let kwds = (!kwds.is_empty()).then_some(&kwds);
        let method = object.getattr(&name).ok()?;
        let (kind, result) = match method.call(args, kwds) {
            Ok(result) => (intern!(py, "#RETURN"), result),
            Err(error) => (intern!(py, "#ERROR"), error.into_value(py).into_bound(py).into_any()),
        };
        let message = PyTuple::new(py, [kind.as_any(), &result]).ok()?;
        if !codec::encode(&message, reply) {
            self.serialize(py, &message, call, reply).unwrap_or_else(|error| {
                error.write_unraisable(py, Some(self.server.bind(py)));
            });
        }
        Some(())
    }

    fn serialize(
        &self,
        py: Python<'_>,
        message: &Bound<'_, PyTuple>,
        call: &Call<'_>,
        reply: &mut Vec<u8>,
    ) -> PyResult<()> {
        let server = self.server.bind(py);
        let arguments = (message, call.is_ours(), call.client(), call.thread());
        let bytes = server.call_method1(intern!(py, "_serialize"), arguments)?;
        reply.extend_from_slice(bytes.cast::<PyBytes>()?.as_bytes());
        Ok(())
    }

    fn answer(
        &self,
        py: Python<'_>,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> PyResult<After> {
        let caller = Bound::new(py, PyCaller::of(call))?;
        // What is plain was read without running any code.
        let plain = if self.pickled { codec::decode(py, request) } else { None };
        let request = PyBytes::new(py, request);
        let server = self.server.bind(py);
        let answer = server.call_method1(intern!(py, "_respond"), (caller, request, plain))?;
        let (bytes, after) = answer.extract::<(Bound<'_, PyBytes>, String)>()?;
        reply.extend_from_slice(bytes.as_bytes());
        Ok(match after.as_str() {
            "serve" => After::Serve,
            "stop" => After::Stop,
            _ => After::Close,
        })
    }

    /// Calls a method of the server that nobody waits for.
    fn notify<'py, A: pyo3::call::PyCallArgs<'py>>(&self, py: Python<'py>, name: &str, args: A) {
        let server = self.server.bind(py);
        if let Err(error) = server.call_method1(name, args) {
            error.write_unraisable(py, Some(server));
        }
    }
}

impl Handler for Host {
    fn request(&self, call: &Call<'_>, request: &[u8], reply: &mut Vec<u8>) -> After {
        Python::attach(|py| {
            if self.pickled
                && !call.is_first()
                && self.answer_quickly(py, call, request, reply).is_some()
            {
                return After::Serve;
            }
            self.answer(py, call, request, reply).unwrap_or_else(|error| {
                // The client is let go of, and learns by that.
                error.write_unraisable(py, Some(self.server.bind(py)));
                After::Close
            })
        })
    }

    fn restore(&self, call: &Call<'_>, object: u64) -> bool {
        Python::attach(|py| {
            let args = (call.client(), object);
            let restored = self.server.bind(py).call_method1(intern!(py, "_restore"), args);
            restored.and_then(|restored| restored.extract()).unwrap_or(false)
        })
    }

    fn released(&self, objects: &[u64]) {
        Python::attach(|py| self.notify(py, "_released", (objects.to_vec(),)));
    }

    fn gone(&self, client: ClientId, properly: Properly) {
        let killed = properly == Properly::No;
        Python::attach(|py| self.notify(py, "_gone", (client, killed)));
    }

    fn work(&self, worker: Worker) {
        Python::attach(|py| {
            let thread = PyServerThread(Mutex::new(Some(worker)));
            self.notify(py, "_start_thread", (thread,));
        });
    }
}
