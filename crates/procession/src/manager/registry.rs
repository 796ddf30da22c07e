//! What a manager can make, by name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::manager::object::{Invocation, Raised, Served};
use crate::manager::object_instance::{Instance, Shareable};
use crate::manager::objects;
use crate::pickle::{self, Value};

type Make = dyn Fn(&mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> + Send + Sync;

/// How clients come by objects of one kind.
#[derive(Clone)]
pub(super) enum Kind {
    /// Each gets a new one.
    New(Arc<Make>),
    /// All get this one.
    Existing(Arc<dyn Served>),
}

/// What a manager can make, by the names that clients ask for.
///
/// It begins with what Python's `SyncManager` makes, under the same names and with the same
/// methods: `dict`, `list`, `Array`, `Namespace`, `Value`, `Queue`, `JoinableQueue`, `Lock`, `RLock`,
/// `Semaphore`, `BoundedSemaphore`, `Condition`, `Event` and `Barrier`; but no `Pool`. Values in them are compared, ordered and shown as in Python; of instances of classes
/// only what their pickles say is known. Functions of Python cannot be called, so that a key to sort
/// by and the action of a barrier are refused. A name that is registered again means the new thing.
///
/// For an example see [`Manager`](super::Manager).
pub struct Registry {
    kinds: HashMap<String, Kind>,
    /// Names that stand for what this crate makes.
    builtin: HashMap<String, Kind>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.kinds.keys().chain(self.builtin.keys()).collect();
        names.sort();
        names.dedup();
        f.debug_tuple("Registry").field(&names).finish()
    }
}

impl Registry {
    pub(super) fn new() -> Self {
        let kinds = objects::KINDS.iter();
        let builtin =
            kinds.map(|(name, make)| ((*name).to_owned(), Kind::New(Arc::new(make)))).collect();
        Self { kinds: HashMap::new(), builtin }
    }

    /// Lets clients make objects of a type of this program, by a function without arguments.
    ///
    /// The type has methods for clients by [`shared`](macro@crate::shared). A panic in `make` is
    /// an error for the client that has asked.
    pub fn register<T: Shareable>(
        &mut self,
        name: impl Into<String>,
        make: impl Fn() -> T + Send + Sync + 'static,
    ) -> &mut Self {
        self.register_served(name, move |call| {
            call.bind(&[])?;
            Ok(Arc::new(Instance::new(make())))
        })
    }

    /// Lets clients make objects of a type of this program, by a function that gets what the
    /// client gives, as a tuple.
    ///
    /// # Examples
    ///
    /// ```
    /// # use procession::manager::Manager;
    /// struct Shelf(Vec<String>);
    ///
    /// #[procession::shared]
    /// impl Shelf {
    ///     fn books(&self) -> usize {
    ///         self.0.len()
    ///     }
    /// }
    ///
    /// # let manager = Manager::builder().serve(|registry| {
    /// registry.register_with("Shelf", |(first, second): (String, String)| {
    ///     Shelf(vec![first, second])
    /// });
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register_with<T: Shareable, A: DeserializeOwned>(
        &mut self,
        name: impl Into<String>,
        make: impl Fn(A) -> T + Send + Sync + 'static,
    ) -> &mut Self {
        self.register_served(name, move |call| {
            let arguments = call.take_arguments();
            if !arguments.keywords.is_empty() {
                return Err(Raised::type_error("it takes no arguments by name"));
            }
            let arguments = pickle::from_value(Value::Tuple(arguments.positional));
            let arguments = arguments
                .map_err(|error| Raised::type_error(format!("wrong arguments: {error}")))?;
            Ok(Arc::new(Instance::new(make(arguments))))
        })
    }

    /// Lets clients make objects that say by themselves what their methods are.
    pub fn register_served(
        &mut self,
        name: impl Into<String>,
        make: impl Fn(&mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> + Send + Sync + 'static,
    ) -> &mut Self {
        self.kinds.insert(name.into(), Kind::New(Arc::new(make)));
        self
    }

    /// Lets clients refer to an object that there is already: all to the same. It stays as long as
    /// the manager.
    ///
    /// # Examples
    ///
    /// A queue of tasks, which clients in Python reach by
    /// `BaseManager.register('get_tasks')` and `manager.get_tasks()`:
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use procession::manager::{Instance, Manager, Queue};
    ///
    /// let tasks = Arc::new(Queue::new(0));
    /// let manager = Manager::builder().serve(|registry| {
    ///     registry.object("get_tasks", tasks.clone());
    /// })?;
    /// tasks.put(&("sweep", 3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn object(&mut self, name: impl Into<String>, object: Arc<dyn Served>) -> &mut Self {
        self.kinds.insert(name.into(), Kind::Existing(object));
        self
    }

    /// What is registered under a name, and whether this crate makes it.
    pub(super) fn find(&self, name: &str) -> Option<(&Kind, bool)> {
        let own = self.kinds.get(name).map(|kind| (kind, false));
        own.or_else(|| self.builtin.get(name).map(|kind| (kind, true)))
    }

    pub(super) fn existing(&self) -> impl Iterator<Item = (&String, &Arc<dyn Served>)> {
        self.kinds.iter().filter_map(|(name, kind)| match kind {
            Kind::Existing(object) => Some((name, object)),
            Kind::New(_) => None,
        })
    }
}
