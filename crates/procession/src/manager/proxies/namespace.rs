//! Objects with attributes, and single values.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manager::failed::CallFailed;
use crate::manager::proxies::list::unless;
use crate::manager::proxies::proxy_type;
use crate::manager::proxy::read;
use crate::pickle::Value;

proxy_type! {
    /// An object in a manager whose attributes anybody may set. Each may be of another type.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let settings = manager.namespace()?;
    /// settings.set("depth", &3)?;
    /// settings.set("title", "an example")?;
    /// assert_eq!(settings.get::<u8>("depth")?, Some(3));
    /// assert_eq!(settings.get::<u8>("width")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    NamespaceProxy
}

impl NamespaceProxy {
    /// The value of an attribute, if there is one of that name.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call), as are those of all methods.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CallFailed> {
        unless(self.proxy.call("__getattribute__", (name,)), "AttributeError")
    }

    /// Sets an attribute.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn set<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), CallFailed> {
        self.proxy.call("__setattr__", (name, value))
    }

    /// Takes an attribute away; false if there was none of that name.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn remove(&self, name: &str) -> Result<bool, CallFailed> {
        let removed = self.proxy.call::<_, ()>("__delattr__", (name,));
        Ok(unless(removed, "AttributeError")?.is_some())
    }

    /// All attributes and their values.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn snapshot(&self) -> Result<Vec<(String, Value)>, CallFailed> {
        let attributes = match self.proxy.call("#GETVALUE", ())? {
            Value::Object(object) => object.state.unwrap_or(Value::None),
            other => other,
        };
        match attributes {
            Value::Dict(pairs) => {
                pairs.into_iter().map(|(name, value)| Ok((read(name)?, value))).collect()
            }
            Value::None => Ok(Vec::new()),
            other => read(other),
        }
    }
}

proxy_type! {
    /// A value in a manager that anybody may replace.
    ///
    /// Two calls are two steps: between [`get`](Self::get) and [`set`](Self::set) others may set it,
    /// so a count that several change needs a lock as well.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let best = manager.value(&(0.5, "first"))?;
    /// best.set(&(0.75, "second"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ValueProxy<T>
}

impl<T: DeserializeOwned> ValueProxy<T> {
    /// A copy of the value.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call).
    pub fn get(&self) -> Result<T, CallFailed> {
        self.proxy.call("get", ())
    }
}

impl<T: Serialize> ValueProxy<T> {
    /// Replaces the value.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call).
    pub fn set(&self, value: &T) -> Result<(), CallFailed> {
        self.proxy.call("set", (value,))
    }
}
